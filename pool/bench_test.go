package pool_test

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/natwise/natwise/pool"
)

func numbered(max int) *pool.Pool[*int] {
	return pool.New(pool.Config[*int]{Open: func(context.Context) (*int, error) { return new(int), nil }, Max: max})
}

func BenchmarkGetPut(b *testing.B) {
	p := numbered(1)
	b.ReportAllocs()
	for b.Loop() {
		l, err := p.Get(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		l.Put()
	}
}

func BenchmarkWait64On8(b *testing.B) {
	p := numbered(8)
	b.ReportAllocs()
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range b.N / 64 {
				l, err := p.Get(context.Background())
				if err != nil {
					b.Error(err)
					return
				}
				runtime.Gosched()
				l.Put()
			}
		})
	}
	all.Wait()
}

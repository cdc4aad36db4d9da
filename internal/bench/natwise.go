package main

import (
	"context"

	"github.com/natwise/natwise/pool"
)

// openNatwise makes a contender of natwise's pool.
func openNatwise(values int) (contender, error) {
	return natwiseContender{pool.New(pool.Config[*conn]{
		Open:  func(context.Context) (*conn, error) { return new(conn), nil },
		Close: func(*conn, error) {},
		Max:   values,
	})}, nil
}

type natwiseContender struct{ pool *pool.Pool[*conn] }

func (p natwiseContender) cycle(ctx context.Context, n int, hold func()) error {
	for range n {
		l, err := p.pool.Get(ctx)
		if err != nil {
			return err
		}
		if hold != nil {
			hold()
		}
		l.Put()
	}
	return nil
}

func (p natwiseContender) use(ctx context.Context, work func(*conn)) error {
	l, err := p.pool.Get(ctx)
	if err != nil {
		return err
	}
	work(l.Value())
	l.Put()
	return nil
}

func (p natwiseContender) close(ctx context.Context) error { return p.pool.Close(ctx) }

package pool_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/natwise/natwise/pool"
)

func plain(*cellar, *pool.Config[*jar]) {}

func TestDoPutsBackWhatIsCleanAndDiscardsTheRest(t *testing.T) {
	var errNo, errCut = errors.New("it said no"), errors.New("cut off")
	for _, test := range []struct {
		name      string
		f         func() error
		err       error
		discarded bool
	}{
		{"nil", func() error { return nil }, nil, false},
		{"a clean nil", func() error { return pool.Clean(nil) }, nil, false},
		{"a clean error", func() error { return pool.Clean(errNo) }, errNo, false},
		{"an error", func() error { return errCut }, errCut, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			inCellar(t, plain, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
				err := p.Do(t.Context(), func(_ context.Context, j *jar) error {
					if s := p.Stats(); j.n != 1 || s.InUse != 1 {
						t.Errorf("with value %d: %+v", j.n, s)
					}
					return test.f()
				})
				if err != test.err { // itself, not wrapped
					t.Errorf("got %v, want %v", err, test.err)
				}
				s := p.Stats()
				if discarded := s.Closed[pool.Discarded] == 1; discarded != test.discarded || s.InUse != 0 || discarded == (s.Idle == 1) {
					t.Errorf("got %+v", s)
				}
				if test.discarded && c.jars[0].cause != test.err {
					t.Errorf("Close was told %v", c.jars[0].cause)
				}
			})
		})
	}
}

func TestDoDiscardsAfterAPanicAndAfterGoexit(t *testing.T) {
	inCellar(t, plain, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		for i, end := range []func(){func() { panic("out of luck") }, runtime.Goexit} {
			done := make(chan any)
			go func() {
				defer func() { done <- recover() }()
				p.Do(t.Context(), func(context.Context, *jar) error {
					end()
					return nil
				})
			}()
			if r := <-done; i == 0 && r != "out of luck" {
				t.Errorf("recovered %v", r)
			}
			synctest.Wait()
			if s := p.Stats(); s.InUse != 0 || s.Size != 0 || s.Closed[pool.Discarded] != uint64(i+1) {
				t.Errorf("got %+v", s)
			}
			if cause := c.jars[i].cause; cause == nil || cause == pool.Discarded {
				t.Errorf("Close was told %v", cause)
			}
		}
	})
}

func TestDoWithoutAValueDoesNotCall(t *testing.T) {
	inCellar(t, plain, func(t *testing.T, c *cellar, p *pool.Pool[*jar]) {
		p.Close(t.Context())
		err := p.Do(t.Context(), func(context.Context, *jar) error {
			t.Error("called")
			return nil
		})
		if err != pool.ErrClosed {
			t.Errorf("got %v", err)
		}
	})
}

func TestACleanErrorIsStillFoundInsideAnother(t *testing.T) {
	if err := fmt.Errorf("query: %w", pool.Clean(errSour)); !errors.Is(err, errSour) || err.Error() != "query: it is sour" {
		t.Errorf("got %v", err)
	}
}

package main

import (
	"context"

	"github.com/jackc/puddle/v2"
)

// openPuddle makes a contender of pgx' pool.
func openPuddle(values int) (contender, error) {
	p, err := puddle.NewPool(&puddle.Config[*conn]{
		Constructor: func(context.Context) (*conn, error) { return new(conn), nil },
		Destructor:  func(*conn) {},
		MaxSize:     int32(values),
	})
	return puddleContender{p}, err
}

type puddleContender struct{ pool *puddle.Pool[*conn] }

func (p puddleContender) cycle(ctx context.Context, n int, hold func()) error {
	for range n {
		r, err := p.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		if hold != nil {
			hold()
		}
		r.Release()
	}
	return nil
}

func (p puddleContender) use(ctx context.Context, work func(*conn)) error {
	r, err := p.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	work(r.Value())
	r.Release()
	return nil
}

func (p puddleContender) close(context.Context) error {
	p.pool.Close() // waits for every value, however long
	return nil
}

package main

import (
	"context"

	"vitess.io/vitess/go/pools/smartconnpool"
)

// openVitess makes a contender of Vitess' pool.
func openVitess(values int) (contender, error) {
	p := smartconnpool.NewPool(&smartconnpool.Config[vitessConn]{Capacity: int64(values)})
	p.Open(func(context.Context) (vitessConn, error) { return vitessConn{new(conn)}, nil }, nil)
	return vitessContender{p}, nil
}

// A vitessConn has no settings and never breaks.
type vitessConn struct{ *conn }

func (vitessConn) ApplySetting(context.Context, *smartconnpool.Setting) error { return nil }
func (vitessConn) ResetSetting(context.Context) error                         { return nil }
func (vitessConn) Setting() *smartconnpool.Setting                            { return nil }
func (vitessConn) IsClosed() bool                                             { return false }
func (vitessConn) Close()                                                     {}

type vitessContender struct {
	pool *smartconnpool.ConnPool[vitessConn]
}

func (p vitessContender) cycle(ctx context.Context, n int, hold func()) error {
	for range n {
		c, err := p.pool.Get(ctx, nil)
		if err != nil {
			return err
		}
		if hold != nil {
			hold()
		}
		c.Recycle()
	}
	return nil
}

func (p vitessContender) use(ctx context.Context, work func(*conn)) error {
	c, err := p.pool.Get(ctx, nil)
	if err != nil {
		return err
	}
	work(c.Conn.conn)
	c.Recycle()
	return nil
}

func (p vitessContender) close(ctx context.Context) error { return p.pool.CloseWithContext(ctx) }

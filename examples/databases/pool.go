package main

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A pool is what a *sql.DB and a *pgxpool.Pool have in common.
type pool struct {
	borrow func(context.Context) (loan, error)
	close  func()
}

// A loan is a connection that was borrowed.
type loan struct {
	ask      func(context.Context) error // whether the server is there
	giveBack func()
}

func fromSQL(db *sql.DB) pool {
	borrow := func(ctx context.Context) (loan, error) {
		c, err := db.Conn(ctx)
		if err != nil {
			return loan{}, err
		}
		return loan{c.PingContext, func() { c.Close() }}, nil
	}
	return pool{borrow, func() { db.Close() }}
}

func fromPGX(p *pgxpool.Pool) pool {
	borrow := func(ctx context.Context) (loan, error) {
		c, err := p.Acquire(ctx)
		if err != nil {
			return loan{}, err
		}
		return loan{c.Ping, c.Release}, nil
	}
	return pool{borrow, func() { p.Close() }}
}

// together borrows n connections at once and asks on each.
func (p pool) together(ctx context.Context, n int) error {
	for range n {
		l, err := p.borrow(ctx)
		if err != nil {
			return err
		}
		defer l.giveBack() // when all are there
		if err := l.ask(ctx); err != nil {
			return err
		}
	}
	return nil
}

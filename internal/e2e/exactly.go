package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/sqlx"
)

const (
	inserts     = 5_000
	insertsFull = 20_000
	most        = 45 * time.Second // in which they are sent, or it is said how many were not
	mostFull    = 200 * time.Second

	inserters = 12 // at a time, of each client
	pause     = 120 * time.Millisecond
	service   = 20 * time.Millisecond
	deadline  = 5 * time.Second // of an INSERT

	// userTimeout is what whoever minds has the kernel wait for peers: a lib/pq has no other
	// end where packets vanish.
	userTimeout = 5 * time.Second
)

// exactlyOnce is figure by figure what package main says of it.
func exactlyOnce(r *work.Report) error {
	n, lasts := inserts, most
	if r.Full {
		n, lasts = insertsFull, mostFull
	}
	return perform(2*len(drivers.Names), work.RealIdle, func(st *stage) error {
		crowds, err := st.crowds(n)
		if err != nil {
			return err
		}
		f, err := st.fiend()
		if err != nil {
			return err
		}
		var all []*work.Crowd
		for _, c := range crowds {
			all = append(all, &c.Crowd)
		}
		took, toll, err := faults.Torment(all, lasts, f.do)
		if err := errors.Join(err, f.close(), st.leave()); err != nil {
			return err
		}
		rows, err := st.stored()
		if err != nil {
			return err
		}
		for i := 0; i < len(crowds); i += 2 {
			noteInserts(r, rows, crowds[i], crowds[i+1])
		}
		faults.Note(r, toll, took)
		return nil
	})
}

// crowds are those of all clients, who send n INSERTs in all: ours and a peer for each
// driver.
func (st *stage) crowds(n int) (all []*crowd, err error) {
	for i, driver := range drivers.Names {
		if driver != drivers.PQ { // it has PostgreSQL with pgx
			if err := st.table(driver); err != nil {
				return nil, err
			}
		}
		share := n / len(drivers.Names)
		if i == 0 {
			share += n % len(drivers.Names)
		}
		for _, who := range []string{ours, plain} {
			c, err := st.crowd(who, driver, len(all), share)
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// crowd makes the i-th, and its client.
func (st *stage) crowd(who, driver string, i, inserts int) (*crowd, error) {
	joined, err := st.join(terms{
		who: who, driver: driver, address: i, conns: inserters,
		path: work.Path(), config: sqlx.Config{Patience: patience},
		keepAlive: goes, userTimeout: userTimeout,
	})
	if err != nil {
		return nil, err
	}
	c := &crowd{client: joined, base: i * insertsFull}
	c.Crowd = work.Crowd{
		Ours: who == ours, Hands: inserters, Deadline: deadline,
		Pause: func() time.Duration { return rand.N(pause) },
		Send:  c.send, Judge: judge, Sent: make([]work.Sent, inserts),
	}
	c.prepared, err = c.db.Prepare(c.statement(c.placeholder(), service/2))
	return c, err
}

// table makes what is inserted into. It has no key: what comes twice is there twice.
func (st *stage) table(driver string) error {
	db, err := st.direct(driver)
	if err != nil {
		return err
	}
	_, err = db.Exec("CREATE TABLE once (id bigint NOT NULL)")
	return errors.Join(err, db.Close())
}

// stored is how many rows there are of each id. Nothing that was sent before can still
// come: the servers are killed, and their data are asked by others.
func (st *stage) stored() (map[int]int, error) {
	if err := errors.Join(st.kill(), st.start()); err != nil {
		return nil, err
	}
	stored := make(map[int]int)
	for _, driver := range []string{drivers.PGX, drivers.MySQL} {
		db, err := st.direct(driver)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(count(db, stored), db.Close()); err != nil {
			return nil, fmt.Errorf("counting rows of %s: %w", driver, err)
		}
	}
	return stored, nil
}

func count(db *sql.DB, into map[int]int) error {
	rows, err := db.Query("SELECT id, count(*) FROM once GROUP BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, n int
		if err := rows.Scan(&id, &n); err != nil {
			return err
		}
		into[id] += n
	}
	return rows.Err()
}

// A way is how an INSERT is sent.
type way int

const (
	text      way = iota // without arguments
	arguments            // with some
	prepared             // once, and run again and again
	inTx                 // with an argument, between Begin and Commit
	ways
)

func (w way) String() string {
	return [...]string{"text", "arguments", "prepared", "in a transaction"}[w]
}

// A crowd is those who use one client.
type crowd struct {
	*client
	work.Crowd
	base int // of its ids

	prepared *sql.Stmt // once, whatever becomes of the connections
}

func (c *crowd) id(i int) int { return c.base + i }

func (c *crowd) way(i int) way { return way(i) % ways }

// send sends an INSERT.
func (c *crowd) send(ctx context.Context, i int) error {
	return heeding(ctx, func(ctx context.Context) error { return c.insert(ctx, c.way(i), c.id(i)) })
}

func (c *crowd) insert(ctx context.Context, w way, id int) error {
	takes := rand.N(service)
	if w == text {
		return one(c.db.ExecContext(ctx, c.statement(fmt.Sprint(id), takes)))
	}
	query := c.statement(c.placeholder(), takes)
	switch w {
	case prepared:
		return one(c.prepared.ExecContext(ctx, id))
	case inTx:
		return c.transact(ctx, query, id)
	}
	return one(c.db.ExecContext(ctx, query, id))
}

// statement is an INSERT of a value that takes the server some time.
func (c *crowd) statement(value string, takes time.Duration) string {
	return sleeping("INSERT INTO once SELECT "+value, c.driver, takes)
}

func (c *crowd) placeholder() string {
	if c.driver == drivers.MySQL {
		return "?"
	}
	return "$1::bigint"
}

func (c *crowd) transact(ctx context.Context, query string, id int) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := one(tx.ExecContext(ctx, query, id)); err != nil {
		tx.Rollback() // which the server does by itself where this does not get through
		return err
	}
	return tx.Commit()
}

// errStrange says that the answer is not that of an INSERT of one row.
var errStrange = errors.New("not one row")

// one is the error of an INSERT, whose result says how many rows.
func one(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("%w: %d, error %v", errStrange, n, err)
	}
	return nil
}

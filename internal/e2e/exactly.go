package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
	return perform(2*len(drivers.Names), realIdle, func(st *stage) error {
		crowds, err := st.crowds(n)
		if err != nil {
			return err
		}
		f, err := st.fiend()
		if err != nil {
			return err
		}
		took, err := f.torment(crowds, lasts)
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
		noteFaults(r, f.toll, took)
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
	c := &crowd{client: joined, base: i * insertsFull, sent: make([]insert, inserts)}
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

// torment lets the crowds send their INSERTs while faults happen, until those of ours are
// done, and returns how long that took.
func (f *fiend) torment(crowds []*crowd, lasts time.Duration) (took time.Duration, err error) {
	begin := time.Now()
	life, end := context.WithDeadline(context.Background(), begin.Add(lasts))
	defer end()
	var mine, all sync.WaitGroup
	for _, c := range crowds {
		c.begin = begin
		if c.who == ours {
			mine.Go(func() { c.send(life) })
		} else {
			all.Go(func() { c.send(life) })
		}
	}
	all.Go(func() { err = f.harm(life, begin) })
	mine.Wait()
	took = time.Since(begin)
	end()
	all.Wait()
	return took, err
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
	begin time.Time
	base  int // of its ids
	next  atomic.Int64
	sent  []insert // each is written once, by whoever sends it

	prepared *sql.Stmt // once, whatever becomes of the connections
}

// An insert is one INSERT and its fate.
type insert struct {
	fate fate
	err  error
}

func (c *crowd) id(i int) int { return c.base + i }

func (c *crowd) way(i int) way { return way(i) % ways }

// send sends all INSERTs, some at a time, until life ends.
func (c *crowd) send(life context.Context) {
	var all sync.WaitGroup
	for range inserters {
		all.Go(func() {
			for c.ready(life) {
				i := int(c.next.Add(1)) - 1
				if i >= len(c.sent) {
					return
				}
				c.sent[i] = c.once(life, i)
			}
		})
	}
	all.Wait()
}

// ready waits as long as everybody rests, and a little in any case. It reports false if
// life has ended.
func (c *crowd) ready(life context.Context) bool {
	return until(life, time.Now().Add(rand.N(pause)+resting(time.Since(c.begin))))
}

// once sends an INSERT, once as far as it is concerned.
func (c *crowd) once(life context.Context, i int) insert {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(life), deadline)
	defer cancel()
	defer context.AfterFunc(life, func() {
		if c.who != ours { // what ours has begun is ended
			cancel()
		}
	})()
	err := heeding(ctx, func(ctx context.Context) error { return c.insert(ctx, c.way(i), c.id(i)) })
	if err != nil && context.Cause(ctx) == context.Canceled {
		return insert{}
	}
	return insert{judge(err), err}
}

// insert sends an INSERT.
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

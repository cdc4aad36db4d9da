package conformance

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
)

var cancellations = []scenario{
	{name: "a query whose context had ended", run: endedBefore},
	{name: "a query whose deadline comes", run: deadline},
	{name: "a query that is canceled", run: canceled},
	{name: "a canceled statement", run: canceledStatement},
	{name: "a result that is canceled", run: canceledRows},
	{name: "a canceled query of a Conn", run: canceledOfConn},
	{name: "as many canceled queries as there are connections", run: canceledAtOnce},
	{name: "canceled queries among others", run: canceledAmongOthers},
}

// moment is how long something is let run before it is called off.
const moment = 100 * time.Millisecond

func endedBefore(s *subject) {
	s.see("before", s.which(s.db))
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	_, err := s.db.ExecContext(ctx, "SELECT 1")
	s.see("Exec", err)
	_, err = s.db.QueryContext(ctx, "SELECT "+s.text, "x")
	s.see("Query", err)
	if s.is(drivers.PQ) {
		return // it watches the context by itself, and it is chance who is first
	}
	c := s.conn()
	_, err = c.ExecContext(ctx, "SELECT 1")
	s.see("of a Conn", err)
	_, err = c.ExecContext(ctx, "SELECT "+s.text, "x")
	s.see("of a Conn, with an argument", err)
	s.see("the Conn", s.which(c), c.Close())
	s.see("connection afterwards", s.which(s.db))
}

func deadline(s *subject) {
	s.see("before", s.which(s.db))
	for _, args := range [][]any{nil, {1}} {
		q := s.sleep
		if args != nil {
			q += " WHERE 1 = " + s.arg
		}
		ctx, cancel := context.WithTimeout(s.Context(), moment)
		_, err := s.db.ExecContext(ctx, q, args...)
		cancel()
		s.see("Exec", err)
		s.see("connection afterwards", s.which(s.db))
		ctx, cancel = context.WithTimeout(s.Context(), moment)
		rows, err := s.db.QueryContext(ctx, q, args...)
		if err == nil {
			rows.Next()
			err = rows.Err()
			rows.Close()
		}
		cancel()
		s.see("Query", err)
		s.quiet()
		s.see("connection afterwards", s.which(s.db))
	}
}

func canceled(s *subject) {
	s.see("before", s.which(s.db))
	ctx, cancel := context.WithCancel(s.Context())
	defer time.AfterFunc(moment, cancel).Stop()
	_, err := s.db.ExecContext(ctx, s.sleep)
	s.see("Exec", err)
	s.see("connection afterwards", s.which(s.db))
}

func canceledStatement(s *subject) {
	st, err := s.db.Prepare(s.sleep)
	s.must(err)
	defer st.Close()
	s.see("before", s.which(s.db))
	ctx, cancel := context.WithTimeout(s.Context(), moment)
	defer cancel()
	_, err = st.ExecContext(ctx)
	s.see("Exec", err)
	s.see("connection afterwards", s.which(s.db))
	quick, err := s.db.Prepare("SELECT " + s.text)
	s.must(err)
	s.see("another statement", one(quick.QueryRow("x")), quick.Close())
}

func canceledRows(s *subject) {
	s.see("before", s.which(s.db))
	for _, q := range []func(context.Context) (*sql.Rows, error){
		func(ctx context.Context) (*sql.Rows, error) { return s.db.QueryContext(ctx, s.many) },
		func(ctx context.Context) (*sql.Rows, error) {
			return s.db.QueryContext(ctx, "SELECT * FROM ("+s.many+") AS t WHERE 1 = "+s.arg, 1)
		},
	} {
		ctx, cancel := context.WithCancel(s.Context())
		rows, err := q(ctx)
		s.must(err)
		s.see("row", rows.Next())
		cancel()
		s.quiet() // database/sql closes them
		s.see("afterwards", rows.Next(), rows.Err(), rows.Close())
		s.see("connection afterwards", s.which(s.db))
	}
}

func canceledOfConn(s *subject) {
	c := s.conn()
	s.see("before", s.which(c))
	ctx, cancel := context.WithTimeout(s.Context(), moment)
	defer cancel()
	_, err := c.ExecContext(ctx, s.sleep)
	s.see("Exec", err)
	_, err = c.ExecContext(s.Context(), "SELECT 1")
	s.see("next", err)
	s.see("close", c.Close())
	s.see("connection afterwards", s.which(s.db))
}

// canceledAtOnce has queries called off at the same moment: for each lib/pq wants a
// connection by which to say so, and returns when the server has done it.
func canceledAtOnce(s *subject) {
	long := strings.Replace(s.sleep, "60", "3", 1)
	ctx, cancel := context.WithTimeout(s.Context(), moment)
	defer cancel()
	var finished, late atomic.Int64
	var users sync.WaitGroup
	for range most {
		users.Go(func() {
			begun := time.Now()
			if _, err := s.db.ExecContext(ctx, long); err == nil {
				finished.Add(1)
			}
			if time.Since(begun) > time.Second {
				late.Add(1)
			}
		})
	}
	users.Wait()
	s.see("finished all the same", finished.Load())
	s.see("late", late.Load())
}

// canceledAmongOthers has half of the queries called off, so that a cancel request that
// comes late, or an answer, could meet one of the other half.
func canceledAmongOthers(s *subject) {
	st, err := s.db.Prepare("SELECT " + s.text)
	s.must(err)
	defer st.Close()
	brief := strings.Replace(s.sleep, "60", "0.01", 1)
	var wrong, failed atomic.Int64
	check := func(got any, want string) {
		switch _, err := got.(error); {
		case err:
			failed.Add(1)
		case got != want:
			wrong.Add(1)
		}
		if got != want {
			s.Logf("%v, want %s", got, want)
		}
	}
	var users sync.WaitGroup
	for g := range 8 {
		users.Go(func() {
			for i := range 40 {
				ctx, cancel := context.WithTimeout(s.Context(), time.Duration(1+i%5)*time.Millisecond)
				s.db.ExecContext(ctx, brief)
				cancel()
				mine := fmt.Sprint(g, " ", i)
				check(one(s.db.QueryRow("SELECT "+s.text, mine)), mine)
				check(one(st.QueryRow(mine)), mine)
			}
		})
	}
	users.Wait()
	s.see("another's answer", wrong.Load())
	s.quiet()
	if n := failed.Load(); n > 0 && s.natwise != nil { // pgx alone has some, now and then
		s.Errorf("%d of those that nobody called off have failed", n)
	}
	s.opened.Store(0) // how many it took is chance
}

package sqlx_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/sqlx"
)

// cancel dials as a driver does to cancel what it has sent: with a context of its own.
func (s *stage) cancel() (net.Conn, error) {
	return s.dialer.DialContext(context.Background(), "tcp", here)
}

func TestSideConnectionsAreFew(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		s.must("insert")
		var open []net.Conn
		for range 2 {
			c, err := s.cancel()
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		start := time.Now()
		_, err := s.cancel()
		var dial *dialer.DialError
		if !errors.Is(err, sqlx.ErrSide) || !errors.As(err, &dial) || !dialer.SafeToRetry(err) || time.Since(start) != 5*time.Second {
			t.Errorf("a third one, after %v: %v", time.Since(start), err)
		}
		time.AfterFunc(time.Second, func() { open[0].Close() })
		c, err := s.cancel()
		if err != nil {
			t.Fatalf("after one was closed: %v", err)
		}
		if _, ok := dialer.Unwrap(c); !ok {
			t.Errorf("a %T hides its flow", c)
		}
		c.Close()
		c.Close()
		open[1].Close()
	})
}

func TestASideConnectionThatNobodyClosesGivesItsPlaceBack(t *testing.T) {
	d := &sqlx.Dialer{Side: 1, Dialer: &dialer.Dialer{Dial: func(context.Context, string, string) (net.Conn, error) {
		c, far := net.Pipe()
		t.Cleanup(func() { far.Close() })
		return c, nil
	}}}
	if c, err := d.DialContext(sqlx.Mark(t.Context()), "tcp", here); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	for i := range 3 {
		runtime.GC() // finds the one before
		c, err := d.DialContext(t.Context(), "tcp", here)
		if err != nil {
			t.Fatalf("side connection %d: %v", i, err)
		}
		_ = c
	}
}

func TestWithoutPlacesThereAreNoSideConnections(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.dialer.Side = -1
		s.open(sqlx.Config{})
		s.must("insert")
		if _, err := s.cancel(); !errors.Is(err, sqlx.ErrSide) {
			t.Errorf("got %v", err)
		}
	})
}

// What every driver takes for safe to try again.
func TestAWriteAfterTheServersFINSendsNothing(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		c, err := s.dialer.DialContext(t.Context(), "tcp", here)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		say := func() (int, error) { return io.WriteString(c, "insert\n") }
		if _, err := say(); err != nil {
			t.Fatal(err)
		}
		c.Read(make([]byte, 10))
		s.far(0).Close()
		synctest.Wait()
		n, err := say()
		var op *net.OpError
		if n != 0 || !errors.As(err, &op) || s.runs("insert") != 1 {
			t.Errorf("wrote %d bytes: %v", n, err)
		}
	})
}

func TestASideConnectionHasAPortWhereAllOthersAreTaken(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		var conns []*sql.Conn
		for range 7 { // one is kept for control connections
			c, err := s.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		c, err := s.cancel()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestASideConnectionToAServerInTroubleIsRefusedAtOnce(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		s.must("insert")
		dial := s.dialer.Dialer.Dial
		dials := 0
		s.dialer.Dialer.Dial = func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, errors.New("refused")
		}
		if _, err := s.cancel(); err == nil {
			t.Fatal("it was dialed")
		}
		start := time.Now()
		if _, err := s.cancel(); !errors.Is(err, sqlx.ErrSide) || time.Since(start) != 0 || dials != 1 {
			t.Errorf("%v after %v, %d dials", err, time.Since(start), dials)
		}
		s.dialer.Dialer.Dial = dial
	})
}

func TestADialerThatNobodyMarksKnowsNoSideConnections(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		db := sql.OpenDB(toy{s})
		defer db.Close()
		for range 5 {
			c, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	})
}

func TestMarkedConnectionsAreTheDriversOwn(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		db := sql.OpenDB(sqlx.Marked(toy{s}))
		defer db.Close()
		for range 4 {
			c, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Raw(func(c any) error {
				if _, ok := c.(*toyConn); !ok {
					t.Errorf("the connection is a %T", c)
				}
				return nil
			})
		}
		for range 2 {
			c, err := s.cancel()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if _, err := s.cancel(); !errors.Is(err, sqlx.ErrSide) {
			t.Errorf("a third side connection: %v", err)
		}
	})
}

// What lib/pq does where the server does not want TLS: it leaves the first connection.
func TestWhatADriverLeavesOpenIsClosed(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.hook = func(string) error { return nil }
		db := sqlx.OpenDB(twice{s}, sqlx.Config{Dialer: s.dialer})
		defer db.Close()
		if _, err := db.Exec("insert"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.nat.Stats(); n.Opened != 2 || n.Live != 1 {
			t.Errorf("%d flows were opened, and %d are live", n.Opened, n.Live)
		}
		if s.runs("hello") != 2 || s.runs("insert") != 1 {
			t.Errorf("ran: %v", s.ran)
		}
	})
}

// twice is a toy that says hello on one connection and goes on with another.
type twice struct{ s *stage }

func (d twice) Driver() driver.Driver { return toyDriver{} }

func (d twice) Connect(ctx context.Context) (driver.Conn, error) {
	if _, err := toy(d).Connect(ctx); err != nil {
		return nil, err
	}
	return toy(d).Connect(ctx)
}

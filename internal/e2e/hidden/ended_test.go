package hidden

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/e2e/drivers"
)

// endings are ways in which a connection ends while nobody uses it.
var endings = []struct {
	name string
	end  func(*net.TCPConn)
}{{"FIN", finish}, {"RST", reset}}

// goodbye is how many bytes a driver may write when it closes a connection: Terminate of
// PostgreSQL and COM_QUIT of MySQL are of a length. A statement is longer.
const goodbye = 5

func TestAStatementAfterAConnectionEndedIdleRunsOnce(t *testing.T) {
	t.Parallel()
	for _, name := range drivers.Names {
		t.Run(name, func(t *testing.T) {
			s := start(t, name)
			exec(t, newWitness().db(t, name, s.Addr(), plain), "CREATE TABLE ran (id VARCHAR(40))")
			for _, by := range doors {
				for _, e := range endings {
					t.Run(by.name+" "+e.name, func(t *testing.T) {
						w, r := newWitness(), newRelay(t, s.Addr())
						db := w.db(t, name, r.addr, by)
						exec(t, db, "SELECT 1")
						exec(t, db, "SELECT 1") // pgx asks before the second use of a connection
						first := w.flow()
						r.endAll(e.end)
						until(t, "the end has come", func() bool { _, err := first.Peek(); return err != nil })

						id, written := by.name+e.name, first.BytesWritten()
						if _, err := db.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO ran VALUES ('%s')", id)); err != nil {
							t.Errorf("Exec: %v", err)
						}
						if wrote := first.BytesWritten() - written; wrote > goodbye {
							t.Errorf("%d bytes were written to the connection that had ended", wrote)
						}
						var ran int
						if err := db.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) FROM ran WHERE id = '%s'", id)).Scan(&ran); err != nil {
							t.Fatal(err)
						}
						if ran != 1 {
							t.Errorf("the statement ran %d times", ran)
						}
					})
				}
			}
		})
	}
}

func TestATransactionAfterAConnectionEndedIdleBegins(t *testing.T) {
	t.Parallel()
	for _, name := range drivers.Names {
		s := start(t, name)
		for _, e := range endings {
			t.Run(name+" "+e.name, func(t *testing.T) {
				w, r := newWitness(), newRelay(t, s.Addr())
				db := w.db(t, name, r.addr, ours)
				exec(t, db, "SELECT 1")
				exec(t, db, "SELECT 1")
				r.endAll(e.end)
				tx, err := db.BeginTx(t.Context(), nil) // the end may not have come yet
				if err != nil {
					t.Fatal(err)
				}
				if err := tx.Rollback(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestAWriteToAConnectionThatEndedIdleSendsNothing(t *testing.T) {
	t.Parallel()
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			c, err := newWitness().DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			peer, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			e.end(peer.(*net.TCPConn))
			flow, _ := dialer.Unwrap(c)
			until(t, "the end has come", func() bool { _, err := flow.Peek(); return err != nil })
			if n, err := c.Write([]byte("SELECT 1")); n != 0 || err == nil {
				t.Errorf("Write: %d, %v", n, err)
			}
		})
	}
}

// A logbook is a mysql.Logger.
type logbook struct {
	mu   sync.Mutex // guards the field below
	said []string
}

func (l *logbook) Print(v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, fmt.Sprint(v...))
}

func TestMySQLsOwnCheckOfIdleConnectionsWorks(t *testing.T) {
	t.Parallel()
	r := newRelay(t, start(t, drivers.MySQL).Addr())
	w, log := newWitness(), new(logbook)
	cfg := mysql.NewConfig()
	s := login(r.addr)
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = s.User, s.Password, "tcp", s.Addr, s.Database
	cfg.DialFunc, cfg.Logger = w.dial, log
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := plain.open(c, nil)
	defer db.Close()
	exec(t, db, "DO 1")
	first := w.flow()
	r.endAll(finish)
	until(t, "the end has come", func() bool { _, err := first.Peek(); return err != nil })
	written := first.BytesWritten()
	exec(t, db, "DO 1")
	log.mu.Lock()
	defer log.mu.Unlock()
	if said := strings.Join(log.said, "; "); !strings.Contains(said, "closing bad idle connection") {
		t.Errorf("the driver said %q", said)
	}
	if wrote := first.BytesWritten() - written; wrote > goodbye {
		t.Errorf("%d bytes were written to a connection that had ended", wrote)
	}
}

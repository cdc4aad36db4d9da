package hidden

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/keepalive/netpath"
)

// connectTo returns a connector to a PostgreSQL, with more of a connection string.
func connectTo(t *testing.T, name string, dial drivers.Dial, options string, addrs ...string) driver.Connector {
	t.Helper()
	var hosts, ports []string
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	dsn := fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s %s", strings.Join(hosts, ","), strings.Join(ports, ","),
		servers.User, servers.Password, servers.Database, options)
	if name == drivers.PGX {
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.DialFunc = dial.DialContext
		return connector{stdlib.GetConnector(*cfg)}
	}
	c, err := pq.NewConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c.Dialer(dial)
	return connector{c}
}

func TestPreferringTLSIsTwoConnectionsOfWhichOneIsLeft(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t, "ssl = off")
	at := netip.MustParseAddrPort(s.Addr())
	for _, name := range postgres {
		t.Run(name, func(t *testing.T) {
			w := newWitness()
			db := ours.open(connectTo(t, name, w.dial, "sslmode=prefer", s.Addr()), &w.Dialer)
			defer db.Close()
			exec(t, db, "SELECT 1")
			until(t, "two are booked, of which one has ended", func() bool {
				a := w.account(at)
				return a.Opened == 2 && a.Idle == 1 && cooling(a) == 1
			})
			if sent := w.sent(asked, at); sent != 2 {
				t.Errorf("%d connects", sent)
			}
		})
	}
}

// If this fails lib/pq has mended it: the documentation says it too.
func TestWhatPQLeavesOpenIsBookedUntilTheGarbageCollectorFindsIt(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t, "ssl = off")
	at := netip.MustParseAddrPort(s.Addr())
	w := newWitness()
	db := marked.open(connectTo(t, drivers.PQ, w.dial, "sslmode=prefer", s.Addr()), &w.Dialer)
	defer db.Close()
	exec(t, db, "SELECT 1")
	if a := w.account(at); a.Active != 2 {
		t.Fatalf("%v", a)
	}
	w.mu.Lock()
	w.flows = nil // or it is not garbage
	w.mu.Unlock()
	until(t, "one has ended", func() bool { runtime.GC(); return cooling(w.account(at)) == 1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ends) != 1 || !w.ends[0].Lost {
		t.Errorf("ended: %+v", w.ends)
	}
}

func TestAHostThatIsDownIsPassedOverForTheNext(t *testing.T) {
	t.Parallel()
	const n = 5
	down, up := servers.Postgres(t), servers.Postgres(t)
	down.Kill()
	atDown, atUp := netip.MustParseAddrPort(down.Addr()), netip.MustParseAddrPort(up.Addr())
	for _, name := range postgres {
		for _, by := range doors {
			t.Run(name+" "+by.name, func(t *testing.T) {
				w := newWitness()
				c := connectTo(t, name, w.dial, "sslmode=disable", down.Addr(), up.Addr())
				db := by.open(c, &w.Dialer)
				defer db.Close()
				z := sleep(t, up, db, n)
				if a := w.account(atUp); a.Opened != n || a.Active != n {
					t.Errorf("where it is up: %v", a)
				}
				first := w.sent(asked, atDown)
				if first == 0 || first > n {
					t.Errorf("%d connects to where it is down", first)
				}
				t.Logf("%d connects to where it is down, for %d connections", first, n)
				for _, err := range w.refused(asked) {
					if !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("refused: %v", err)
					}
				}
				z.wake()
				until(t, "all have tried to cancel", func() bool { return w.sent(side, atUp)+len(w.refused(side)) == n })
				if w.sent(side, atDown) != 0 || w.sent(side, atUp) == 0 {
					t.Errorf("%d cancel requests went to where the queries were, and %d elsewhere", w.sent(side, atUp), w.sent(side, atDown))
				}
				rouse(t, up)
				z.ends.Wait()
			})
		}
	}
}

func TestTheGatewayCountsWhatTheLedgerBooks(t *testing.T) {
	t.Parallel()
	path := netpath.AzureLoadBalancer(8)
	for _, name := range postgres {
		t.Run(name, func(t *testing.T) {
			lab := natlab.Need(t, natlab.Config{Path: path})
			at := netip.AddrPortFrom(lab.Server(0), 5432)
			s := servers.In(lab, at).Postgres(t, "ssl = off")
			w := newWitnessOf(path, lab.Dial)
			db := ours.open(connectTo(t, name, w.dial, "sslmode=prefer", s.Addr()), &w.Dialer)
			defer db.Close()

			exec(t, db, "SELECT 1")
			exec(t, db, "SELECT 1") // pgx asks before the second use of a connection
			written := w.flow().BytesWritten()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var sleeping sync.WaitGroup
			sleeping.Go(func() { db.ExecContext(ctx, "SELECT pg_sleep(5)") })
			until(t, "it sleeps", func() bool { return w.flow().BytesWritten() > written })
			cancel()
			sleeping.Wait()
			until(t, "all have ended", func() bool { a := w.account(at); return cooling(a) == a.Taken() && a.Opened == 3 })

			counts, err := lab.Counts()
			if err != nil {
				t.Fatal(err)
			}
			if admitted := counts.By[at].Admitted; admitted != 3 {
				t.Errorf("the gateway has seen %d flows; the ledger %v", admitted, w.account(at))
			}
		})
	}
}

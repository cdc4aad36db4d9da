package hidden

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/sqlx"
)

// postgres are the drivers that have the server cancel what it does, by a connection of
// their own.
var postgres = []string{drivers.PGX, drivers.PQ}

// sleepers are queries that will not end by themselves, each on a connection of its own.
type sleepers struct {
	wake context.CancelFunc
	ends sync.WaitGroup
}

// sleep returns when the server is busy with n queries.
func sleep(t *testing.T, s *servers.Server, db *sql.DB, n int) *sleepers {
	t.Helper()
	var z sleepers
	ctx, cancel := context.WithCancel(t.Context())
	z.wake = cancel
	for range n {
		z.ends.Go(func() {
			if _, err := db.ExecContext(ctx, "SELECT pg_sleep(60)"); err == nil {
				t.Error("a query slept until the morning")
			}
		})
	}
	until(t, "all sleep", func() bool { return asleep(t, s) == n })
	return &z
}

// asleep is how many queries the server is busy with.
func asleep(t *testing.T, s *servers.Server) (n int) {
	t.Helper()
	db := newWitness().db(t, drivers.PGX, s.Addr(), plain)
	defer db.Close()
	const question = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
	if err := db.QueryRowContext(t.Context(), question).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// rouse ends all queries that still sleep, by a hand of the server's own.
func rouse(t *testing.T, s *servers.Server) {
	t.Helper()
	db := newWitness().db(t, drivers.PGX, s.Addr(), plain)
	defer db.Close()
	exec(t, db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
	until(t, "none sleeps", func() bool { return asleep(t, s) == 0 })
}

func TestACancelRequestIsBookedAsASideConnection(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t)
	at := netip.MustParseAddrPort(s.Addr())
	for _, name := range postgres {
		for _, by := range []door{marked, ours} {
			t.Run(name+" "+by.name, func(t *testing.T) {
				w := newWitness()
				db := w.db(t, name, s.Addr(), by)
				z := sleep(t, s, db, 1)
				z.wake()
				z.ends.Wait()
				until(t, "two connections are booked, and have ended", func() bool {
					a := w.account(at)
					return a.Opened == 2 && cooling(a) == 2
				})
				if n := asleep(t, s); n != 0 {
					t.Errorf("%d queries sleep on", n)
				}
			})
		}
	}
}

func TestWithoutSideConnectionsACancelRequestIsRefused(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t)
	at := netip.MustParseAddrPort(s.Addr())
	for _, name := range postgres {
		for _, by := range []door{marked, ours} {
			t.Run(name+" "+by.name, func(t *testing.T) {
				w := newWitness()
				w.Side = -1
				db := w.db(t, name, s.Addr(), by)
				z := sleep(t, s, db, 1)
				z.wake()
				until(t, "it is refused", func() bool { return len(w.refused(side)) == 1 })
				if err := w.refused(side)[0]; !errors.Is(err, sqlx.ErrSide) {
					t.Errorf("the driver got %v", err)
				}
				rouse(t, s) // lib/pq waits for the server
				z.ends.Wait()
				if a := w.account(at); a.Opened != 1 {
					t.Errorf("%d connections were opened", a.Opened)
				}
			})
		}
	}
}

func TestADialerThatSeesNoMarksTreatsAllAlike(t *testing.T) {
	t.Parallel()
	s := servers.Postgres(t)
	at := netip.MustParseAddrPort(s.Addr())
	for _, name := range postgres {
		t.Run(name, func(t *testing.T) {
			w := newWitness()
			w.Side = -1
			z := sleep(t, s, w.db(t, name, s.Addr(), plain), 5)
			z.wake()
			z.ends.Wait()
			until(t, "ten connections are booked, and have ended", func() bool {
				a := w.account(at)
				return a.Opened == 10 && cooling(a) == 10
			})
			if errs := w.refused(side); errs != nil {
				t.Errorf("refused: %v", errs)
			}
		})
	}
}

func TestNoMoreSideConnectionsThanSideAtATime(t *testing.T) {
	t.Parallel()
	const n = 10
	s := servers.Postgres(t)
	at := netip.MustParseAddrPort(s.Addr())
	for _, name := range postgres {
		for _, most := range []int{1, 3} {
			t.Run(fmt.Sprint(name, " ", most), func(t *testing.T) {
				w := newWitness()
				w.Side = most
				z := sleep(t, s, w.db(t, name, s.Addr(), ours), n)
				z.wake()
				until(t, "all have dialed, or were refused", func() bool {
					return w.sent(side, at)+len(w.refused(side)) == n
				})
				if w.most > most {
					t.Errorf("%d side connections at a time", w.most)
				}
				if w.sent(side, at) == 0 {
					t.Error("no side connection at all")
				}
				t.Logf("of %d cancel requests %d were refused", n, len(w.refused(side)))
				for _, err := range w.refused(side) {
					if !errors.Is(err, sqlx.ErrSide) {
						t.Errorf("refused: %v", err)
					}
				}
				rouse(t, s) // who was not canceled sleeps on
				z.ends.Wait()
			})
		}
	}
}

// outages are what has drivers send cancel requests to a server that cannot take them.
var outages = []struct {
	name    string
	begin   func(s *servers.Server, z *sleepers)
	cancels map[string]bool // the drivers for which it is a reason
}{
	{"connections break", func(s *servers.Server, _ *sleepers) { s.Kill() }, map[string]bool{drivers.PGX: true}},
	{"contexts end", func(_ *servers.Server, z *sleepers) { z.wake() }, map[string]bool{drivers.PGX: true, drivers.PQ: true}},
}

func TestAServerThatIsGoneIsAskedToCancelByAFewOnly(t *testing.T) {
	t.Parallel()
	const n = 20
	for _, o := range outages {
		for _, name := range postgres {
			for _, by := range []door{marked, ours} {
				t.Run(o.name+" "+name+" "+by.name, func(t *testing.T) {
					s := servers.Postgres(t)
					r := newRelay(t, s.Addr())
					at := netip.MustParseAddrPort(r.addr)
					w := newWitness()
					z := sleep(t, s, w.db(t, name, r.addr, by), n)
					r.ln.Close() // while a server is being killed, its kernel may still accept
					o.begin(s, z)
					if o.cancels[name] {
						until(t, "all have tried to cancel", func() bool { return len(w.refused(side)) == n })
					}
					s.Kill()
					z.ends.Wait()
					if sent := w.sent(side, at); sent > 2 || o.cancels[name] != (sent > 0) {
						t.Errorf("%d connects to a server that is gone, to cancel %d queries", sent, n)
					}
					var unsent int
					for _, err := range w.refused(side) {
						if errors.Is(err, sqlx.ErrSide) {
							unsent++
						}
					}
					if want := len(w.refused(side)) - w.sent(side, at); unsent != want {
						t.Errorf("%d errors match ErrSide, want %d", unsent, want)
					}
				})
			}
		}
	}
}

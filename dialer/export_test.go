package dialer

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Booking is a flow of the ledger's without a connection.
type Booking struct {
	ledger *Ledger
	flow   *flow
}

// Book reserves a port of dst for an owner and says that its SYN was sent.
func (l *Ledger) Book(ctx context.Context, owner any, dst netip.AddrPort) (Booking, error) {
	f, _, _, err := l.reserve(ctx, l.bookingOf(owner, dst))
	return Booking{l, f}, err
}

func (l *Ledger) bookingOf(by any, dst netip.AddrPort) request {
	if l.init() != nil {
		return request{}
	}
	return request{owner: owner{by: by}, candidates: l.owing("tcp", []candidate{{dst: dst}})}
}

// End books that the flow was opened and ended in this way.
func (b Booking) End(e keepalive.Ending) {
	l := b.ledger
	l.dial(b.flow)
	l.mu.Lock()
	for _, d := range b.flow.debts() {
		d.account.dialing--
		d.account.opened++
	}
	l.mu.Unlock()
	l.ended(b.flow, e)
}

// Drop gives the port back unused.
func (b Booking) Drop() { b.ledger.drop(b.flow) }

// Remembers tells how much is in the ledger's maps, and how large the largest
// was since it was made.
func (l *Ledger) Remembers() (accounts, widest, failing, crowded int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expireLocked(time.Now())
	return len(l.accounts), l.widest, len(l.failing), len(l.crowded)
}

// Stuck describes a waiter who could have a port, if there is one.
func (l *Ledger) Stuck() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for a := range l.crowded {
		if w := l.nextLocked(now, a); w != nil {
			return l.snapshotLocked(now, a).String()
		}
	}
	return ""
}

// A Host is what a test tells a ledger of its machine.
type Host struct {
	Strays    func() (uint64, bool)
	Listening []uint16
	Alive     func(dst netip.AddrPort) (alive, dead, othersAlive, othersDead int)
}

func (l *Ledger) SetHost(h Host) {
	l.host = &host{strays: h.Strays, listening: func() []uint16 { return h.Listening }}
	if h.Alive != nil {
		l.host.see = func(c candidate) look {
			k := look{at: time.Now()}
			k.same.alive, k.same.dead, k.others.alive, k.others.dead = h.Alive(c.dst)
			return k
		}
	}
}

func ledgerOf(n int) *Ledger {
	path := netpath.AzureAppService()
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: n}}
	return &Ledger{Path: path, Ramp: -1}
}

var benchAddr = netip.MustParseAddrPort("20.1.2.3:443")

// reserving returns a round of reserve and release.
func reserving(t testing.TB, l *Ledger) func() {
	ctx := t.Context()
	r := l.bookingOf(l, benchAddr)
	return func() {
		f, _, _, err := l.reserve(ctx, r)
		if err != nil {
			t.Error(err)
			return
		}
		l.drop(f)
	}
}

func TestReserveAndReleaseAllocateNothing(t *testing.T) {
	for _, open := range []int{0, 1} {
		l := ledgerOf(128)
		for range open {
			if _, err := l.Book(t.Context(), l, benchAddr); err != nil {
				t.Fatal(err)
			}
		}
		round := reserving(t, l)
		round()
		if n := testing.AllocsPerRun(1000, round); n != 0 {
			t.Errorf("beside %d open flows: %v allocations", open, n)
		}
	}
}

func BenchmarkLedgerReserveAndRelease(b *testing.B) {
	run := func(name string, open int) {
		b.Run(name, func(b *testing.B) {
			l := ledgerOf(128)
			for range open {
				if _, err := l.Book(b.Context(), l, benchAddr); err != nil {
					b.Fatal(err)
				}
			}
			round := reserving(b, l)
			b.ReportAllocs()
			for b.Loop() {
				round()
			}
		})
	}
	run("beside one open flow", 1)
	run("in an empty account", 0)
	b.Run("by two goroutines", func(b *testing.B) {
		l := ledgerOf(128)
		b.ReportAllocs()
		b.SetParallelism(1)
		b.RunParallel(func(pb *testing.PB) {
			round := reserving(b, l)
			for pb.Next() {
				round()
			}
		})
	})
}

// OldKernel has SYNs repeated as Linux did before 6.5, and other systems do, until the test ends.
func OldKernel(t *testing.T) {
	was := linearSYNs
	linearSYNs = func() int { return 0 }
	t.Cleanup(func() { linearSYNs = was })
}

package dialer_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// FuzzLedger takes bytes for a program of dials, turns, endings and waits.
// Whatever it is, the NAT never holds a port that the ledger does not know of,
// no SYN is refused, nobody waits for a port that is free, and in the end
// everything is forgotten.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{3, 0, 8, 16, 24, 32, 1, 7, 0, 255, 1, 9})                  // dial, close, dial again
	f.Add([]byte{1, 0, 40, 80, 2, 10, 0, 8, 16, 15, 15, 3, 11, 255})        // park, reclaim
	f.Add([]byte{2, 5, 13, 21, 29, 15, 5, 13, 7, 31, 5, 4, 12})             // failing dials, cancels
	f.Add([]byte{0x12, 6, 0, 8, 16, 24, 23, 4, 12, 6, 31, 0, 8})            // a black hole, healed
	f.Add([]byte{0x21, 0, 8, 16, 24, 32, 40, 48, 1, 3, 2, 9, 11, 47, 0, 0}) // several accounts
	f.Add([]byte{0x11, 0, 0, 0, 2, 2, 2, 8, 8, 16, 16, 15, 63, 10, 10, 1})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) == 0 || len(program) > 128 {
			return
		}
		path := azure(1 + int(program[0]&15))
		switch program[0] >> 4 & 3 {
		case 1:
			path.Hold.RST = netpath.None
		case 2:
			path.Limits = append(path.Limits, netpath.Limit{Scope: netpath.AllPorts, N: 6}, netpath.Limit{Scope: netpath.Sockets, N: 5})
		case 3:
			path.Hold.FIN, path.Hold.RST = path.Hold.RST, path.Hold.FIN
		}
		onPath(t, path, func(t *testing.T, lab *lab) { newHistory(lab).run(program[1:]) })
	})
}

// A history is what a program has done so far.
type history struct {
	*lab
	owners  []*dialer.Dialer
	cancels []context.CancelFunc
	hole    bool
	dials   sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns []*dialer.Conn
}

func newHistory(l *lab) *history {
	l.serve(first, second)
	h := &history{lab: l}
	for range 3 {
		h.owners = append(h.owners, l.named(first, second))
	}
	return h
}

func (h *history) run(program []byte) {
	for _, b := range program {
		h.step(int(b&7), int(b>>3))
		synctest.Wait()
		h.check()
	}
	for _, cancel := range h.cancels {
		cancel()
	}
	h.net.Heal(first)
	h.dials.Wait()
	for _, c := range h.conns {
		c.Close()
	}
	synctest.Wait()
	h.check()
}

func (h *history) step(op, arg int) {
	switch op {
	case 0:
		h.dial(h.owners[arg%3], []string{first, second, name}[arg/3%3])
	case 4:
		if len(h.cancels) > 0 {
			h.cancels[arg%len(h.cancels)]()
		}
	case 5:
		h.dial(h.owners[arg%3], third) // nobody is there
	case 6:
		if h.hole = !h.hole; h.hole {
			h.net.BlackHole(first)
		} else {
			h.net.Heal(first)
		}
	case 7:
		time.Sleep(time.Duration(1+arg*arg) * 300 * time.Millisecond) // up to 288 s
	default:
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.conns) == 0 {
			return
		}
		c := h.conns[arg%len(h.conns)]
		switch _, parked := c.Parked(); {
		case op == 1:
			c.Close()
		case op == 3 && arg&1 == 0:
			c.Asked()
			c.Close()
		case op == 3:
			c.EndSoonest()
			c.Close()
		case parked:
			c.Unpark()
		default:
			c.Park(c.Turn())
		}
	}
}

func (h *history) dial(d *dialer.Dialer, address string) {
	ctx, cancel := context.WithTimeout(h.Context(), 100*time.Second)
	h.cancels = append(h.cancels, cancel)
	h.dials.Go(func() {
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.conns = append(h.conns, c.(*dialer.Conn))
	})
}

func (h *history) check() {
	h.Helper()
	stats := h.nat.Stats()
	if stats.RefusedSYNs > 0 {
		h.Fatalf("%d SYNs refused", stats.RefusedSYNs)
	}
	taken := make(map[netpath.Key]int)
	for _, a := range h.ledger.Accounts() {
		taken[a.Key] = a.Taken()
		if a.Limit != netpath.None && a.Taken() > a.Limit {
			h.Fatalf("too many: %v", a)
		}
	}
	for key, held := range stats.Accounts {
		if held.Held > taken[key] {
			h.Fatalf("%v: the NAT holds %d ports, the ledger knows of %d", key, held.Held, taken[key])
		}
	}
	known := make(map[netip.AddrPort]int)
	for _, f := range h.ledger.Flows() {
		known[f.Local]++
	}
	for _, f := range h.nat.Flows() {
		if f.Source.IsValid() && known[f.Source] == 0 {
			h.Fatalf("the ledger does not know %+v", f)
		}
	}
	if who := h.ledger.Stuck(); who != "" {
		h.Fatalf("somebody waits for a port that is free: %v", who)
	}
}

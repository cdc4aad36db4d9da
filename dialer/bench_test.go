package dialer_test

import (
	"flag"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
)

var full = flag.Bool("full", false, "close ten million flows to ten million destinations, not 200,000")

// heap returns the bytes in use, after what is no longer needed is gone.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // once more: the first one finds what the sweep then frees
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The long form is "go test ./dialer -run ClosedFlows -v -full": ten waves of a
// million.
func TestClosedFlowsToManyDestinationsLeaveNothingBehind(t *testing.T) {
	waves, each := 4, 50_000
	if *full {
		waves, each = 10, 1_000_000
	}
	synctest.Test(t, func(t *testing.T) {
		l := &dialer.Ledger{Path: azure(128)}
		wave := func(first, n int) {
			for i := first; i < first+n; i++ {
				b, err := l.Book(t.Context(), l, destination(i))
				if err != nil {
					t.Fatal(err)
				}
				b.End(keepalive.Ending{How: keepalive.FINByUs})
			}
		}
		wave(0, 1)
		time.Sleep(time.Hour)
		l.Accounts()
		before := heap()

		var held int64
		for i := range waves {
			wave(i*each, each)
			if i == 0 {
				held = heap()
				if got, _, _, _ := l.Remembers(); got != each {
					t.Errorf("%d accounts are held: the test shows nothing", got)
				}
			}
			time.Sleep(240*time.Second + margin)
		}
		accounts, widest, failing, crowded := l.Remembers()
		if accounts != 0 || failing != 0 || crowded != 0 || widest > 1024 {
			t.Errorf("%d accounts, %d failing and %d crowded ones, in a map for %d", accounts, failing, crowded, widest)
		}
		after := heap()
		t.Logf("%d flows: heap %d bytes before, %d in a wave of %d, %d after the holds", waves*each, before, held, each, after)
		if after > before+1<<20 {
			t.Errorf("%d bytes were left behind", after-before)
		}
		runtime.KeepAlive(l)
	})
}

// destination is the i-th of many public addresses.
func destination(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 443)
}

func BenchmarkParkAndUnpark(b *testing.B) {
	ln := echo(b)
	c, err := counted(b).DialContext(b.Context(), "tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	conn := c.(*dialer.Conn)
	turn := conn.Turn()
	b.ReportAllocs()
	for b.Loop() {
		if !conn.Park(turn) {
			b.Fatal("not parked")
		}
		if turn, err = conn.Unpark(); err != nil {
			b.Fatal(err)
		}
	}
}

// Both dial the same listener by turns, and reset, so that neither runs out of
// local ports. The ratio is what natwise adds to a connect on loopback, where
// that costs least.
func BenchmarkDialContext(b *testing.B) {
	ln := sink(b)
	address := ln.Addr().String()
	ours, theirs := counted(b), new(net.Dialer)
	ours.Ledger.Path.Limits = nil // or it would, rightly, run out of ports
	dial := func(dial func() (net.Conn, error)) time.Duration {
		start := time.Now()
		c, err := dial()
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if d, ok := dialer.Unwrap(c); ok {
			d.Asked() // ends by RST
		} else {
			c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
		return took
	}
	var own, peer time.Duration
	n := 0
	for b.Loop() {
		own += dial(func() (net.Conn, error) { return ours.DialContext(b.Context(), "tcp", address) })
		peer += dial(func() (net.Conn, error) { return theirs.DialContext(b.Context(), "tcp", address) })
		n++
	}
	b.ReportMetric(float64(own.Nanoseconds())/float64(n), "natwise-ns/op")
	b.ReportMetric(float64(peer.Nanoseconds())/float64(n), "net.Dialer-ns/op")
	b.ReportMetric(float64(own)/float64(peer), "ratio")
}

// sink accepts and closes.
func sink(b *testing.B) net.Listener {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		var last net.Conn
		for {
			c, err := ln.Accept()
			if last != nil {
				last.Close()
			}
			if err != nil {
				return
			}
			last = c
		}
	}()
	return ln
}

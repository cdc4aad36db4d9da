package keepalive_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
)

// FuzzDetector lives a random history: bytes are a program of three to a step, an
// operation, a connection, and an argument.
func FuzzDetector(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 3, 0, 50, 2, 0, 0, 4, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 1, 0, 1, 0, 0, 3, 0, 200, 1, 1, 0, 3, 0, 10, 2, 1, 0, 3, 0, 200})
	f.Add([]byte{0, 0, 0, 5, 0, 0, 1, 0, 0, 3, 0, 255, 3, 0, 255})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 300 {
			return
		}
		synctest.Test(t, func(t *testing.T) { vigils(t, program) })
	})
}

func vigils(t *testing.T, program []byte) {
	var d keepalive.Detector
	var wards [8]*ward
	for ; len(program) >= 3; program = program[3:] {
		op, i, arg := program[0]%6, program[1]%8, program[2]
		w := wards[i]
		if op == 3 {
			time.Sleep(time.Duration(arg) * 20 * time.Millisecond)
			continue
		}
		if op == 0 && (w == nil || w.Closed()) {
			at := there
			at.Dest = netip.AddrPortFrom(at.Dest.Addr(), 443+uint16(arg%2))
			w := newWard(&d, at)
			w.WhenSuspect(func(suspect bool) {
				_, unsent := w.wire.Queued()
				if silent := w.wire.Heard(); suspect && (silent < 600*time.Millisecond || unsent == 0) {
					t.Errorf("suspect after %v, with %d bytes out", silent, unsent)
				}
			})
			wards[i] = w
			continue
		}
		if w == nil {
			continue
		}
		switch op {
		case 1:
			w.ask()
		case 2: // something comes; of what is out some may be left
			_, unsent := w.wire.Queued()
			w.wire.hear(min(unsent, int(arg%2)))
		case 4:
			w.Close()
		case 5:
			w.owner.heal()
		}
	}
	time.Sleep(3 * time.Second)
	for _, w := range wards {
		if w == nil || w.Closed() {
			continue
		}
		if _, unsent := w.wire.Queued(); unsent == 0 && w.Suspect() {
			t.Error("nothing is out, and it is suspect")
		} else if unsent > 0 && !w.Suspect() {
			t.Error("bytes are out for seconds, and it is not suspect")
		}
		w.Close()
	}
	time.Sleep(time.Minute)
	if n := d.Known(); n != 0 {
		t.Errorf("%d destinations are kept after the last connection", n)
	}
	if n := d.Queued(); n != 0 {
		t.Errorf("%d connections are still in the wheel", n)
	}
}

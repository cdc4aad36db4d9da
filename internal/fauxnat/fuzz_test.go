package fauxnat_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// FuzzHistory takes bytes for a program: first the path, then what happens on
// it. Whatever it is, the table must add up, stay within its limits and be
// empty in the end.
func FuzzHistory(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 6, 0, 2, 15, 0, 63})                      // fill, close, reset, wait
	f.Add([]byte{1, 0, 0, 0, 7, 13, 7, 6, 47, 5, 1, 9, 0, 6})             // forgotten, then used
	f.Add([]byte{2, 1, 0, 8, 3, 4, 7, 11, 12, 0, 1, 2, 15, 55, 6})        // half-closed, both ways
	f.Add([]byte{7, 0, 8, 16, 24, 32, 6, 14, 5, 13, 7, 47, 0, 1, 9, 255}) // resumed
	f.Add([]byte{0, 0, 0, 5, 134, 13, 5, 39, 1, 47, 6, 14, 9, 255})       // lied to, then closed and forgotten
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) == 0 || len(program) > 256 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			path := azure(2 + int(program[0]>>4))
			path.AtIdle = netpath.IdleAction(program[0] & 3)
			path.Resumes = program[0]&4 != 0
			if program[0]&8 != 0 {
				path.Hold.Idle = 60 * time.Second
				path.Limits = append(path.Limits, netpath.Limit{Scope: netpath.AllPorts, N: 3}, netpath.Limit{Scope: netpath.Sockets, N: 4})
			}
			l := newLab(t, path)
			run(t, l, program[1:])
		})
	})
}

func run(t *testing.T, l *lab, program []byte) {
	type flow struct{ near, far net.Conn }
	var flows []flow
	for step, b := range program {
		if op, arg := b&7, int(b>>3); op == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if near, err := l.nat.DialContext(ctx, "tcp", server); err == nil {
				far, _ := l.l.Accept()
				flows = append(flows, flow{near, far})
			}
			cancel()
		} else if op == 7 {
			time.Sleep(time.Duration(1+arg*arg) * time.Second) // up to 962 s
		} else if len(flows) > 0 {
			f := flows[arg%len(flows)]
			f.near.SetDeadline(time.Now().Add(time.Second))
			switch op {
			case 1:
				f.near.Close()
			case 2:
				reset(f.near)
			case 3:
				closeWrite(f.near)
			case 4:
				f.far.Close()
			case 5:
				f.near.Write([]byte("x"))
				f.far.Write([]byte("x"))
			case 6:
				if arg&16 != 0 {
					l.nat.Lie(netip.MustParseAddrPort(server), time.Minute)
				}
				read(f.near)
			}
		}
		checkTable(t, l, step)
	}
	for _, f := range flows {
		f.near.Close()
		f.far.Close()
	}
	checkTable(t, l, len(program))
	time.Sleep(240 * time.Second) // the longest hold
	s := l.nat.Stats()
	for key, c := range s.Accounts {
		if c.Held != 0 || c.Live != 0 || c.Astray != 0 {
			t.Errorf("in the end %v holds %+v", key, c)
		}
	}
	if s.Held != 0 || s.Live != 0 || s.Astray != 0 || len(l.nat.Flows()) != 0 {
		t.Errorf("in the end the NAT holds %+v: %+v", s.Counts, l.nat.Flows())
	}
}

func checkTable(t *testing.T, l *lab, step int) {
	t.Helper()
	s, flows := l.nat.Stats(), l.nat.Flows()
	live := 0
	for _, f := range flows {
		if !f.Closing {
			live++
		}
		if !f.Until.IsZero() && !f.Until.After(time.Now()) {
			t.Errorf("step %d: %+v is overdue", step, f)
		}
	}
	if s.Held != len(flows) || s.Live != live {
		t.Errorf("step %d: %+v counted for %+v", step, s.Counts, flows)
	}
	for key, c := range s.Accounts {
		if limit := l.nat.Path.Limit(key.Scope()); limit != netpath.None && c.Held > limit {
			t.Errorf("step %d: %v holds %d of %d", step, key, c.Held, limit)
		}
		if c.Astray < 0 || c.Astray > c.Strayed || c.Live < 0 || c.Live > c.Held || c.Held > c.Peak || c.Held > c.Opened {
			t.Errorf("step %d: %v counts %+v", step, key, c)
		}
		if key.Scope() != netpath.Sockets && (c.Held != s.Held || c.Live != s.Live || c.Astray != s.Astray) {
			t.Errorf("step %d: %v counts %+v of %+v", step, key, c, s.Counts)
		}
	}
}

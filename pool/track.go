package pool

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"strings"
)

// A taken is where a lease was taken, by which goroutine, and when.
type taken struct {
	stack     [16]uintptr
	goroutine uint64
	since     instant
	reported  bool
}

func takenHere() *taken {
	t := &taken{goroutine: goroutine()}
	runtime.Callers(3, t.stack[:])
	return t
}

// goroutine returns the number of this goroutine, which only its stack trace
// tells: "goroutine 18 [running]:".
func goroutine() uint64 {
	var buf [40]byte
	text := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	digits, _, _ := bytes.Cut(text, []byte(" "))
	n, _ := strconv.ParseUint(string(digits), 10, 64) // 0: nobody's
	return n
}

// place names the function and line that took the lease: the first one that is
// not natwise's own.
func (t *taken) place() string {
	n := 0
	for n < len(t.stack) && t.stack[n] != 0 {
		n++
	}
	frames := runtime.CallersFrames(t.stack[:n])
	for {
		f, more := frames.Next()
		if !more || !strings.HasPrefix(f.Function, "github.com/natwise/natwise/") || strings.HasSuffix(f.File, "_test.go") {
			return fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line)
		}
	}
}

// holdLocked remembers who has the lease of s.
func (p *Pool[T]) holdLocked(s *slot[T], t *taken) {
	t.since = p.clock()
	s.taken = t
	p.held.insertBefore(&s.held, &p.held.root)
	p.armLocked(after(t.since, p.cfg.LeakAfter))
}

// leaksLocked returns an event for each lease that is out for too long by now.
func (p *Pool[T]) leaksLocked(now instant) (leaks []Event) {
	for s := p.held.front(); s != nil; s = s.held.next.owner {
		t := s.taken
		if due := after(t.since, p.cfg.LeakAfter); now < due {
			p.armLocked(due)
			break
		}
		if !t.reported {
			t.reported = true
			leaks = append(leaks, Event{Kind: Leaked, Took: now - t.since, Place: t.place()})
		}
	}
	return leaks
}

// heldLocked names the place where the goroutine of t took a lease that is still
// out. "" if there is none, or nobody keeps track.
func (p *Pool[T]) heldLocked(t *taken) string {
	if t == nil {
		return ""
	}
	for s := p.held.front(); s != nil; s = s.held.next.owner {
		if s.taken.goroutine == t.goroutine {
			return s.taken.place()
		}
	}
	return ""
}

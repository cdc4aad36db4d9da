package keepalive_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// FuzzLearner takes bytes for a history of gaps on one path and compares what is
// learned with all that was ever told: nothing is used that neither the profile
// says nor a survival proves, nothing falls without two votes, and what two
// votes say in a row is heeded at once.
func FuzzLearner(f *testing.F) {
	f.Add([]byte{0x00, 9, 0x01, 40, 0x01, 40, 0x00, 20, 0x01, 30, 0x01, 31})            // a bracket
	f.Add([]byte{0x00, 99, 0x01, 50, 0x01, 50, 0x00, 60, 0x04, 99})                     // shorter, longer, expired
	f.Add([]byte{0x02, 50, 0x02, 51, 0x02, 52, 0x01, 50, 0x03, 20, 0x00, 20, 0x02, 50}) // overlapping deaths, a FIN
	f.Add([]byte{0x01, 10, 0x01, 20, 0x01, 30, 0x01, 40, 0x01, 50, 0x01, 60, 0x01, 11}) // more lone votes than are kept
	f.Add([]byte{0x11, 0, 0x11, 0, 0x10, 0, 0x31, 9, 0x31, 9, 0x30, 7})                 // milliseconds, hours
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 200 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			h := &history{T: t}
			for ; len(program) >= 2; program = program[2:] {
				h.step(program[0], program[1])
				h.check()
			}
		})
	})
}

// A history is what a Learner was told: the survivals that have not expired, and
// the deaths that none contradicted. Of these the old ones stay, since a limit
// may have been confirmed again and again.
type history struct {
	*testing.T
	keepalive.Learner
	survived, died []told
	last           *told         // the last step, if it was a death that said something new
	twice          time.Duration // the longer gap of two votes in a row, of which the last step was one
}

// told is a gap that a Learner was told of.
type told struct {
	gap       time.Duration
	began, at time.Time
}

// step is one gap or a pause: what in the low bits, and its unit above them.
func (h *history) step(what, length byte) {
	unit := []time.Duration{time.Second, time.Microsecond, time.Millisecond, 10 * time.Minute}[what>>4&3]
	gap := time.Millisecond + time.Duration(length)*unit
	began := time.Now()
	was := h.lesson()
	last := h.last
	h.last, h.twice = nil, 0
	switch what & 7 {
	case 0, 5:
		time.Sleep(gap)
		h.Survived(shop, gap)
		h.survived = append(h.survived, told{gap, began, time.Now()})
		h.died = slices.DeleteFunc(h.died, func(d told) bool { return d.gap <= gap })
	case 1, 6:
		time.Sleep(gap)
		h.tellDeath(was, last, told{gap, began, time.Now()})
	case 2: // at the same time as those before
		h.tellDeath(was, last, told{gap, began.Add(-gap), time.Now()})
	case 3:
		time.Sleep(gap)
		h.Closed(shop, gap)
	case 4:
		time.Sleep(time.Duration(length) * 10 * time.Minute)
	case 7:
		h.Forget()
		h.survived, h.died = nil, nil
	}
	h.survived = slices.DeleteFunc(h.survived, func(g told) bool { return time.Since(g.at) > 24*time.Hour })
}

func (h *history) tellDeath(was keepalive.Lesson, last *told, d told) {
	h.Helper()
	fell := h.Died(shop, d.began, d.gap)
	now := h.lesson()
	if fell != (now.Hi != 0 && (was.Hi == 0 || now.Hi < was.Hi)) && time.Since(was.When) < 24*time.Hour {
		h.Fatalf("a death at %v: fell is %v, from %+v to %+v", d.gap, fell, was, now)
	}
	if last != nil && agree(*last, d) && time.Since(last.at) < 24*time.Hour {
		h.twice = max(last.gap, d.gap)
	}
	if was.Hi == 0 || d.gap < was.Hi {
		h.last = &d
	}
	h.died = append(h.died, d)
}

// agree says in its own way what two votes are.
func agree(a, b told) bool {
	if b.began.Before(a.began) {
		a, b = b, a
	}
	short, long := min(a.gap, b.gap), max(a.gap, b.gap)
	return !a.at.After(b.began) && short >= long-long/10
}

func (h *history) lesson() keepalive.Lesson {
	if all := h.Lessons(); len(all) > 0 {
		return all[0]
	}
	return keepalive.Lesson{}
}

func (h *history) check() {
	h.Helper()
	got := h.lesson()
	h.checkLimits(got)
	for _, own := range []time.Duration{0, 1, 30 * time.Second, 240 * time.Second, time.Hour, netpath.None} {
		h.checkPath(got, idle(own))
		for _, n := range []int{1, 3, 8} {
			h.checkNext(got, idle(own), n)
		}
	}
}

func (h *history) checkLimits(got keepalive.Lesson) {
	h.Helper()
	proved, deadly := time.Duration(0), time.Duration(0)
	for _, s := range h.survived {
		proved = max(proved, s.gap)
	}
	for i, a := range h.died {
		for _, b := range h.died[:i] {
			if short := min(a.gap, b.gap); agree(a, b) && (deadly == 0 || short < deadly) {
				deadly = short
			}
		}
	}
	switch {
	case got.Hi != 0 && got.Lo >= got.Hi:
		h.Fatalf("%+v: Lo is not below Hi", got)
	case got.Lo > proved:
		h.Fatalf("%+v: no more than %v was survived", got, proved)
	case got.Hi != 0 && (deadly == 0 || got.Hi < deadly):
		h.Fatalf("%+v: no two votes for less than %v", got, deadly)
	case h.twice != 0 && (got.Hi == 0 || got.Hi > h.twice):
		h.Fatalf("%+v: two votes in a row for %v do not count", got, h.twice)
	}
}

func (h *history) checkPath(got keepalive.Lesson, p netpath.Profile) {
	h.Helper()
	own, use := p.Effective().Idle, h.Path(shop, p).Effective().Idle
	contradicted := got.Hi != 0 && (own == netpath.None || own >= got.Hi)
	switch {
	case contradicted && (use > max(got.Lo, got.Hi/2) || use < got.Lo || use < 1):
		h.Fatalf("%+v: a profile of %v may use %v", got, own, use)
	case !contradicted && own == netpath.None && use != own:
		h.Fatalf("%+v: a path that never forgets may use %v", got, use)
	case !contradicted && own != netpath.None && use != max(got.Lo, own):
		h.Fatalf("%+v: a profile of %v may use %v", got, own, use)
	}
	if err := h.Path(shop, p).Validate(); err != nil {
		h.Fatal(err)
	}
}

func (h *history) checkNext(got keepalive.Lesson, p netpath.Profile, n int) {
	h.Helper()
	const most = 20 * time.Minute
	gaps := h.Next(shop, p, most, n)
	if known := got.Lo >= most || got.Hi > 0 && got.Hi-got.Lo <= got.Hi/10; len(gaps) == 0 && !known {
		h.Fatalf("%+v: nothing to try", got)
	}
	last := time.Duration(0)
	for _, gap := range gaps {
		if gap <= last || gap > most {
			h.Fatalf("%+v: next are %v", got, gaps)
		}
		last = gap
	}
	if len(gaps) > n {
		h.Fatalf("%d gaps, at most %d", len(gaps), n)
	}
}

package debug

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	every   = time.Second
	kept    = 15 * time.Minute
	samples = int(kept / every)

	followed = 32 // destinations whose history is kept: the fullest
)

// A sample is what is remembered of one second.
type sample struct {
	at                           int64 // in ms since 1970
	active, idle, dialing, cools int32
	limit                        int32
	waiting                      int32
	dials, closes                float32 // per second
	wait99                       float32 // in s; negative: nobody has waited
	oldest                       float32 // wait that is not over, in s; negative: nobody waits
	blackholes                   int32   // since the sample before
}

// A ring is the last samples.
type ring struct {
	kept []sample
	next int // the oldest, once there are as many as are kept
}

func (r *ring) add(s sample) {
	if n := len(r.kept); n < samples {
		if n == cap(r.kept) {
			r.kept = append(make([]sample, 0, min(samples, max(30, 2*n))), r.kept...)
		}
		r.kept = append(r.kept, s)
		return
	}
	r.kept[r.next] = s
	r.next = (r.next + 1) % samples
}

// since returns the samples from then on, the latest last.
func (r *ring) since(then int64) history {
	h := make(history, 0, len(r.kept))
	for i := range r.kept {
		if s := r.kept[(r.next+i)%len(r.kept)]; s.at >= then {
			h = append(h, s)
		}
	}
	return h
}

func (r *ring) last() history {
	if len(r.kept) == 0 {
		return nil
	}
	return history{r.kept[(r.next+len(r.kept)-1)%len(r.kept)]}
}

const (
	bar  = 5 * time.Second // of a trend
	bars = 60
)

// trend is the most ports that were taken in each of the last 60 times 5 s, as far as somebody
// has looked.
func (r *ring) trend(now time.Time) []int {
	end := now.UnixMilli() / bar.Milliseconds()
	most := make([]int, bars)
	first, last := bars, -1
	for _, s := range r.kept {
		at := bars - 1 - int(end-s.at/bar.Milliseconds())
		if at < 0 || at >= bars {
			continue
		}
		most[at] = max(most[at], int(s.active+s.idle+s.dialing+s.cools))
		first, last = min(first, at), max(last, at)
	}
	return most[min(first, last+1) : last+1]
}

// A history is samples, which JSON has as a column each.
type history []sample

var _ json.Marshaler = history(nil)

// MarshalJSON writes {"at_ms":[...],"active":[...],...}.
func (h history) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	column := func(name string, value func(s sample) float64) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, name)
		b = append(b, ":["...)
		for i, s := range h {
			if i > 0 {
				b = append(b, ',')
			}
			if v := value(s); v < 0 {
				b = append(b, "null"...)
			} else {
				b = strconv.AppendFloat(b, v, 'f', -1, 64)
			}
		}
		b = append(b, ']')
	}
	column("at_ms", func(s sample) float64 { return float64(s.at) })
	column("active", func(s sample) float64 { return float64(s.active) })
	column("idle", func(s sample) float64 { return float64(s.idle) })
	column("dialing", func(s sample) float64 { return float64(s.dialing) })
	column("cooling", func(s sample) float64 { return float64(s.cools) })
	column("limit", func(s sample) float64 { return float64(s.limit) })
	column("waiting", func(s sample) float64 { return float64(s.waiting) })
	column("dials_per_second", func(s sample) float64 { return rounded(float64(s.dials)) })
	column("closes_per_second", func(s sample) float64 { return rounded(float64(s.closes)) })
	column("wait_p99_seconds", func(s sample) float64 { return fine(s.wait99) })
	column("oldest_wait_seconds", func(s sample) float64 { return fine(s.oldest) })
	column("blackholes", func(s sample) float64 { return float64(s.blackholes) })
	return append(b, '}'), nil
}

// fine is a float32 without the decimals that it does not have.
func fine(x float32) float64 {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(float64(x), 'g', -1, 32), 64)
	return f
}

// A record is what happened to the ports, second by second.
type record struct {
	total ring
	by    map[netpath.Key]*ring // of the fullest destinations
	past  []tally               // of the last 10 s and a little, the latest last
}

// A tally is how much has happened until then.
type tally struct {
	at    time.Time
	total done
	by    map[netip.AddrPort]done
}

// done is how often something has.
type done struct{ dials, closes, blackholes uint64 }

func (d done) since(e done) done {
	return done{since(d.dials, e.dials), since(d.closes, e.closes), since(d.blackholes, e.blackholes)}
}

// since is how much a counter has grown, which may have been begun anew.
func since(now, then uint64) uint64 {
	if now < then {
		return 0
	}
	return now - then
}

func (s *sight) tally() tally {
	t := tally{at: s.at, by: make(map[netip.AddrPort]done, len(s.counts))}
	for at, c := range s.counts {
		d := done{dials: c.Opened + c.Failed, blackholes: c.Blackholes}
		for _, n := range c.Closed {
			d.closes += n
		}
		t.total.dials += d.dials
		t.total.closes += d.closes
		t.total.blackholes += d.blackholes
		if at.IsValid() {
			t.by[at] = d
		}
	}
	return t
}

// rates are dials per second, by destination; the zero address has those of all.
type rates struct {
	from, to tally
}

func (r rates) of(at netip.AddrPort) *float64 {
	took := r.to.at.Sub(r.from.at)
	if took <= 0 {
		return nil
	}
	before, now := r.from.total, r.to.total
	if at.IsValid() {
		before, now = r.from.by[at], r.to.by[at]
	}
	rate := rounded(float64(now.since(before).dials) / took.Seconds())
	return &rate
}

const rateOver = 10 * time.Second

// rates compares what s has seen with how it was 10 s ago, or as long ago as somebody looks.
func (r *record) rates(s *sight) rates {
	if len(r.past) == 0 || s.at.Sub(r.past[len(r.past)-1].at) > rateOver {
		return rates{}
	}
	return rates{from: r.past[0], to: s.tally()}
}

// add remembers what s has seen.
func (r *record) add(s *sight) {
	now := s.tally()
	before := now
	if n := len(r.past); n > 0 {
		before = r.past[n-1]
	}
	rest := sampleOf(s.at, s.state.Ports, crowd{s.state.Waiting, time.Duration(s.state.OldestWait)}, slowest(s.state.Destinations))
	rest.happened(now.total.since(before.total), now.at.Sub(before.at))
	r.total.add(rest)
	r.follow(s.state.Destinations)
	for _, w := range s.state.Destinations {
		if of := r.by[w.key]; of != nil {
			one := sampleOf(s.at, w.Ports, crowd{w.Waiting, time.Duration(w.OldestWait)}, w.Wait99)
			done := now.by[w.key.Dest].since(before.by[w.key.Dest])
			if !w.key.Dest.IsValid() {
				done = now.total.since(before.total)
			}
			one.happened(done, now.at.Sub(before.at))
			of.add(one)
		}
	}
	r.past = append(r.past, now)
	for len(r.past) > 1 && now.at.Sub(r.past[0].at) > rateOver {
		r.past = r.past[1:]
	}
}

// follow begins the rings of the fullest destinations. One that is followed stays so while it
// is anywhere near: where hundreds are equally full, their order changes all the time.
func (r *record) follow(rows []row) {
	if r.by == nil {
		r.by = make(map[netpath.Key]*ring)
	}
	near := make(map[netpath.Key]bool)
	for _, w := range rows[:min(len(rows), 2*followed)] {
		near[w.key] = true
	}
	for _, w := range rows[:min(len(rows), followed)] {
		if r.by[w.key] != nil || len(r.by) >= followed && !r.dropBut(near) {
			continue
		}
		r.by[w.key] = new(ring)
	}
}

// dropBut forgets one destination that is not among those.
func (r *record) dropBut(near map[netpath.Key]bool) bool {
	for k := range r.by {
		if !near[k] {
			delete(r.by, k)
			return true
		}
	}
	return false
}

func slowest(rows []row) (worst *seconds) {
	for _, r := range rows {
		if r.Wait99 != nil && (worst == nil || *r.Wait99 > *worst) {
			worst = r.Wait99
		}
	}
	return worst
}

func sampleOf(at time.Time, p ports, waiting crowd, wait99 *seconds) sample {
	s := sample{
		at: at.UnixMilli(), active: int32(p.Active), idle: int32(p.Idle), dialing: int32(p.Dialing), cools: int32(p.Cooling),
		limit: int32(p.Limit), waiting: int32(waiting.n), wait99: -1, oldest: -1,
	}
	if waiting.n > 0 {
		s.oldest = float32(waiting.oldest.Seconds())
	}
	if wait99 != nil {
		s.wait99 = float32(time.Duration(*wait99).Seconds())
	}
	return s
}

// happened notes what was done in a while.
func (s *sample) happened(d done, while time.Duration) {
	s.blackholes = int32(d.blackholes)
	if while > 0 {
		s.dials = float32(float64(d.dials) / while.Seconds())
		s.closes = float32(float64(d.closes) / while.Seconds())
	}
}

package work

import "errors"

// A Fate is what a client was told of what it has sent.
type Fate uint8

// What has failed with SafeToRetry or the like is Safe: a promise that can be broken.
const (
	Unsent    Fate = iota // nobody has begun it, or the end came before the answer
	Succeeded             // with its answer
	Strange               // with something else than its answer
	Safe                  // it has failed, and cannot have run
	Unknown               // it has failed, and may have run
)

// FateOf says what a client is told by err: Strange if that wraps strange, Safe if safe
// says so.
func FateOf(err, strange error, safe func(error) bool) Fate {
	switch {
	case err == nil:
		return Succeeded
	case errors.Is(err, strange):
		return Strange
	case safe(err):
		return Safe
	}
	return Unknown
}

// A Sent is something that may run only once, and its fate.
type Sent struct {
	Fate Fate
	Err  error
}

// A Verdict is how often each thing has run that a crowd was to send, beside what its
// client was told.
type Verdict struct {
	All                   int // were to be sent
	Sent, Succeeded, Safe int
	Ran, Lost             int // of those that may have run: they did, or did not

	// What must not be.
	Twice    []int // which have run more than once
	Phantoms int   // succeeded, and have never run
	Broken   int   // cannot have run, and have
	Strange  int   // were answered with something else

	Causes map[Fate]Causes
}

// Weigh compares the fate of each with how often it has run.
func Weigh(sent []Sent, ran func(i int) int) Verdict {
	v := Verdict{All: len(sent), Causes: make(map[Fate]Causes)}
	for i, s := range sent {
		n := ran(i)
		if n > 1 {
			v.Twice = append(v.Twice, i)
		}
		if s.Fate == Unsent {
			continue
		}
		v.Sent++
		if s.Err != nil {
			of := v.Causes[s.Fate]
			of.Add(s.Err)
			v.Causes[s.Fate] = of
		}
		switch {
		case s.Fate == Strange:
			v.Strange++
		case s.Fate == Succeeded && n == 0:
			v.Phantoms++
		case s.Fate == Succeeded:
			v.Succeeded++
		case s.Fate == Safe && n > 0:
			v.Broken++
		case s.Fate == Safe:
			v.Safe++
		case n > 0:
			v.Ran++
		default:
			v.Lost++
		}
	}
	return v
}

// A Trial is what became of the same things of ours and of a peer's.
type Trial struct {
	Over, Peer  string // as in a Measurement
	Ours, Peers Verdict
}

// Note notes how many were sent, which is what that figure is called, and what became of
// those that have failed as they may.
func (t *Trial) Note(r *Report, sent string) {
	m := t.told(sent, t.Ours.Sent, t.Peers.Sent, Unsent)
	if t.Ours.Sent < t.Ours.All {
		m.Miss("%d were to be sent, and time was over", t.Ours.All)
	}
	r.Note(m)
	r.Note(t.told("succeeded", t.Ours.Succeeded, t.Peers.Succeeded, Unsent))
	r.Note(t.told("failed, cannot have run, did not", t.Ours.Safe, t.Peers.Safe, Safe))
	r.Note(t.told("failed, may have run, did", t.Ours.Ran, t.Peers.Ran, Unknown))
	r.Note(t.told("failed, may have run, did not", t.Ours.Lost, t.Peers.Lost, Unsent))
}

// Never notes how often there was what must not be, and the causes of a fate: there are
// none of Unsent.
func (t *Trial) Never(r *Report, figure string, ours, peers int, of Fate) {
	r.Note(t.told(figure, ours, peers, of).AtMost(0))
}

func (t *Trial) told(figure string, ours, peers int, of Fate) Measurement {
	return Told(figure, "", Number(ours)).At(t.Over, "").Beside(t.Peer, Number(peers)).
		Said(t.Ours.Causes[of].Err(), t.Peers.Causes[of].Err())
}

package work

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestAFateIsWhatTheErrorPromises(t *testing.T) {
	strange, harmless := errors.New("strange"), errors.New("harmless")
	for _, c := range []struct {
		err  error
		want Fate
	}{
		{nil, Succeeded},
		{fmt.Errorf("%w: 404", strange), Strange},
		{harmless, Safe},
		{errors.Join(strange, harmless), Strange},
		{io.EOF, Unknown},
	} {
		got := FateOf(c.err, strange, func(err error) bool { return errors.Is(err, harmless) })
		if got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestEachFateIsHeldAgainstHowOftenItRan(t *testing.T) {
	twice := func(v Verdict) int { return len(v.Twice) }
	for _, c := range []struct {
		name string
		fate Fate
		ran  int
		of   func(Verdict) int
		bad  bool
	}{
		{"succeeded", Succeeded, 1, func(v Verdict) int { return v.Succeeded }, false},
		{"a phantom", Succeeded, 0, func(v Verdict) int { return v.Phantoms }, true},
		{"safe", Safe, 0, func(v Verdict) int { return v.Safe }, false},
		{"a broken promise", Safe, 1, func(v Verdict) int { return v.Broken }, true},
		{"ran", Unknown, 1, func(v Verdict) int { return v.Ran }, false},
		{"lost", Unknown, 0, func(v Verdict) int { return v.Lost }, false},
		{"strange", Strange, 1, func(v Verdict) int { return v.Strange }, true},
		{"twice, and all seemed well", Succeeded, 2, twice, true},
		{"twice", Unknown, 2, twice, true},
		{"twice, though nobody knows what came of it", Unsent, 2, twice, true},
	} {
		v := Weigh([]Sent{{c.fate, io.EOF}}, func(int) int { return c.ran })
		if c.of(v) != 1 {
			t.Errorf("%s: %+v", c.name, v)
		}
		if bad := twice(v) + v.Phantoms + v.Broken + v.Strange; (bad > 0) != c.bad {
			t.Errorf("%s: %d that must not be: %+v", c.name, bad, v)
		}
		if (v.Sent == 0) != (c.fate == Unsent) || (v.Causes[c.fate].Err() == nil) != (c.fate == Unsent) {
			t.Errorf("%s: %d sent, %v", c.name, v.Sent, v.Causes)
		}
	}
}

func TestATrialThatIsNotDoneIsMissedAndSoIsWhatMustNotBe(t *testing.T) {
	ran := func(n int) func(int) int { return func(int) int { return n } }
	trial := &Trial{
		Over: "http1", Peer: "tuned",
		Ours:  Weigh([]Sent{{Safe, io.EOF}, {}}, ran(1)),
		Peers: Weigh([]Sent{{Unknown, io.ErrNoProgress}, {}}, ran(1)),
	}
	r := new(Report)
	trial.Note(r, "POSTs")
	trial.Never(r, "kept no promise", trial.Ours.Broken, trial.Peers.Broken, Safe)
	trial.Never(r, "nonsense", trial.Ours.Strange, trial.Peers.Strange, Unsent)
	var missed []string
	for _, m := range r.measurements {
		if m.Over != "http1" || m.Peer != "tuned" {
			t.Errorf("%+v", m)
		}
		if m.Status == Missed {
			missed = append(missed, fmt.Sprintf("%s: %v beside %v, %q, %q", m.Figure, m.Ours, *m.Peers, m.Why, m.OursError))
		}
	}
	const want = `POSTs: 1 beside 1, "2 were to be sent, and time was over", ""` + "\n" +
		`kept no promise: 1 beside 0, "", "1 x EOF"`
	if got := strings.Join(missed, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if did := r.measurements[3]; *did.Peers != 1 || did.PeerError == "" {
		t.Errorf("what the peer may have done and did: %+v", did)
	}
}

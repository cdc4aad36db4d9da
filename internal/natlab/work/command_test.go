package work

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// fail is an act's Play that ends with err.
func fail(err error) func(*Report) error { return func(*Report) error { return err } }

// tell is one that tells a figure of that name.
func tell(figure string) func(*Report) error {
	return func(r *Report) error {
		r.Note(Told(figure, "", Number(1)))
		return nil
	}
}

func TestBadArgumentsAreNamed(t *testing.T) {
	c := Command{Name: "lab", Acts: []Act{{Name: "parked", Play: tell("x")}, {Name: "busy", Play: tell("x")}}}
	for _, test := range []struct{ args, want string }{
		{"-only nowhere", `lab: no scenario "nowhere", there are parked, busy`},
		{"-fast", "-fast"},
		{"parked", `lab: unexpected argument "parked"`},
	} {
		var out, errs bytes.Buffer
		if status := c.Run(strings.Fields(test.args), &out, &errs); status != 2 || !strings.Contains(errs.String(), test.want) {
			t.Errorf("%s: status %d, %q", test.args, status, errs.String())
		}
		if out.Len() > 0 {
			t.Errorf("%s: standard output %q", test.args, out.String())
		}
	}
}

func TestACommandMayHaveFlagsOfItsOwn(t *testing.T) {
	var seed int
	c := Command{Acts: []Act{{Name: "a", Play: tell("x")}}, Flags: []func(*flag.FlagSet){
		func(f *flag.FlagSet) { f.IntVar(&seed, "seed", 0, "") },
	}}
	if status := c.Run([]string{"-seed", "7", "-only", "a"}, io.Discard, io.Discard); status != 0 || seed != 7 {
		t.Errorf("status %d, seed %d", status, seed)
	}
}

func TestEveryActCanBeChosen(t *testing.T) {
	c := Command{Acts: []Act{{Name: "a", About: "first"}, {Name: "b", About: "second"}}}
	for _, a := range c.Acts {
		if got, err := c.choose(a.Name); err != nil || len(got) != 1 || got[0].About != a.About {
			t.Errorf("%s: %v, %v", a.Name, got, err)
		}
	}
	if got, err := c.choose(""); err != nil || len(got) != 2 {
		t.Errorf("all: %v, %v", got, err)
	}
}

func TestWhoIsAloneRunsBesideNobody(t *testing.T) {
	var running, most atomic.Int32
	play := func(r *Report) error {
		now := running.Add(1)
		defer running.Add(-1)
		if r.Alone && now > 1 {
			t.Errorf("%s runs beside others", r.Name)
		}
		time.Sleep(time.Second)
		most.Store(max(most.Load(), running.Load()))
		return tell("x")(r)
	}
	synctest.Test(t, func(t *testing.T) {
		c := Command{Acts: []Act{{Name: "a", Play: play}, {Name: "b", Alone: true, Play: play}, {Name: "c", Play: play}, {Name: "d", Alone: true, Play: play}}}
		begin := time.Now()
		var out strings.Builder
		if status := c.Run([]string{"-json"}, &out, io.Discard); status != 0 {
			t.Errorf("status %d", status)
		}
		order := ""
		for line := range strings.Lines(out.String()) {
			order += strings.TrimPrefix(line, `{"scenario":"`)[:1]
		}
		if order != "abcd" {
			t.Errorf("printed as %q:\n%s", order, out.String())
		}
		if took := time.Since(begin); took != 3*time.Second || most.Load() != 2 {
			t.Errorf("it took %v, %d at a time", took, most.Load())
		}
	})
}

func TestWhatDidNotHappenIsNoSuccess(t *testing.T) {
	noServer := errors.New("no server")
	c := Command{Unavailable: noServer}
	for _, test := range []struct {
		err  error
		want Status
	}{
		{fmt.Errorf("no root: %w", natlab.ErrUnavailable), Skipped},
		{fmt.Errorf("not installed: %w", noServer), Skipped},
		{errors.New("broken"), Missed},
	} {
		r := c.play(Act{Name: "a", Play: fail(test.err)}, false)
		if m := r.measurements; r.kept() || len(m) != 1 || m[0].Status != test.want || m[0].Why != test.err.Error() {
			t.Errorf("%v: %+v", test.err, m)
		}
	}
	if r := c.play(Act{Name: "a", Play: fail(nil)}, false); r.kept() {
		t.Error("nothing was measured, and all is well")
	}
}

func TestTheExitStatusIsThatOfTheWorst(t *testing.T) {
	kept := Act{Name: "kept", Play: tell("x")}
	for name, test := range map[string]struct {
		acts []Act
		want int
	}{
		"kept":    {[]Act{kept, kept}, 0},
		"missed":  {[]Act{kept, {Name: "missed", Play: fail(errors.New("broken"))}, kept}, 1},
		"skipped": {[]Act{{Name: "skipped", Play: fail(natlab.ErrUnavailable)}, kept}, 1},
	} {
		c := Command{Acts: test.acts}
		if got := c.Run(nil, io.Discard, io.Discard); got != test.want {
			t.Errorf("%s: status %d, want %d", name, got, test.want)
		}
	}
}

func TestMeasurementsStandInTheirOrder(t *testing.T) {
	c := Command{Order: func(a, b Measurement) int { return strings.Compare(a.Over, b.Over) }}
	r := c.play(Act{Name: "a", Play: func(r *Report) error {
		r.Note(Told("1", "", Number(0)).At("b", ""))
		r.Note(Told("2", "", Number(0)).At("a", ""))
		r.Note(Told("3", "", Number(0)).At("b", ""))
		return nil
	}}, false)
	order := ""
	for _, m := range r.measurements {
		order += m.Figure
	}
	if order != "213" {
		t.Error(order)
	}
}

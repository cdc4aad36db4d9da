package work

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestRequestsComeWhetherOthersAreAnsweredOrNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Stream{Every: time.Second, Deadline: 5 * time.Second}
		begin := time.Now()
		s.Flow(begin.Add(time.Minute), 10*time.Second, func(due time.Time) {
			if !time.Now().Equal(due) {
				t.Errorf("it was due %v ago", time.Since(due))
			}
			s.Ask(due, 0, func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
		})
		if took := time.Since(begin); took != time.Minute+9*time.Second+5*time.Second {
			t.Errorf("it took %v", took)
		}
		if l := s.Between(begin, time.Time{}); l.All() != 10 || l.Failed != 10 {
			t.Errorf("%+v", l)
		}
	})
}

func TestWhatTheOtherSideWasToTakeIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Stream{Deadline: time.Minute}
		due := time.Now()
		time.Sleep(time.Second)
		s.Ask(due, 2*time.Second, func(context.Context) error {
			time.Sleep(5 * time.Second)
			return nil
		})
		if got := s.Between(due, time.Time{}).Quantile(1); got != Seconds(4*time.Second) {
			t.Errorf("late by %v", got)
		}
	})
}

func TestAllIsWellWhenTheLastBadAnswerIsOver(t *testing.T) {
	const inTime, calm = 250 * time.Millisecond, time.Second
	struck := time.Now()
	answer := func(due, over time.Duration, err error) asked {
		return asked{struck.Add(due), struck.Add(over), over - due, err}
	}
	good := answer(5*time.Second, 5*time.Second+inTime, nil)
	for _, c := range []struct {
		name  string
		asked []asked
		want  Reading
	}{
		{"nothing went wrong", []asked{good}, Seconds(0)},
		{"an error before", []asked{answer(-2*time.Second, -time.Second, io.EOF), good}, Seconds(0)},
		{"an error", []asked{answer(0, 2*time.Second, io.EOF), good}, Seconds(2 * time.Second)},
		{"a late answer", []asked{answer(time.Second, 3*time.Second, nil), answer(time.Second, 2*time.Second, io.EOF), good}, Seconds(3 * time.Second)},
		{"an error at the end", []asked{good, answer(4*time.Second, 4500*time.Millisecond, io.EOF)}, MoreThan(5 * time.Second)},
	} {
		s := &Stream{asked: c.asked}
		if got := s.Recovery(struck, inTime, calm); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestOnlyWhatWasOverWithinTheTimeCounts(t *testing.T) {
	begin := time.Now()
	s := new(Stream)
	for i := range 10 {
		s.asked = append(s.asked, asked{over: begin.Add(time.Duration(i) * time.Second)})
	}
	s.asked[5].err = io.EOF
	if l := s.Between(begin.Add(time.Second), begin.Add(5*time.Second)); l.All() != 5 || l.Failed != 1 {
		t.Errorf("%+v", l)
	}
	if l := s.Between(begin.Add(time.Second), time.Time{}); l.All() != 9 || l.Failed != 1 {
		t.Errorf("for ever: %+v", l)
	}
}

func TestWhatFailedIsLaterThanAll(t *testing.T) {
	l := Lateness{Failed: 1, deadline: 10 * time.Second}
	for i := range 999 {
		l.late = append(l.late, time.Duration(i+1)*time.Millisecond)
	}
	for _, c := range []struct {
		q    float64
		want Reading
	}{
		{0.001, Reading{Value: 0.001}}, {0.999, Reading{Value: 0.999}}, {1, Reading{Value: 10, More: true}},
	} {
		if got := l.Quantile(c.q); got != c.want {
			t.Errorf("%v: %v, want %v", c.q, got, c.want)
		}
	}
	if n := l.Over(990 * time.Millisecond); n != 10 {
		t.Errorf("%d are later than 990 ms", n)
	}
	if got := (Lateness{}).Quantile(0.5); !got.More {
		t.Errorf("of nothing: %v", got)
	}
}

package work

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestABoundIsTheMost(t *testing.T) {
	for _, c := range []struct {
		ours Reading
		want Status
	}{
		{Seconds(7999 * time.Millisecond), OK},
		{Seconds(8 * time.Second), OK},
		{Seconds(8001 * time.Millisecond), Missed},
		{MoreThan(8500 * time.Millisecond), Missed}, // 8 s were waited for in vain
		{Reading{3, true}, Missed},
	} {
		if m := Told("x", "s", c.ours).AtMost(8); m.Status != c.want {
			t.Errorf("%v: %+v", c.ours, m)
		}
	}
	if m := Told("x", "", Number(99)); m.Status != OK || m.Bound != nil {
		t.Errorf("nothing was asked of %+v", m)
	}
}

func TestARatioNeedsTwoKnownValues(t *testing.T) {
	for _, c := range []struct {
		ours, peer Reading
		want       float64
	}{
		{Seconds(2 * time.Second), Seconds(8 * time.Second), 0.25},
		{Seconds(2 * time.Second), MoreThan(60 * time.Second), 0},
		{MoreThan(2 * time.Second), Seconds(8 * time.Second), 0},
		{Number(0), Number(0), 0},
	} {
		if m := Told("x", "", c.ours).AtMost(8).Beside("Go", c.peer); m.Ratio != c.want {
			t.Errorf("%v beside %v: %v", c.ours, c.peer, m.Ratio)
		}
	}
}

func TestTheFieldsOfTheJSON(t *testing.T) {
	r := &Report{Act: Act{Name: "parked-reader"}}
	r.Note(Told("until it is known to be dead", "s", Seconds(6*time.Second)).AtMost(8).
		Beside("Go", MoreThan(time.Minute)).At("http2", "idle").Said(io.EOF, nil))
	r.Note(Told("suspicions", "", Number(0)))
	r.Note(Told("later by", "s", Seconds(2*time.Second)).At("http1", "").Beside("tuned", Seconds(8*time.Second)).AtMost(4))
	r.Note(Told("it took", "s", Reading{55, true}).Beside("tuned", Reading{}))
	var out strings.Builder
	if err := r.write(&out, true, ""); err != nil {
		t.Fatal(err)
	}
	const want = `{"scenario":"parked-reader","over":"http2","use":"idle","figure":"until it is known to be dead","unit":"s","ours_value":6,` +
		`"ours_error":"EOF","peer":"Go","peer_value":60,"peer_more":true,"bound":8,"status":"ok"}` + "\n" +
		`{"scenario":"parked-reader","figure":"suspicions","ours_value":0,"status":"ok"}` + "\n" +
		`{"scenario":"parked-reader","over":"http1","figure":"later by","unit":"s","ours_value":2,` +
		`"peer":"tuned","peer_value":8,"ratio":0.25,"bound":4,"status":"ok"}` + "\n" +
		`{"scenario":"parked-reader","figure":"it took","unit":"s","ours_value":55,"ours_more":true,` +
		`"peer":"tuned","peer_value":0,"status":"ok"}` + "\n"
	if out.String() != want {
		t.Errorf("got  %s\nwant %s", out.String(), want)
	}
}

func TestPeopleReadWhatWasMissedAndWhy(t *testing.T) {
	r := &Report{Act: Act{Name: "busy", About: "a flow goes black"}}
	m := Told("until it is dead", "s", Seconds(time.Second)).AtMost(3).Beside("Go", MoreThan(time.Minute)).At("plain", "one request")
	m.Miss("Read: %v is no black hole", io.EOF)
	m.Miss("and no other")
	r.Note(m)
	r.Note(Told("lost", "", Number(1)).AtMost(0).Beside("tuned", Number(2)).At("http2", "").Said(syscall.ECONNRESET, nil))
	r.Note(Told("failed", "", Number(4)).At("http1", "").Said(syscall.EPIPE, nil))
	r.Note(Told("found", "s", Seconds(time.Second)).AtMost(3).Said(io.ErrNoProgress, nil))
	r.Note(Measurement{Figure: "everything else", Status: Skipped, Why: "no root"})
	var out strings.Builder
	if err := r.write(&out, false, "Go"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"busy: a flow goes black", "plain one request", "1 s", "> 60 s ", "3 s", "MISSED",
		"plain one request until it is dead: Read: EOF is no black hole; and no other",
		"2 (tuned)", "http2 lost, ours: connection reset by peer", "http1 failed, ours: broken pipe",
		"SKIPPED", "everything else: no root",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, not := range []string{"(Go)", io.ErrNoProgress.Error()} {
		if strings.Contains(out.String(), not) {
			t.Errorf("%q in\n%s", not, out.String())
		}
	}
	if got := r.summary(); got != "1 of 4 bounds kept" {
		t.Error(got)
	}
}

func TestCausesThatDifferInNumbersAreOne(t *testing.T) {
	var c Causes
	if err := c.Err(); err != nil {
		t.Errorf("of none: %v", err)
	}
	for i := range 3 {
		c.Add(fmt.Errorf(`Get "http://198.51.100.1:80/wait?for=%dms": read tcp 10.78.1.2:%d->198.51.100.1:80: silent for %d.5ms`, i, 40000+i, i))
	}
	c.Add(io.EOF)
	if want := "3 x Get read tcp 10.78.1.2->198.51.100.1:80: silent for ; 1 x EOF"; c.Err().Error() != want {
		t.Errorf("got %q, want %q", c.Err(), want)
	}
	for i := range 10 {
		c.Add(fmt.Errorf("%c", 'a'+i))
	}
	if !strings.HasSuffix(c.Err().Error(), "; and 8 others") {
		t.Error(c.Err())
	}
}

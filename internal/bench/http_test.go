package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestMain is the other processes' too, which are this program once more.
func TestMain(m *testing.M) {
	if status, ok := runAsOther(os.Args[1:]); ok {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// aLoad is of HTTP/1.1, with few requests at a time.
var aLoad = httpLoad{Protocol: plain, Concurrency: 3}

func openTestOrigin(t *testing.T) *origin {
	t.Helper()
	o, err := startOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func everyHTTP() []httpEntry {
	return slices.Concat([]httpEntry{oursHTTP, defaultHTTP, tunedHTTP}, otherHTTP)
}

func TestEveryClientIsAnsweredInTheProtocolThatItIsMeasuredIn(t *testing.T) {
	o := openTestOrigin(t)
	for _, p := range protocols {
		for _, m := range everyHTTP() {
			for _, deadline := range []bool{false, true} {
				l := httpLoad{p, 3, deadline}
				c, err := l.open(m, o)
				if err == nil {
					err = l.request(c, o.URLs[p])
				}
				// An address of HTTP/2 speaks nothing else.
				if able := p != second || m.http2; (err == nil) != able {
					t.Errorf("%s, %v: %v", m.name, l, err)
				}
				if err := c.close(t.Context()); err != nil {
					t.Errorf("%s: %v", m.name, err)
				}
			}
		}
	}
}

func TestWhatIsNotTheOriginsAnswerIsAnError(t *testing.T) {
	o := openTestOrigin(t)
	for _, m := range everyHTTP() {
		c, err := aLoad.open(m, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.get(t.Context(), o.URLs[plain]+"/nowhere"); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s: %v", m.name, err)
		}
		c.close(t.Context())
	}
}

func TestTheOriginEndsWithWhoeverStartedIt(t *testing.T) {
	o, err := startOrigin()
	if err != nil {
		t.Fatal(err)
	}
	o.lives.Close() // as the kernel does for a process that is killed
	if err := o.process.Wait(); err != nil {
		t.Error(err)
	}
	if o.process.ProcessState.Pid() == os.Getpid() {
		t.Error("it was this process")
	}
}

func TestAMeetingBeginsWhenAllAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meeting
		var met atomic.Int64
		for i := range 6 { // two meetings, one after the other
			go func() {
				if err := m.wait(t.Context(), 3); err != nil {
					t.Error(err)
				}
				met.Add(1)
			}()
			synctest.Wait()
			if want := int64((i + 1) / 3 * 3); met.Load() != want {
				t.Errorf("%d have met after %d came", met.Load(), i+1)
			}
		}
	})
}

func TestWhoeverLeavesAMeetingIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m meeting
		hurried, leave := context.WithCancel(t.Context())
		leave()
		if err := m.wait(hurried, 2); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		met := make(chan error, 2)
		go func() { met <- m.wait(t.Context(), 2) }()
		synctest.Wait()
		if len(met) > 0 {
			t.Error("met with somebody who had left")
		}
		go func() { met <- m.wait(t.Context(), 2) }()
		synctest.Wait()
		if len(met) != 2 {
			t.Error("two are there and do not meet")
		}
	})
}

// A slowClient takes a millisecond for a request, and fails from the nth on; zero: never.
type slowClient struct {
	sent, failsAt atomic.Int64
	limited       atomic.Int64 // requests with a deadline
	closed        bool
}

func (c *slowClient) get(ctx context.Context, _ string) error {
	time.Sleep(time.Millisecond)
	if _, ok := ctx.Deadline(); ok {
		c.limited.Add(1)
	}
	if n, at := c.sent.Add(1), c.failsAt.Load(); at > 0 && n >= at {
		return errBroke
	}
	return nil
}

func (c *slowClient) close(context.Context) error {
	c.closed = true
	return nil
}

// slowTurn is how many requests of it aLoad makes in a turn.
const slowTurn = int64(3 * (turnWarms + turnLasts) / time.Millisecond)

var errBroke = errors.New("broken")

func TestATurnCountsWhatComesAfterTheWarmUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c slowClient
		s, err := aLoad.turn(&c, "")
		// Each of the three ends with the request that is under way then.
		least := 3 * int(turnLasts/time.Millisecond)
		if err != nil || s.took < turnLasts || s.took > turnLasts+time.Millisecond || s.ops < least || s.ops > least+3 {
			t.Errorf("%+v, %v", s, err)
		}
		if warm := c.sent.Load() - int64(s.ops); warm < 3*int64(turnWarms/time.Millisecond) {
			t.Errorf("%d requests to warm up", warm)
		}
		if c.limited.Load() > 0 {
			t.Error("there were deadlines")
		}
	})
}

func TestALoadWithDeadlinesHasOneForEveryRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c slowClient
		l := aLoad
		l.Deadline = true
		if _, err := l.turn(&c, ""); err != nil || c.limited.Load() != c.sent.Load() {
			t.Errorf("%d of %d, %v", c.limited.Load(), c.sent.Load(), err)
		}
	})
}

func TestATurnFailsWithItsFirstRequestThatDoes(t *testing.T) {
	for _, at := range []int64{1, slowTurn / 2} { // in the warm-up, and after
		synctest.Test(t, func(t *testing.T) {
			var c slowClient
			c.failsAt.Store(at)
			if _, err := aLoad.turn(&c, ""); !errors.Is(err, errBroke) {
				t.Errorf("from request %d on: %v", at, err)
			}
		})
	}
}

// A stuckClient answers when it may.
type stuckClient chan struct{}

func (c stuckClient) get(context.Context, string) error { <-c; return nil }
func (c stuckClient) close(context.Context) error       { return nil }

func TestAClientThatHangsDoesNotHangTheBench(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := make(stuckClient)
		if _, err := aLoad.turn(c, ""); err == nil || !strings.Contains(err.Error(), "stuck") {
			t.Error(err)
		}
		close(c)
	})
}

func TestAClientThatFailsSpoilsNobodyElsesTurns(t *testing.T) {
	cert, err := certify(net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		o := &origin{notice: notice{Root: cert.Certificate[0]}}
		var made []*slowClient
		entry := func(failsAt int64) httpEntry {
			return httpEntry{open: func(*tls.Config) httpClient {
				c := new(slowClient)
				c.failsAt.Store(failsAt)
				made = append(made, c)
				return c
			}}
		}
		found := aLoad.play([]httpEntry{entry(0), entry(1), entry(2 * slowTurn)}, turnsOfClient+2, o)
		for i, broken := range []bool{false, true, true} {
			if errors.Is(found[i].err, errBroke) != broken || !broken && found[i].err != nil {
				t.Errorf("client %d: %v", i, found[i].err)
			}
		}
		if n := len(found[0].series); n != turnsOfClient+2 {
			t.Errorf("%d turns", n)
		}
		if len(found[1].series) > 0 || len(found[2].series) == 0 {
			t.Errorf("turns of those that failed: %d, %d", len(found[1].series), len(found[2].series))
		}
		if len(made) != 4 {
			t.Errorf("%d clients: the first is made anew, the others are not after they have failed", len(made))
		}
		for i, c := range made {
			if !c.closed {
				t.Errorf("client %d was left open", i)
			}
		}
	})
}

func TestTheBoundsOnTheTransport(t *testing.T) {
	pair := func(p protocol, rate, allocs float64) httpPair {
		l := httpLoad{Protocol: p, Concurrency: 64}
		mine := httpResult{series: slices.Repeat(series{{ops: int(1000 * rate), took: time.Second, mallocs: uint64(1000 * rate * allocs)}}, 5)}
		theirs := httpResult{series: slices.Repeat(series{{ops: 1000, took: time.Second, mallocs: 10_000}}, 5)}
		got := l.pair("http.Transport", mine, theirs)
		got.judge()
		return got
	}
	for _, c := range []struct {
		protocol     protocol
		rate, allocs float64
		want, thrift status
	}{
		{plain, 0.97, 9, statusOK, statusOK},
		{plain, 0.96, 9, statusMissed, statusOK},
		{secure, 1.2, 10, statusOK, statusMissed}, // no fewer
		{second, 1.2, 11, statusOK, statusOK},
	} {
		p := pair(c.protocol, c.rate, c.allocs)
		if p.rate.Status != c.want || p.thrift.Status != c.thrift {
			t.Errorf("%+v: %v, allocations %v", c, p.rate.verdict, p.thrift.verdict)
		}
		if r := (&httpReport{pairs: []httpPair{p}}); r.kept() != (c.want == statusOK && c.thrift == statusOK) {
			t.Errorf("%+v: kept is %t", c, r.kept())
		}
	}
}

func TestWhatFailsIsMissedInBothFigures(t *testing.T) {
	p := aLoad.pair("peer", httpResult{}, httpResult{err: errBroke})
	p.judge()
	if p.rate.Status != statusMissed || p.thrift.Status != statusMissed || p.rate.Why != "broken" {
		t.Errorf("%+v", p)
	}
	if r := (&httpReport{end: errBroke}); r.kept() || len(r.lines()) != 1 {
		t.Error("an origin that has failed is not told")
	}
}

func TestNobodyIsMeasuredInAProtocolThatItDoesNotSpeak(t *testing.T) {
	for _, l := range loads(true) {
		var names []string
		for _, m := range append(l.field(), l.rival()) {
			names = append(names, m.name)
		}
		if slices.Contains(names, "fasthttp") != (l.Protocol != second) {
			t.Errorf("%v: %v", l, names)
		}
		// Both kinds of http.Transport are there, and one is the rival.
		if !slices.Contains(names, defaultHTTP.name) || !slices.Contains(names, tunedHTTP.name) {
			t.Errorf("%v: %v", l, names)
		}
	}
	var out bytes.Buffer
	new(httpReport).print(&out)
	if !strings.Contains(out.String(), "left out there: fasthttp.") {
		t.Error("the table does not say so:", out.String())
	}
}

func TestADuelLeavesNothingBehind(t *testing.T) {
	o := openTestOrigin(t)
	p := httpLoad{secure, 8, true}.duel(turnsOfClient+1, o)
	if p.rate.Why != "" || p.rate.Pairs != turnsOfClient+1 || p.rate.Ours <= 0 || p.rate.Peers <= 0 || p.thrift.Ours <= 0 {
		t.Errorf("%+v", p)
	}
}

func TestALineOfTheBenchHTTP(t *testing.T) {
	s := series{{ops: 10, took: time.Second, mallocs: 20}}
	p := httpLoad{secure, 64, true}.pair("fasthttp", httpResult{series: slices.Repeat(s, 5)}, httpResult{series: slices.Repeat(s, 5)})
	p.judge()
	r := &httpReport{pairs: []httpPair{p}}
	var out bytes.Buffer
	if err := show(r, true, &out); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	for _, want := range []map[string]any{
		{"figure": "rate", "ours_per_second": 10.0, "peer_per_second": 10.0, "bound": 0.97, "status": "ok"},
		{"figure": "allocs", "ours_allocs": 2.0, "peer_allocs": 2.0, "bound": 1.0, "status": "missed"},
	} {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		for key, v := range map[string]any{
			"bench": "http", "protocol": "HTTP/1.1 over TLS", "concurrency": 64.0, "deadline": true, "peer": "fasthttp",
			"ratio_is": "ours/peer", "ratio": 1.0, "pairs": 5.0,
		} {
			want[key] = v
		}
		for key, v := range want {
			if line[key] != v {
				t.Errorf("%s is %v, want %v", key, line[key], v)
			}
		}
	}
	if d.Decode(new(any)) != io.EOF {
		t.Error("there are more lines")
	}
}

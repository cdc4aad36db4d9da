package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	goleak "github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/internal/terminal"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	_, stop := untilTold(context.Background()) // os/signal's own goroutine stays by right
	stop()
	os.Exit(goleak.Check(m.Run))
}

func TestWithJSONOneObjectAndNothingElseIsPrinted(t *testing.T) {
	v := mustRun(t, "-json", "-requests", "45", "-concurrency", "10", "-service", "1ms")
	if v.Scenario != "exhaustion" || v.Path != "azure-app-service" || v.Limit != 128 || v.TimeScale != 60 || v.Status != "ok" || v.Bound != "" {
		t.Errorf("got %+v", v)
	}
	var names []string
	for _, r := range v.Clients {
		names = append(names, r.Name)
		if r.Requests != 45 || r.OK != 45 || r.Failed != 0 || r.RefusedSYN != 0 || r.Trouble != nil {
			t.Errorf("got %+v", r)
		}
		if r.P50 < 1 || r.P99 < r.P50 || r.Seconds <= 0 || r.PeakPorts < 1 || r.FlowsOpened < r.PeakPorts {
			t.Errorf("that cannot be measured: %+v", r)
		}
	}
	if got := strings.Join(names, " "); got != "client-per-request http.DefaultTransport natwise" {
		t.Errorf("the clients are %s", got)
	}
	if leak, ours := v.Clients[0], v.Clients[2]; leak.FlowsOpened != 45 || ours.FlowsOpened > 10 {
		t.Errorf("a client per request opened %d flows for 45 requests, natwise %d, 10 at a time", leak.FlowsOpened, ours.FlowsOpened)
	}
}

func TestABadFlagIsNamedWithItsValue(t *testing.T) {
	for args, want := range map[string]string{
		"-requests 0":     "-requests 0: must be within 1 and 20000",
		"-requests 20001": "-requests 20001: must be within 1 and 20000",
		"-requests many":  `invalid value "many" for flag -requests: parse error`,
		"-concurrency -1": "-concurrency -1: must be within 1 and 1000",
		"-service -1s":    "-service -1s: must not be negative",
		"-service 2h":     "-service 2h0m0s: too long to end within 30 s",
		"-service 5s":     "would take 1m0s at best, too long to end within 30 s; at most -service 833ms, or fewer -requests",
		// Two rounds a wave, as there are 127 ports to spend.
		"-concurrency 128 -requests 1344 -service 500ms": "1344 requests, 128 at a time through 128 ports, would take 11s at best",
		"-servcie 1s":                     "flag provided but not defined: -servcie",
		"-json 10":                        `unexpected argument "10": there are only flags`,
		"-scenario storm":                 "-scenario storm: want exhaustion, idle, blackhole, lying-proxy",
		"-scenario idle -requests 7":      "-requests 7: for -scenario exhaustion only; the sizes of idle are fixed",
		"-service 1s -scenario blackhole": "-service 1s: for -scenario exhaustion only",
	} {
		status, out, errs := runFor(t.Context(), strings.Fields(args)...)
		if status != 2 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, output %q, error %q, want %q", args, status, out, errs, want)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	status, out, errs := runFor(t.Context(), "-help")
	if status != 0 || out != "" || !strings.Contains(errs, "-concurrency") || !strings.Contains(errs, "lying-proxy") {
		t.Errorf("status %d, output %q, error %q", status, out, errs)
	}
}

func TestAnInterruptEndsItAtOnce(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			status, out, errs := runFor(ctx, "-json", "-scenario", name)
			if status != 1 || out != "" || errs != "quickstart: interrupted\n" {
				t.Errorf("status %d, output %q, error %q", status, out, errs)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestWhoeverEndsTheProgramInterruptsIt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nobody can send that on Windows")
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, sent := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		ctx, stop := untilTold(t.Context())
		if err := self.Signal(sent); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		stop()
	}
}

func TestAClientThatGoesPastItsNATIsMissed(t *testing.T) {
	past := client{name: "past", open: func(w way) user {
		tr := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		}}
		client := http.Client{Transport: tr}
		return user{send: client.Do, closeIdle: client.CloseIdleConnections}
	}}
	v := raced(t, past)
	if v.Status != "missed" || v.Bound != "past: flows_opened 0, want more: it went past its NAT" {
		t.Errorf("%s: %s", v.Status, v.Bound)
	}
}

func TestALostRequestOfNatwiseIsMissed(t *testing.T) {
	broken := client{name: natwise, open: func(w way) user {
		u := defaultTransport(w)
		send := u.send
		u.send = func(r *http.Request) (*http.Response, error) {
			resp, err := send(r) // an answer first, or there would be no flow
			if err == nil {
				resp.Body.Close()
			}
			return resp, err
		}
		return u
	}}
	v := raced(t, broken)
	if v.Status != "missed" || !strings.HasPrefix(v.Bound, "natwise: failed 3, want 0 (the first: http: read on closed response body)") {
		t.Errorf("%s: %s", v.Status, v.Bound)
	}
}

func TestWhatAMachineCannotShowIsSkippedWithTheReason(t *testing.T) {
	s := blackhole(load{})
	s.unable = fmt.Errorf("no such kernel")
	lanes, err := race(t.Context(), s, loopback(), nil)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerdict(s, lanes)
	if v.Status != "skipped" || v.Reason != "no such kernel" || v.Bound != "" {
		t.Errorf("got %+v", v)
	}
	var out bytes.Buffer
	if err := newScreen(&out, terminal.Terminal{}).closing(s, v, lanes); err != nil || !strings.Contains(out.String(), "cannot show that: no such kernel.") {
		t.Errorf("%v: the screen says %q", err, &out)
	}
}

func TestAKernelThatLosesNothingIsAReasonToSkip(t *testing.T) {
	s := blackhole(load{every: 25 * time.Millisecond, before: time.Second, after: time.Second})
	s.unable = nil
	v := playedInMemory(t, s) // where there is none
	if v.Status != "skipped" || !strings.HasPrefix(v.Reason, "this kernel does not lose what comes to a socket: ") {
		t.Errorf("got %+v", v)
	}
}

func TestPercentileIsTheSmallestThatSoManyDoNotExceed(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, c := range []struct {
		sorted  []time.Duration
		p, want int
	}{
		{nil, 99, 0}, {hundred[:1], 50, 1}, {hundred[:2], 50, 1}, {hundred[:3], 50, 2}, {hundred[:3], 99, 3},
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0, 1},
	} {
		if got := percentile(c.sorted, c.p); got != time.Duration(c.want) {
			t.Errorf("p%d of %d is %d, want %d", c.p, len(c.sorted), got, c.want)
		}
	}
}

func TestForHowLongAClientHadWhatLeadsNowhere(t *testing.T) {
	held := func(astray ...int) (ss []sample) {
		for i, n := range astray {
			ss = append(ss, sample{time.Duration(i), 1, n})
		}
		return ss
	}
	for _, c := range []struct {
		held []sample
		want time.Duration
	}{
		{nil, 0}, {held(0, 0), 0}, {held(0, 1), 0}, {held(0, 1, 2, 1, 0), 2}, {held(1, 1, 0, 0, 1, 1, 1, 3), 3},
	} {
		if got := astrayFor(c.held); got != c.want {
			t.Errorf("%v: %d, want %d", c.held, got, c.want)
		}
	}
}

// raced has one client do three requests.
func raced(t *testing.T, c client) verdict {
	t.Helper()
	s := exhaustion(work{requests: 3, concurrency: 1, ports: 128})
	s.clients = []client{c}
	return played(t, s, loopback())
}

// played is what becomes of a scene.
func played(t *testing.T, s *scene, on network) verdict {
	t.Helper()
	lanes, err := race(t.Context(), s, on, func([]*lane) {})
	if err != nil {
		t.Fatal(err)
	}
	return newVerdict(s, lanes)
}

// inMemory calls f in virtual time with a network of its own.
func inMemory(t *testing.T, f func(t *testing.T, on network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var n memnet.Network
		f(t, network{
			listen: func() (net.Listener, error) { return n.Listen("127.0.0.1:0") },
			dial:   n.DialContext,
		})
		time.Sleep(time.Hour) // what was begun to be closed is closed
	})
}

// playedInMemory is what becomes of a scene in virtual time.
func playedInMemory(t *testing.T, s *scene) (v verdict) {
	t.Helper()
	inMemory(t, func(t *testing.T, on network) { v = played(t, s, on) })
	return v
}

func runFor(ctx context.Context, args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = run(ctx, args, &o, &e, terminal.Terminal{})
	return status, o.String(), e.String()
}

// mustRun returns the one object that is printed.
func mustRun(t *testing.T, args ...string) (v verdict) {
	t.Helper()
	status, out, errs := runFor(t.Context(), args...)
	if status != 0 || errs != "" {
		t.Fatalf("status %d: %s%s", status, errs, out)
	}
	lines := json.NewDecoder(strings.NewReader(out))
	lines.DisallowUnknownFields()
	if err := lines.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := lines.Decode(new(any)); err != io.EOF {
		t.Fatalf("more than one object: %v: %s", err, out)
	}
	return v
}

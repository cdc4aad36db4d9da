package withsdk_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/keepalive/netpath"
)

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// failing is a kernel of which every connect fails.
func failing(err error) dialFunc {
	return func(context.Context, string, string) (net.Conn, error) { return nil, err }
}

var (
	noLocalPort = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
	noRoute     = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}

	// To find a hairpin takes a balancer, and a network of this process's own. But a Dialer can
	// stand on another, and that one can.
	hairpin = &dialer.DialError{Network: "tcp", Verdict: dialer.Hairpin, Err: errors.New("no answer")}
)

func TestADialThatFailsSaysWhyInItsMetricAndInItsSpan(t *testing.T) {
	for _, e := range []struct {
		dial               dialFunc // nil: nobody answers
		errorType, verdict string
	}{
		{nil, "natwise.path_down", "path-down"},
		{failing(noLocalPort), "natwise.local_ports", "local-ports"},
		{failing(noRoute), "host_unreachable", "unreachable"},
		{failing(hairpin), "natwise.hairpin", "hairpin"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newTown(newLens(t), 4)
			c.net.BlackHole(vanished)
			if e.dial != nil {
				c.dialer.Dial = e.dial
			}
			if _, err := c.open(c.Context(), "vanished.example.com:9"); err == nil {
				t.Fatalf("%s: it could be dialed", e.verdict)
			}
			c.read().want(1, dials, "server.address=vanished.example.com", "error.type="+e.errorType)
			setup := c.forest().named("connection_setup vanished.example.com:9")
			if got := byKey(setup.Attributes()); got["error.type"] != e.errorType || setup.Status().Description != e.errorType || got["natwise.verdict"] != e.verdict {
				t.Errorf("the span has %v and status %q, want %s and %s", got, setup.Status().Description, e.errorType, e.verdict)
			}
		})
	}
}

func TestOfSeveralVerdictsTheFirstThatIsKnownIsTold(t *testing.T) {
	l := newLens(t)
	scope := telemetry.New(telemetry.Config{MeterProvider: l.meters, TracerProvider: l.tracers, Snapshot: func() (s telemetry.Snapshot) { return s }})
	for name, test := range map[string]struct {
		judged []string
		err    error
		want   string
	}{
		"none:1":    {nil, noRoute, ""},
		"unknown:1": {[]string{"unknown"}, noRoute, "unknown"},
		"several:1": {[]string{"unknown", "path-down", "peer-down"}, noRoute, "path-down"},
		"works:1":   {[]string{"path-down"}, nil, ""}, // by another address
	} {
		setup := scope.Setup(t.Context(), "", name)
		for _, verdict := range test.judged {
			setup.Judged(verdict)
		}
		setup.End(test.err)
		if got := byKey(l.forest().named("connection_setup " + name).Attributes())["natwise.verdict"]; got != test.want {
			t.Errorf("%s is %q, want %q", name, got, test.want)
		}
	}
}

func TestAVerdictIsWarnedOf(t *testing.T) {
	warned(t, 4, func(c *town, log *logbook) {
		c.dialer.Dial = failing(noLocalPort)
		for range 3 { // it is said once a minute
			if _, err := c.open(c.Context(), "vanished.example.com:9"); err == nil {
				c.Fatal("it could be dialed")
			}
		}
		c.wantLine(log, `level=WARN msg="natwise: a dial failed, and it is known why" address=vanished.example.com:9 remote=20.1.2.8:9 verdict=local-ports evidence=.* ledger=east`)
		c.dialer.Dial = failing(noRoute) // which says it all
		time.Sleep(time.Hour)
		if _, err := c.open(c.Context(), "vanished.example.com:9"); err == nil {
			c.Fatal("it could be dialed")
		}
		c.wantSilence(log)
	})
}

// In real time, since what is in memory cannot be asked whether it lives.
func TestALimitThatIsLearnedIsSeen(t *testing.T) {
	l := newLens(t)
	l.whatIsWanting(func() {
		r := l.read()
		r.want(fewPorts, "natwise.snat.port.limit")
		r.want(1, dials, "error.type=natwise.exhausted")
	})
}

const fewPorts = 8 // of whatIsWanting, where its ledger knows of 128

// whatIsWanting is a NAT that has fewer ports than its ledger thinks, which a dial finds out.
func (l *lens) whatIsWanting(look func()) {
	l.Helper()
	nat, d, at := l.loopback()
	nat.Path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: fewPorts}}
	ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
	defer cancel()
	told := make(chan dialer.Event, 1)
	d.Observe = func(e dialer.Event) {
		if e.Kind == dialer.Failed {
			told <- e
			cancel() // it would wait for a port
		}
	}
	for range fewPorts {
		conn, err := d.DialContext(ctx, "tcp", at.String())
		if err != nil {
			l.Fatal(err)
		}
		defer conn.Close()
	}
	if conn, err := d.DialContext(ctx, "tcp", at.String()); err == nil {
		conn.Close()
		l.Error("there is a port more than there are")
	}
	select {
	case e := <-told:
		if e.Verdict != dialer.Exhausted {
			l.Errorf("it is told that %v (%s)", e.Verdict, e.Evidence)
		}
	default:
		l.Error("nobody was told")
	}
	look()
	runtime.KeepAlive(d)
}

package withsdk_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool/conns"
)

const (
	usage        = "natwise.snat.port.usage"
	acquisitions = "natwise.snat.port.acquisitions"
	closed       = "natwise.connection.closed"
	pending      = "natwise.connection.pending_requests"
)

// at are the attributes of a destination.
func at(address string, more ...string) []string {
	host, port, _ := net.SplitHostPort(address)
	return append([]string{"network.peer.address=" + host, "network.peer.port=" + port, "network.transport=tcp"}, more...)
}

func state(s string) string   { return "natwise.snat.port.state=" + s }
func outcome(o string) string { return "natwise.snat.port.outcome=" + o }
func reason(r string) string  { return "natwise.connection.close.reason=" + r }

func TestAPortIsSeenInEachOfItsStatesUntilItIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		p := c.conns(conns.Config{})
		conn := c.lend(p, "")
		c.read().want(1, usage, at(lines, state("active"))...)
		conn.Put()
		c.read().want(1, usage, at(lines, state("idle"))...)
		p.Reset("tcp", "lines.example.com:7000", nil)
		time.Sleep(time.Second)
		r := c.read()
		r.want(1, usage, at(lines, state("cooling"))...)
		r.want(1, usage, at(lines)...) // in no other one
		r.want(4, limit, at(lines)...)
		r.sane()
		time.Sleep(time.Hour)
		r = c.read()
		r.absent(usage, at(lines)...)
		r.absent(limit, at(lines)...)
		r.want(0, utilization)
		r.want(1, closed, at(lines, reason("purged"))...) // what has happened stays
	})
}

func TestADialUnderWayIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		c.net.BlackHole(lines)
		done := make(chan error)
		go func() {
			conn, err := c.dialer.DialContext(c.Context(), "tcp", lines)
			if err == nil {
				err = conn.Close()
			}
			done <- err
		}()
		synctest.Wait()
		c.read().want(1, usage, at(lines, state("dialing"))...)
		c.net.Heal(lines)
		c.must(<-done)
		r := c.read()
		r.want(1, usage, at(lines, state("cooling"))...)
		r.want(1, closed, at(lines, reason("closed"))...)
	})
}

// The ledger is the authority: what it says of itself is what is exported.
func TestWhatIsExportedIsWhatTheLedgerSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 8)
		c.handle = func(http.ResponseWriter, *http.Request) { time.Sleep(works) }
		_, client := c.web()
		p := c.conns(conns.Config{})
		for range 3 {
			defer c.lend(p, "").Put()
		}
		var requests sync.WaitGroup
		for range 20 {
			requests.Go(func() { c.must(get(c.Context(), client, "http://example.com/")) })
		}
		time.Sleep(works / 2)
		c.asTheLedgerSays()
		requests.Wait()
		c.asTheLedgerSays()
	})
}

func (c *town) asTheLedgerSays() {
	c.Helper()
	r := c.read()
	fullest := 0.0
	for _, a := range c.ledger.Accounts() {
		to := a.Key.Dest.String()
		cooling := a.Closing
		for _, n := range a.Cooling {
			cooling += n
		}
		r.want(float64(a.Active), usage, at(to, state("active"))...)
		r.want(float64(a.Idle), usage, at(to, state("idle"))...)
		r.want(float64(a.Asked+a.Dialing), usage, at(to, state("dialing"))...)
		r.want(float64(cooling), usage, at(to, state("cooling"))...)
		r.want(float64(a.Limit), limit, at(to)...)
		r.want(float64(a.Opened), acquisitions, at(to, outcome("dialed"))...)
		fullest = max(fullest, float64(a.Taken())/float64(a.Limit))
	}
	if fullest == 0 {
		c.Error("the ledger has nothing")
	}
	r.want(fullest, utilization)
	r.sane()
}

func TestTheUtilizationIsThatOfTheFullestDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		_, client := c.web()
		c.must(get(c.Context(), client, "http://example.com/"))
		p := c.conns(conns.Config{})
		for range 3 {
			defer c.lend(p, "").Put()
		}
		c.read().want(0.75, utilization)
	})
}

func TestWhoWaitsIsSeenWhileTheyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		c.handle = func(http.ResponseWriter, *http.Request) { time.Sleep(works) }
		_, client := c.web()
		var requests sync.WaitGroup
		for range 10 {
			requests.Go(func() { c.must(get(c.Context(), client, "http://example.com/")) })
		}
		time.Sleep(works / 2)
		r := c.read()
		r.want(6, pending, "server.address=example.com", "server.port=80")
		r.want(10, "http.client.active_requests", "server.port=80")
		r.want(4, "http.client.open_connections", "http.connection.state=active")
		r.want(0, "http.client.open_connections", "http.connection.state=idle")
		r.want(1, utilization)
		requests.Wait()
		r = c.read()
		r.want(0, pending, "server.port=80")
		r.want(0, "http.client.active_requests")
		r.want(4, "http.client.open_connections", "http.connection.state=idle")
		r.want(4, acquisitions, outcome("dialed"))
		r.want(6, acquisitions, outcome("reused"))
		r.want(0, acquisitions, outcome("rejected")) // what nobody needed any more was not refused,
		r.want(0, acquisitions, outcome("waited"))   // nor had
		r.want(10, "natwise.connection.wait.duration", "server.port=80")
		r.sane()
	})
}

func TestARequestThatGotNoPortInTimeIsRejectedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 2)
		for range 2 {
			conn, err := c.dialer.DialContext(c.Context(), "tcp", lines)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		hurried := func(do func(ctx context.Context) error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(c.Context(), time.Second)
			defer cancel()
			if do(ctx) == nil {
				t.Error("it got a third one of two ports")
			}
		}
		hurried(func(ctx context.Context) error {
			_, err := c.dialer.DialContext(ctx, "tcp", lines)
			return err
		})
		c.read().want(1, acquisitions, at(lines, outcome("rejected"))...)
		_, client := c.web()
		hurried(func(ctx context.Context) error { return get(ctx, client, "http://lines.example.com:7000/") })
		c.read().want(2, acquisitions, at(lines, outcome("rejected"))...)
		p := c.conns(conns.Config{})
		hurried(func(ctx context.Context) error {
			_, err := p.Get(ctx, "tcp", lines)
			return err
		})
		r := c.read()
		r.want(3, acquisitions, at(lines, outcome("rejected"))...)
		r.want(2, acquisitions, at(lines, outcome("dialed"))...)

		called, off := context.WithCancel(c.Context())
		go func() {
			synctest.Wait()
			off()
		}()
		if _, err := c.dialer.DialContext(called, "tcp", lines); err == nil {
			t.Error("it got a third one of two ports")
		}
		r = c.read()
		r.want(3, acquisitions, at(lines, outcome("rejected"))...) // who was called off was not refused
		r.want(0, acquisitions, at(lines, outcome("waited"))...)
	})
}

// Counters are added up by whoever takes what was added since the last look.
func TestWhatWasAddedSinceTheLastLookAddsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(deltaLens(t), 4)
		tr, client := c.web()
		dialed, reused, ended, waits := 0.0, 0.0, 0.0, 0.0
		look := func() {
			t.Helper()
			r := c.read()
			r.sane()
			for _, p := range r.points(acquisitions, outcome("dialed")) {
				dialed += p.value
			}
			for _, p := range r.points(acquisitions, outcome("reused")) {
				reused += p.value
			}
			for _, p := range r.points(closed) {
				ended += p.value
			}
			for _, p := range r.points("natwise.connection.wait.duration") {
				waits += p.value
			}
		}
		for range 5 {
			for range 3 {
				c.must(get(c.Context(), client, "http://example.com/"))
				look()
			}
			tr.CloseIdleConnections()
			synctest.Wait()
			look()
			time.Sleep(time.Hour) // the account is forgotten
			look()
		}
		if dialed != 5 || reused != 10 || ended != 5 || waits != 5 {
			t.Errorf("%v dialed, %v reused, %v closed, %v waits: want 5, 10, 5, 5", dialed, reused, ended, waits)
		}
	})
}

// Many destinations are folded into one. However they come and go, what is counted in all
// series together is what has happened, and none of it is ever taken back.
func TestMoreDestinationsThanHaveSeriesOfTheirOwnAreOneTogether(t *testing.T) {
	for name, look := range map[string]func(t *testing.T) *lens{
		"as they are":               func(t *testing.T) *lens { return newLens(t) },
		"what was added in between": deltaLens,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { manyDestinations(t, look(t), name == "as they are") })
		})
	}
}

func manyDestinations(t *testing.T, l *lens, cumulative bool) {
	c := newTown(l, 4)
	open := make(map[int]net.Conn)
	dialed := 0.0
	dial := func(i int) {
		t.Helper()
		conn, err := c.dialer.DialContext(c.Context(), "tcp", fmt.Sprintf("20.9.%d.%d:7000", i/200, i%200+1))
		if err != nil {
			t.Fatal(err)
		}
		open[i] = conn
		dialed++
	}
	shut := func(i int) { c.must(open[i].Close()); delete(open, i) }
	look := func() reading {
		t.Helper()
		r := c.read()
		r.sane()
		series := len(r.points(acquisitions, outcome("dialed")))
		if series > 257 {
			t.Errorf("%d series", series)
		}
		if cumulative {
			r.want(dialed, acquisitions, outcome("dialed"))
		}
		return r
	}
	for i := range 300 {
		c.serveLines(fmt.Sprintf("20.9.%d.%d:7000", i/200, i%200+1))
		dial(i)
	}
	r := look()
	r.want(44, usage, "network.peer.address=_OTHER", state("active"))
	r.want(300, usage, state("active"))

	for i := range 300 { // now all of them may make way
		shut(i)
	}
	time.Sleep(time.Hour)
	r = look()
	r.absent(usage)
	if cumulative {
		r.want(300, closed)
	}
	for i := 299; i >= 0; i-- { // those that had no series have one now, and the others come back
		dial(i)
		shut(i)
		if i%50 == 0 {
			look()
		}
	}
	for range 2 { // all of them, each of which has made way and comes back with no look in between
		for i := range 300 {
			dial(i)
			shut(i)
		}
	}
	time.Sleep(time.Hour)
	look()
}

func TestTwoLedgersAtOneProviderAreToldApartByTheirNames(t *testing.T) {
	for _, names := range [][2]string{{"east", "west"}, {"", ""}} {
		t.Run(fmt.Sprint(names), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTown(newLens(t), 4)
				for i, name := range names {
					l := &dialer.Ledger{Path: c.ledger.Path, Ramp: -1, Name: name, MeterProvider: c.meters}
					d := &dialer.Dialer{Ledger: l, Dial: c.net.DialContext}
					for range i + 1 {
						conn, err := d.DialContext(c.Context(), "tcp", lines)
						if err != nil {
							t.Fatal(err)
						}
						defer conn.Close()
					}
				}
				r := c.read()
				r.want(3, usage, state("active"))
				if names[0] == "" {
					return // they are one; so is what the fullest of them is, whichever is asked last
				}
				r.want(1, usage, state("active"), "natwise.ledger.name=east")
				r.want(2, usage, state("active"), "natwise.ledger.name=west")
				r.want(0.25, utilization, "natwise.ledger.name=east")
				r.want(0.5, utilization, "natwise.ledger.name=west")
			})
		})
	}
}

func TestALedgerThatNobodyHasAnyMoreIsNotAsked(t *testing.T) {
	l := newLens(t)
	by := &notary{MeterProvider: l.meters}
	func() {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		path := netpath.AzureAppService()
		path.Exempt = netpath.NoExempt()
		path.Hold = netpath.Hold{FIN: netpath.None, RST: netpath.None, SYN: netpath.None, Idle: netpath.None}
		d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1, MeterProvider: by}}
		conn, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if l.read().sum(utilization); by.registered.Load() != 1 {
			t.Error("no callback is registered")
		}
		runtime.KeepAlive(d)
	}()
	collected(t, "a ledger", func() bool { return by.registered.Load() == 0 })
	l.read().absent(utilization)
}

// A process has one global provider: the test runs in another one, whose first it is.
func TestAGlobalProviderThatIsSetLateSeesAllFromThenOn(t *testing.T) {
	const again = "NATWISE_TEST_LATE"
	if os.Getenv(again) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), again+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	l := newLens(t)
	var network memnet.Network
	ln, err := network.Listen(lines)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: netpath.AzureAppService()}, Dial: network.DialContext}
	dial := func(ctx context.Context) {
		conn, err := d.DialContext(ctx, "tcp", lines)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	dial(t.Context())
	otel.SetMeterProvider(l.meters)
	otel.SetTracerProvider(l.tracers)
	ctx, span := l.ask(t.Context(), "the caller")
	dial(ctx)
	span.End()
	r := l.read()
	r.want(2, usage, at(lines, state("active"))...) // both: it is asked now
	r.want(2, acquisitions, at(lines, outcome("dialed"))...)
	r.want(1, "natwise.connection.dial.duration") // the second: that was recorded then
	setups := 0
	for _, s := range l.spans.Ended() {
		if s.Name() == "connection_setup "+lines {
			setups++
		}
	}
	if setups != 1 {
		t.Errorf("%d setups were drawn, want that of the second connection", setups)
	}
}

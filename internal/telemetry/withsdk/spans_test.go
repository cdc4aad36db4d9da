package withsdk_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/natwise/natwise/internal/telemetry"
	"github.com/natwise/natwise/pool/conns"
	"github.com/natwise/natwise/sqlx"
)

// A forest is the spans of a test, that of what natwise draws and of its callers.
type forest struct {
	t     *testing.T
	spans []sdktrace.ReadOnlySpan
}

func (l *lens) forest() forest { return forest{l.T, l.spans.Ended()} }

// tree draws the spans of natwise below those of the callers, and roots by themselves: a line
// each, indented, in the order in which they began, and ended. An error is told by its type, a link by
// what it leads to.
func (f forest) String() string {
	var b strings.Builder
	for _, s := range f.below(trace.SpanID{}) {
		f.draw(&b, s, 0)
	}
	return b.String()
}

func (f forest) below(parent trace.SpanID) (found []sdktrace.ReadOnlySpan) {
	for _, s := range f.spans {
		if s.Parent().SpanID() == parent {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b sdktrace.ReadOnlySpan) int {
		return cmp.Or(a.StartTime().Compare(b.StartTime()), a.EndTime().Compare(b.EndTime()))
	})
	return found
}

func (f forest) draw(b *strings.Builder, s sdktrace.ReadOnlySpan, depth int) {
	fmt.Fprint(b, strings.Repeat("  ", depth), s.Name())
	attrs := byKey(s.Attributes())
	if reused := attrs["natwise.connection.reused"]; reused != "" {
		fmt.Fprint(b, " reused=", reused)
	}
	if kind := attrs["error.type"]; kind != "" {
		fmt.Fprint(b, " error=", kind)
		if s.Status().Code != codes.Error {
			fmt.Fprint(b, ", whose status is ", s.Status().Code)
		}
	}
	for _, e := range s.Events() {
		fmt.Fprintf(b, " %s(%s)", e.Name, byKey(e.Attributes)["error.type"])
	}
	for _, link := range s.Links() {
		fmt.Fprint(b, " -> ", f.find(link.SpanContext.SpanID()).Name())
	}
	fmt.Fprintln(b)
	for _, below := range f.below(s.SpanContext().SpanID()) {
		f.draw(b, below, depth+1)
	}
}

func (f forest) find(id trace.SpanID) sdktrace.ReadOnlySpan {
	for _, s := range f.spans {
		if s.SpanContext().SpanID() == id {
			return s
		}
	}
	return tracetest.SpanStub{Name: "nothing that was drawn"}.Snapshot()
}

// named returns the only span of that name.
func (f forest) named(name string) sdktrace.ReadOnlySpan {
	f.t.Helper()
	var found []sdktrace.ReadOnlySpan
	for _, s := range f.spans {
		if s.Name() == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		f.t.Fatalf("%d spans are called %q:\n%v", len(found), name, f)
	}
	return found[0]
}

// want fails the test unless that is what was drawn.
func (f forest) want(tree string) {
	f.t.Helper()
	tree = strings.ReplaceAll(strings.TrimPrefix(tree, "\n"), "\t", "  ")
	if got := f.String(); got != tree {
		f.t.Errorf("drawn was\n%s\nwant\n%s", got, tree)
	}
}

// traced does something within a span.
func (c *town) traced(name string, do func(ctx context.Context) error) {
	c.Helper()
	ctx, span := c.ask(c.Context(), name)
	defer span.End()
	c.must(do(ctx))
}

func TestARequestThatDialsIsLinkedToWhereItsConnectionComesFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		_, client := c.web()
		c.traced("first", func(ctx context.Context) error { return get(ctx, client, "https://example.com:8443/") })
		c.forest().want(`
HTTP connection_setup example.com:8443 -> first
	DNS lookup example.com
	socket connect 20.1.2.3:8443
	TLS client handshake example.com
first reused=false -> HTTP connection_setup example.com:8443
	HTTP wait_for_connection example.com:8443
`)
	})
}

func TestARequestThatReusesAConnectionSaysWhichAndForHowLongItWasIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		_, client := c.web()
		c.must(get(c.Context(), client, "http://example.com/")) // nobody follows it
		time.Sleep(3 * time.Second)
		c.traced("second", func(ctx context.Context) error { return get(ctx, client, "http://example.com/") })
		f := c.forest()
		f.want(`
HTTP connection_setup example.com:80
	DNS lookup example.com
	socket connect 20.1.2.3:80
second reused=true -> HTTP connection_setup example.com:80
`)
		port := strconv.Itoa(int(c.ledger.Flows()[0].Local.Port()))
		used, setup := byKey(f.named("second").Attributes()), byKey(f.named("HTTP connection_setup example.com:80").Attributes())
		if used["natwise.connection.idle"] != "3" {
			t.Errorf("it was idle for 3 s, and the span says %q", used["natwise.connection.idle"])
		}
		for _, attrs := range []map[string]string{used, setup} {
			if attrs["network.local.port"] != port || attrs["network.peer.address"] != "20.1.2.3" || attrs["network.peer.port"] != "80" {
				t.Errorf("the port is %s, and a span says %v", port, attrs)
			}
		}
	})
}

func TestARequestThatWaitsHasASpanOfThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 1)
		c.handle = func(http.ResponseWriter, *http.Request) { time.Sleep(works) }
		_, client := c.web()
		var requests sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			requests.Go(func() {
				c.traced(name, func(ctx context.Context) error { return get(ctx, client, "http://example.com/") })
			})
			time.Sleep(time.Millisecond)
		}
		requests.Wait()
		f := c.forest()
		f.want(`
HTTP connection_setup example.com:80 -> a
	DNS lookup example.com
	socket connect 20.1.2.3:80
a reused=false -> HTTP connection_setup example.com:80
	HTTP wait_for_connection example.com:80
b reused=true -> HTTP connection_setup example.com:80
	HTTP wait_for_connection example.com:80
`)
		b := f.named("b")
		wait := f.below(b.SpanContext().SpanID())[0]
		if took := wait.EndTime().Sub(wait.StartTime()); took != works-time.Millisecond || wait.StartTime() != b.StartTime() {
			t.Errorf("the wait is drawn from %v after the request on, for %v", wait.StartTime().Sub(b.StartTime()), took)
		}
	})
}

func TestARequestWithoutAPortInTimeHasAnErrorInItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 1)
		conn, err := c.dialer.DialContext(c.Context(), "tcp", lines)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, client := c.web()
		c.traced("in vain", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if err := get(ctx, client, "http://lines.example.com:7000/"); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("there is no port, and the error is %v", err)
			}
			return nil
		})
		c.forest().want(`
connection_setup 20.1.2.6:7000
	socket connect 20.1.2.6:7000
in vain
	HTTP wait_for_connection lines.example.com:7000 error=natwise.budget_exhausted
`)
	})
}

func TestARequestThatMetADeadConnectionSaysThatItWasSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		tr, client := c.web()
		c.must(get(c.Context(), client, "https://example.com:8443/"))
		var once sync.Once
		c.handle = func(http.ResponseWriter, *http.Request) { once.Do(func() { panic(http.ErrAbortHandler) }) }
		c.traced("replayed", func(ctx context.Context) error { return get(ctx, client, "https://example.com:8443/") })
		c.forest().want(`
HTTP connection_setup example.com:8443
	DNS lookup example.com
	socket connect 20.1.2.3:8443
	TLS client handshake example.com
HTTP connection_setup example.com:8443 -> replayed
	DNS lookup example.com
	socket connect 20.1.2.3:8443
	TLS client handshake example.com
replayed reused=false natwise.replayed(connection_closed) -> HTTP connection_setup example.com:8443 -> HTTP connection_setup example.com:8443
	HTTP wait_for_connection example.com:8443
`)
		tr.CloseIdleConnections()
	})
}

func TestADialThatFailsHasAnErrorWhereItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		_, client := c.web()
		failing := func(do func(ctx context.Context) error) func(ctx context.Context) error {
			return func(ctx context.Context) error {
				if do(ctx) == nil {
					return errors.New("it has not failed")
				}
				return nil
			}
		}
		c.traced("refused", failing(func(ctx context.Context) error { return get(ctx, client, "http://nowhere.example.com:9/") }))
		time.Sleep(time.Minute)
		c.traced("no name", failing(func(ctx context.Context) error { return get(ctx, client, "http://unknown.example.com/") }))
		time.Sleep(time.Minute)
		c.traced("no TLS", failing(func(ctx context.Context) error { return get(ctx, client, "https://example.com:80/") }))
		time.Sleep(time.Minute)
		c.traced("dialed", failing(func(ctx context.Context) error {
			_, err := c.dialer.DialContext(ctx, "tcp", "nowhere.example.com:9")
			return err
		}))
		c.forest().want(`
HTTP connection_setup nowhere.example.com:9 error=connection_refused -> refused
	DNS lookup nowhere.example.com
	socket connect 20.1.2.7:9 error=connection_refused
refused
	HTTP wait_for_connection nowhere.example.com:9 error=connection_refused
HTTP connection_setup unknown.example.com:80 error=name_resolution -> no name
	DNS lookup unknown.example.com error=name_resolution
no name
	HTTP wait_for_connection unknown.example.com:80 error=name_resolution
HTTP connection_setup example.com:80 error=tls -> no TLS
	DNS lookup example.com
	socket connect 20.1.2.3:80
	TLS client handshake example.com error=tls
no TLS
	HTTP wait_for_connection example.com:80 error=tls
connection_setup nowhere.example.com:9 error=connection_refused -> dialed
	DNS lookup nowhere.example.com
	socket connect 20.1.2.7:9 error=connection_refused
dialed
`)
	})
}

func TestTenThousandRequestsOnOneConnectionAreLinkedToOneSetup(t *testing.T) {
	for _, url := range []string{"http://example.com/", "https://example.com/"} {
		t.Run(url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTown(newLens(t), 4)
				_, client := c.web()
				for range 10_000 {
					c.traced("one of many", func(ctx context.Context) error { return get(ctx, client, url) })
				}
				setups, linked := make(map[trace.SpanID]bool), make(map[trace.SpanID]int)
				for _, s := range c.spans.Ended() {
					switch {
					case strings.HasPrefix(s.Name(), "HTTP connection_setup"):
						setups[s.SpanContext().SpanID()] = true
					case s.Name() == "one of many":
						for _, link := range s.Links() {
							linked[link.SpanContext.SpanID()]++
						}
					}
				}
				if len(setups) != 1 || len(linked) != 1 {
					t.Fatalf("%d setups, and links to %d spans", len(setups), len(linked))
				}
				for id, times := range linked {
					if !setups[id] || times != 10_000 {
						t.Errorf("%d links to %v, want 10,000 to the setup", times, id)
					}
				}
			})
		})
	}
}

func TestAnOperationOnADatabaseThatWaitsHasASpanOfThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		d := &sqlx.Dialer{Dialer: c.dialer}
		db := sqlx.OpenDB(toy{d.DialContext, "lines.example.com:7000"}, sqlx.Config{Name: "orders", Dialer: d, Max: 1})
		defer db.Close()
		var all sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			all.Go(func() {
				c.traced(name, func(ctx context.Context) error {
					_, err := db.ExecContext(ctx, works.String())
					return err
				})
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		f := c.forest()
		f.want(`
DB connection_setup orders -> a
	DNS lookup lines.example.com
	socket connect 20.1.2.6:7000
a reused=false -> DB connection_setup orders
	DB wait_for_connection orders
b reused=true -> DB connection_setup orders
	DB wait_for_connection orders
`)
		for _, s := range f.spans {
			if name := byKey(s.Attributes())["db.client.connection.pool.name"]; strings.HasPrefix(s.Name(), "DB ") && name != "orders" {
				t.Errorf("%s is of the pool %q", s.Name(), name)
			}
		}
	})
}

func TestADatabaseWithoutANameIsCalledAfterItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		d := &sqlx.Dialer{Dialer: c.dialer}
		db := sqlx.OpenDB(toy{d.DialContext, "lines.example.com:7000"}, sqlx.Config{Dialer: d})
		defer db.Close()
		c.traced("ping", db.PingContext)
		c.forest().want(`
DB connection_setup lines.example.com:7000 -> ping
	DNS lookup lines.example.com
	socket connect 20.1.2.6:7000
ping reused=false -> DB connection_setup lines.example.com:7000
	DB wait_for_connection lines.example.com:7000
`)
		c.read().want(1, "db.client.connection.count", "db.client.connection.pool.name=lines.example.com:7000")
	})
}

func TestARawConnectionIsFollowedAsAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 4)
		p := c.conns(conns.Config{})
		use := func(ctx context.Context) error {
			return p.Do(ctx, "tcp", "lines.example.com:7000", func(ctx context.Context, c *conns.Conn) error { return say(ctx, c, "hello") })
		}
		c.traced("first", use)
		time.Sleep(time.Second)
		c.traced("second", use)
		c.forest().want(`
connection_setup lines.example.com:7000 -> first
	DNS lookup lines.example.com
	socket connect 20.1.2.6:7000
first reused=false -> connection_setup lines.example.com:7000
	wait_for_connection lines.example.com:7000
second reused=true -> connection_setup lines.example.com:7000
`)
		if idle := byKey(c.forest().named("second").Attributes())["natwise.connection.idle"]; idle != "1" {
			t.Errorf("it was idle for 1 s, and the span says %q", idle)
		}
	})
}

func TestAWaitOfWhichNobodyKnowsThePositionSaysNone(t *testing.T) {
	l := newLens(t)
	s := l.holding(func() telemetry.Snapshot { return telemetry.Snapshot{} })
	ctx, span := l.ask(t.Context(), "caller")
	s.Wait(ctx, "", lines, -1, time.Second, nil)
	span.End()
	if position, there := byKey(l.forest().named("wait_for_connection " + lines).Attributes())["natwise.wait.position"]; there {
		t.Errorf("it says %s", position)
	}
}

// Whoever does not sample the requests pays for no spans but those of connections.
func TestWithoutASpanThatIsRecordedThereAreSetupsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLens(t)
		never := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("the caller")
		c := newTown(l, 1)
		c.handle = func(http.ResponseWriter, *http.Request) { time.Sleep(works) }
		_, client := c.web()
		var requests sync.WaitGroup
		for range 3 {
			requests.Go(func() {
				ctx, span := never.Start(c.Context(), "not sampled")
				defer span.End()
				c.must(get(ctx, client, "http://example.com/"))
			})
		}
		requests.Wait()
		for _, s := range c.spans.Ended() {
			root := s
			for root.Parent().IsValid() {
				root = c.forest().find(root.Parent().SpanID())
			}
			if root.Name() != "HTTP connection_setup example.com:80" {
				t.Errorf("there is a span %s", s.Name())
			}
		}
		if len(c.spans.Ended()) != 3 { // with its look-up and its connect
			t.Errorf("there are %d spans:\n%v", len(c.spans.Ended()), c.forest())
		}
	})
}

package main

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"
)

func TestAnEndingReachesTheNATAsWhatItIs(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*net.TCPConn)
		most time.Duration
	}{
		"FIN": {func(c *net.TCPConn) { c.Close() }, 240 * time.Second},
		"RST": {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			g := opened(t, 2)
			c.end(dialed(t, g))
			for g.nat.Stats().Live > 0 {
				runtime.Gosched()
			}
			flows := g.nat.Flows()
			if len(flows) != 1 || !flows[0].Closing {
				t.Fatalf("the NAT holds %+v", flows)
			}
			if until := time.Until(flows[0].Until); until > c.most || until < c.most/2 {
				t.Errorf("it holds the port for %v, want %v", until, c.most)
			}
		})
	}
}

func TestAServersAnswerComesThrough(t *testing.T) {
	g := opened(t, 1)
	c := dialed(t, g)
	if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("HTTP/1.0 200 OK"))
	if _, err := c.Read(got); err != nil || string(got) != "HTTP/1.0 200 OK" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestADialBehindAFullNATLastsAsLongAsItsContext(t *testing.T) {
	g := opened(t, 1)
	dialed(t, g)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	ended := make(chan error)
	go func() {
		_, err := through(addrOf(g.door))(ctx, "tcp", g.dest.String())
		ended <- err
	}()
	for g.nat.Stats().RefusedSYNs == 0 {
		runtime.Gosched()
	}
	cancel(enough)
	if err := <-ended; !errors.Is(err, enough) {
		t.Errorf("the dial ended with %v", err)
	}
	if s := g.nat.Stats(); s.Opened != 1 || s.Held != 1 {
		t.Errorf("the NAT counted %+v", s.Counts)
	}
}

// opened is a gateway with timers as they are.
func opened(t *testing.T, ports int) *gateway {
	t.Helper()
	g, err := openGateway(natPath(ports, 1), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

// dialed is a process's connection through the gateway.
func dialed(t *testing.T, g *gateway) *net.TCPConn {
	t.Helper()
	c, err := through(addrOf(g.door))(t.Context(), "tcp", g.dest.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

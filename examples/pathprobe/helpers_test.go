package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive/netpath"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

// A text is a buffer that may be written by several goroutines.
type text struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (w *text) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// A place is a world with the command's own server in it.
type place struct {
	world
	*testing.T
	out, errs text
}

// withServer starts the command as a server on an address, with more flags, until
// the test ends.
func withServer(t *testing.T, w world, address string, flags ...string) *place {
	t.Helper()
	p := &place{world: w, T: t}
	p.world.out, p.world.errs = &p.out, &p.errs
	listening := make(chan error, 1)
	server := p.world
	server.errs = new(text)
	server.listen = func(ctx context.Context, address string) (net.Listener, error) {
		ln, err := w.listen(ctx, address)
		listening <- err
		return ln, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int)
	go func() { ended <- run(ctx, append([]string{"-serve", address}, flags...), server) }()
	if err := <-listening; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if status := <-ended; status != 0 {
			t.Errorf("the server ended with status %d", status)
		}
	})
	return p
}

// inMemory is a server behind a NAT, for virtual time.
func inMemory(t *testing.T, path netpath.Profile, flags ...string) (*place, *fauxnat.NAT) {
	var network memnet.Network
	nat := &fauxnat.NAT{Path: path, Dial: network.DialContext}
	w := world{
		dial:   nat.DialContext,
		listen: func(_ context.Context, address string) (net.Listener, error) { return network.Listen(address) },
	}
	return withServer(t, w, "20.1.2.3:9000", flags...), nat
}

// inLab is a server behind a NAT of the kernel's, which has so many ports.
func inLab(t *testing.T, path netpath.Profile, ports int) (p *place, target string) {
	t.Helper()
	lab := natlab.Need(t, natlab.Config{Path: path, Room: ports})
	w := world{
		dial:   lab.Dial,
		listen: func(_ context.Context, address string) (net.Listener, error) { return lab.Listen(address) },
	}
	return withServer(t, w, ":9000"), netip.AddrPortFrom(lab.Server(0), 9000).String()
}

// onLoopback is a server with nothing between.
func onLoopback(t *testing.T, listen func(ctx context.Context, address string) (net.Listener, error), flags ...string) (p *place, target string) {
	t.Helper()
	var at net.Addr
	w := world{
		dial: (&net.Dialer{KeepAlive: -1}).DialContext,
		listen: func(ctx context.Context, address string) (net.Listener, error) {
			ln, err := listen(ctx, address)
			if err == nil {
				at = ln.Addr()
			}
			return ln, err
		},
	}
	p = withServer(t, w, "127.0.0.1:0", flags...)
	return p, at.String()
}

// measure runs the command with -json and returns its results by name.
func (p *place) measure(ctx context.Context, wantStatus int, args ...string) map[string]result {
	p.Helper()
	if status := run(ctx, append([]string{"-json"}, args...), p.world); status != wantStatus {
		p.Errorf("status %d, want %d", status, wantStatus)
	}
	results := make(map[string]result)
	for line := range strings.Lines(p.out.String()) {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			p.Fatal(err)
		}
		results[r.Scenario] = r
	}
	if p.Failed() {
		p.Logf("%s", &p.errs)
	}
	return results
}

// wantBracket wants seconds around a time. What is late is found later than it
// was.
func wantBracket(t *testing.T, r result, want, early, late time.Duration) {
	t.Helper()
	if r.Status != statusOK || r.AtMost == nil {
		t.Fatalf("got %+v, want %v", r, want)
	}
	least := time.Duration(0)
	if r.AtLeast != nil {
		least = inSeconds(*r.AtLeast)
	}
	if most := inSeconds(*r.AtMost); least > want+late || most < want-early {
		t.Errorf("%s is within %v and %v, want %v", r.Scenario, least, most, want)
	}
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// wantNarrow wants a bracket of a tenth.
func wantNarrow(t *testing.T, r result) {
	t.Helper()
	if r.AtLeast == nil || r.AtMost == nil || *r.AtLeast < 0.9**r.AtMost {
		t.Errorf("the bracket is too wide: %+v", r)
	}
}

package httpx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	yardPorts = 18 // of which one or two are kept for newcomers
	yardWork  = 20 * time.Millisecond
)

// A yard is a Transport behind the kernel's NAT, which drops the SYN of every flow
// beyond its ports, and a server that counts what its connections carry.
type yard struct {
	*testing.T
	*natlab.Lab
	wire
	tr *httpx.Transport

	mu      sync.Mutex // guards carried
	carried []*atomic.Int64
	most    atomic.Int64 // flows in the gateway's table at a time
}

// newYard has the server do with each connection what serve says; nil: what net/http
// does.
func newYard(t *testing.T, w wire, serve func(p *speaker)) *yard {
	path := netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: yardPorts}},
		Idle:   time.Minute,
		Hold:   netpath.Hold{FIN: time.Second, RST: time.Second, SYN: 5 * time.Second, Idle: netpath.None},
	}
	y := &yard{T: t, wire: w, Lab: natlab.Need(t, natlab.Config{Path: path})}
	ln, err := y.Listen(":443")
	if err != nil {
		t.Fatal(err)
	}
	if serve == nil {
		y.serveHTTP(ln)
	} else {
		y.serveRaw(ln, serve)
	}
	// The kernel collects what has expired up to 1.4 s late, and refuses until then.
	path.Hold.FIN, path.Hold.RST = 3*time.Second, 3*time.Second
	y.tr = &httpx.Transport{
		Dialer:    &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}, Dial: y.Dial, Resolver: toServer{y.Server(0)}},
		Proxy:     httpx.NoProxy,
		TLS:       &tls.Config{InsecureSkipVerify: true},
		Protocols: new(http.Protocols),
	}
	y.tr.Protocols.SetHTTP1(!w.two)
	y.tr.Protocols.SetHTTP2(w.two)
	return y
}

// toServer is a resolver for which all names are the server's.
type toServer struct{ addr netip.Addr }

func (s toServer) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{s.addr}, nil
}

type carriedKey struct{}

// accepted counts a connection, and returns what counts its requests.
func (y *yard) accepted() *atomic.Int64 {
	n := new(atomic.Int64)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.carried = append(y.carried, n)
	return n
}

func (y *yard) serveHTTP(ln net.Listener) {
	srv := &http.Server{
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, carriedKey{}, y.accepted())
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Context().Value(carriedKey{}).(*atomic.Int64).Add(1)
			io.Copy(io.Discard, r.Body)
			select {
			case <-time.After(yardWork):
			case <-r.Context().Done():
			}
			io.WriteString(w, "answer to "+r.Header.Get("Id"))
		}),
		Protocols: new(http.Protocols),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{brokenCertificate()}},
	}
	srv.Protocols.SetHTTP1(!y.two)
	srv.Protocols.SetHTTP2(y.two)
	var over sync.WaitGroup
	over.Go(func() {
		if y.secure {
			srv.ServeTLS(ln, "", "")
		} else {
			srv.Serve(ln)
		}
	})
	y.Cleanup(func() {
		srv.Close()
		over.Wait()
	})
}

func (y *yard) serveRaw(ln net.Listener, serve func(p *speaker)) {
	b := &broken{T: y.T, wire: y.wire, ran: make(map[string]int)}
	var over sync.WaitGroup
	over.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			y.Cleanup(func() { c.Close() })
			n := y.accepted()
			over.Go(func() { serve(&speaker{Conn: c, lab: b, carried: n}) })
		}
	})
	y.Cleanup(over.Wait)
	y.Cleanup(func() { ln.Close() })
}

// watch samples the gateway's table until stop is called.
func (y *yard) watch() (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		var flows []natlab.Flow
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			flows, _ = y.Flows(flows[:0])
			y.most.Store(max(y.most.Load(), int64(len(flows))))
		}
	})
	return func() {
		close(over)
		wg.Wait()
	}
}

func (y *yard) url(host string) string {
	if y.secure {
		return "https://" + host + ":443/"
	}
	return "http://" + host + ":443/"
}

// ask sends a request and wants its own answer. The body of a POST is in memory.
func (y *yard) ask(ctx context.Context, method, host string) error {
	id := fmt.Sprintf("%x", rand.Uint64())
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(id)
	}
	req, err := http.NewRequestWithContext(ctx, method, y.url(host), body)
	if err != nil {
		return err
	}
	req.Header.Set("Id", id)
	resp, err := y.tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && string(got) != "answer to "+id {
		err = fmt.Errorf("got %q, want %q", got, id)
	}
	return err
}

// herd calls f n times at once.
func (y *yard) herd(n int, f func(i int) error) {
	y.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				y.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// allCarried reports how many connections there were, and wants each to have carried a
// request.
func (y *yard) allCarried() (dials int) {
	y.Helper()
	y.mu.Lock()
	defer y.mu.Unlock()
	for i, n := range y.carried {
		if n.Load() == 0 {
			y.Errorf("connection %d of %d has never carried a request", i+1, len(y.carried))
		}
	}
	return len(y.carried)
}

// over closes the Transport, and wants the gateway to have refused nothing and to have
// had no more flows than ports.
func (y *yard) over() {
	y.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := y.tr.Close(ctx); err != nil {
		y.Errorf("Close: %v", err)
	}
	counts, err := y.Counts()
	if err != nil {
		y.Fatal(err)
	}
	if counts.Refused > 0 || counts.Admitted == 0 || y.most.Load() > yardPorts {
		y.Errorf("the gateway admitted %d SYNs and refused %d, with %d flows at most", counts.Admitted, counts.Refused, y.most.Load())
	}
	for _, a := range y.tr.Dialer.Ledger.Accounts() {
		if a.Asked+a.Dialing+a.Active+a.Idle+a.Waiting > 0 {
			y.Errorf("left behind: %v", a)
		}
	}
}

// inYard runs f for HTTP/1.1, and for HTTP/2 over TLS, with its gateway watched. No
// goroutine may be left.
func inYard(t *testing.T, f func(y *yard)) {
	for _, w := range []wire{plain1, secure2} {
		t.Run(w.name, func(t *testing.T) {
			y := newYard(t, w, nil)
			before := runtime.NumGoroutine()
			stop := y.watch()
			f(y)
			stop()
			y.over()
			// Those of the server's are on their way out too.
			if stacks := leak.Beyond(before); stacks != "" {
				t.Errorf("goroutines left behind:\n%s", stacks)
			}
		})
	}
}

// limit is how many connections a herd may need.
func (y *yard) limit() int {
	if y.two {
		return 4
	}
	return yardPorts - 1
}

func TestInTheKernelAHerdNeedsNoMoreConnectionsThanThereArePorts(t *testing.T) {
	inYard(t, func(y *yard) {
		start := time.Now()
		y.herd(500, func(int) error { return y.ask(y.Context(), http.MethodPost, "a.example") })
		n := y.allCarried()
		y.Logf("%d dials, %v", n, time.Since(start))
		if n > y.limit() {
			y.Errorf("%d dials", n)
		}
	})
}

func TestInTheKernelDeadlinesCostNoPorts(t *testing.T) {
	inYard(t, func(y *yard) {
		var served atomic.Int64
		y.herd(500, func(int) error {
			ctx, cancel := context.WithTimeout(y.Context(), 30*time.Millisecond)
			defer cancel()
			err := y.ask(ctx, http.MethodGet, "a.example")
			if err == nil {
				served.Add(1)
			} else if errors.Is(err, context.DeadlineExceeded) {
				err = nil
			}
			return err
		})
		y.herd(500, func(int) error { return y.ask(y.Context(), http.MethodGet, "a.example") })
		n := len(y.carried) // some of them finished for nobody
		y.Logf("%d of 500 within 30 ms, %d dials", served.Load(), n)
		if n > yardPorts {
			y.Errorf("%d dials", n)
		}
	})
}

func TestInTheKernelRequestsThatAreCalledOffCostNoPorts(t *testing.T) {
	inYard(t, func(y *yard) {
		y.herd(500, func(i int) error {
			ctx, cancel := context.WithCancel(y.Context())
			defer cancel()
			if i%2 == 0 {
				defer time.AfterFunc(rand.N(200*time.Millisecond), cancel).Stop()
			}
			err := y.ask(ctx, http.MethodGet, "a.example")
			if i%2 == 0 && errors.Is(err, context.Canceled) {
				err = nil
			}
			return err
		})
		// A dial that was on its way when its requests were called off is finished, and
		// idle until somebody needs it.
		y.herd(2000, func(int) error { return y.ask(y.Context(), http.MethodGet, "a.example") })
		y.Logf("%d dials", len(y.carried))
	})
}

func TestInTheKernelTheSecondNameOfAnAddressIsServedAtOnce(t *testing.T) {
	inYard(t, func(y *yard) {
		y.herd(200, func(int) error { return y.ask(y.Context(), http.MethodGet, "a.example") })
		start := time.Now()
		err := y.ask(y.Context(), http.MethodGet, "b.example")
		took := time.Since(start)
		y.Logf("served after %v", took)
		if err != nil || took > 500*time.Millisecond {
			y.Errorf("after %v: %v", took, err)
		}
	})
}

// A server that ends its connections makes each of them cost a port for a hold.
func TestInTheKernelAServerThatEndsItsConnectionsIsNotDialedBeyondThePorts(t *testing.T) {
	const herd = 80
	close1 := func(header string) func(*speaker) {
		return func(p *speaker) {
			p.http1(func(p *speaker, k int, req *http.Request, id string) bool {
				p.carried.Add(1)
				a := strings.Replace(good1(1, req, id), "\r\n", "\r\n"+header, 1)
				io.WriteString(p, a)
				return p.end(fin)
			})
		}
	}
	goAway := func(p *speaker) {
		p, err := p.secured()
		if err != nil {
			return
		}
		p.http2(script{turn: func(q *speaker2, k int, stream uint32, id string) bool {
			if k > 10 {
				return true // GOAWAY has refused it
			}
			q.carried.Add(1)
			a := good2(1, stream, id)
			if k == 10 {
				a += frame(fGoAway, 0, 0, u32(stream, 0))
			}
			_, err := io.WriteString(q, a)
			return err == nil
		}})
	}
	for name, c := range map[string]struct {
		wire
		serve func(*speaker)
		herd  int
	}{
		"Connection: close":      {plain1, close1("Connection: close\r\n"), herd},
		"FIN without a word":     {plain1, close1(""), herd},
		"GOAWAY each 10 streams": {secure2, goAway, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t, c.wire, c.serve)
			stop := y.watch()
			start := time.Now()
			y.herd(c.herd, func(int) error { return y.ask(y.Context(), http.MethodGet, "a.example") })
			stop()
			y.Logf("%d dials for %d requests, %v, %d flows at most", len(y.carried), c.herd, time.Since(start), y.most.Load())
			y.over()
		})
	}
}

// The same in virtual time, where the bound can be tight.
func TestTheSecondNameOfAnAddressIsServedOutOfTheReserve(t *testing.T) {
	inLab(t, yardPorts, func(t *testing.T, lab *lab) {
		lab.server.Start()
		tr := &httpx.Transport{Dialer: lab.dialer(), Proxy: httpx.NoProxy}
		defer tr.Close(t.Context())
		c := &http.Client{Transport: tr}
		lab.herd(200, func(int) error { return lab.post(c, "http://a.example") })
		start := time.Now()
		err := lab.post(c, "http://b.example")
		if took := time.Since(start); err != nil || took > 100*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

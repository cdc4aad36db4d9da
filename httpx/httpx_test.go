package httpx_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A lab is an HTTP server in virtual time behind a NAT with few ports.
type lab struct {
	*testing.T
	net    memnet.Network
	nat    *fauxnat.NAT
	ledger *dialer.Ledger
	server *httptest.Server
	served atomic.Int64
}

const address = "20.1.2.3:80" // public: not exempt

func inLab(t *testing.T, ports int, f func(t *testing.T, lab *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		path := netpath.AzureLoadBalancer(ports)
		l := &lab{T: t}
		l.nat = &fauxnat.NAT{Path: path, Dial: l.net.DialContext}
		l.ledger = &dialer.Ledger{Path: path, Ramp: -1}
		ln, err := l.net.Listen(address)
		require.NoError(t, err)
		l.server = httptest.NewUnstartedServer(http.HandlerFunc(l.handle))
		l.server.Listener.Close()
		l.server.Listener = ln
		f(t, l)
		time.Sleep(time.Hour) // every idle connection ends, every hold is over
		synctest.Wait()
		for _, a := range l.ledger.Accounts() {
			t.Errorf("left behind: %v", a)
		}
		if s := l.nat.Stats(); s.Opened == 0 || s.RefusedSYNs != 0 {
			t.Errorf("%d flows booked by the NAT, %d SYNs refused", s.Opened, s.RefusedSYNs)
		}
		l.server.Close()
	})
}

// handle takes 20 ms and echoes what it got.
func (l *lab) handle(w http.ResponseWriter, r *http.Request) {
	l.served.Add(1)
	body, _ := io.ReadAll(r.Body)
	select {
	case <-time.After(20 * time.Millisecond):
	case <-r.Context().Done():
	}
	w.Write(body)
}

func (l *lab) dialer() *dialer.Dialer {
	return &dialer.Dialer{Ledger: l.ledger, Dial: l.nat.DialContext, Resolver: everyName{}}
}

// everyName has the server's address.
type everyName struct{}

func (everyName) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("20.1.2.3")}, nil
}

func (l *lab) post(c *http.Client, url string) error {
	resp, err := c.Post(url, "text/plain", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		err = fmt.Errorf("got %q", body)
	}
	return err
}

// herd sends n requests at once and reports those that failed.
func (l *lab) herd(n int, send func(i int) error) {
	l.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := send(i); err != nil {
				l.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestAHerdNeedsNoMoreFlowsThanThereArePorts(t *testing.T) {
	inLab(t, 16, func(t *testing.T, lab *lab) {
		lab.server.Start()
		c := httpx.NewClient(lab.dialer())
		lab.herd(500, func(int) error { return lab.post(c, "http://20.1.2.3") })
		if s := lab.nat.Stats(); s.Opened > 16 {
			t.Errorf("%d flows for 500 requests", s.Opened)
		}
		synctest.Wait()
		for _, a := range lab.ledger.Accounts() {
			if a.Waiting > 0 || a.Dialing > 0 || a.Asked > 0 {
				t.Errorf("dials go on that nobody needs: %v", a)
			}
			if a.Idle != a.Taken() {
				t.Errorf("not all are parked: %v", a)
			}
		}
	})
}

func TestInstallAloneNeedsNoMoreFlowsEither(t *testing.T) {
	inLab(t, 16, func(t *testing.T, lab *lab) {
		lab.server.Start()
		tr := new(http.Transport)
		require.NoError(t, httpx.Install(tr, lab.dialer()))
		lab.herd(500, func(int) error { return lab.post(&http.Client{Transport: tr}, "http://20.1.2.3") })
		if s := lab.nat.Stats(); s.Opened > 16 {
			t.Errorf("%d flows for 500 requests", s.Opened)
		}
		tr.CloseIdleConnections()
	})
}

func TestIdleConnectionsOfOneClientMakeRoomForAnother(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.server.Start()
		a, b := httpx.NewClient(lab.dialer()), httpx.NewClient(lab.dialer())
		lab.herd(100, func(int) error { return lab.post(a, "http://a.example") })
		start := time.Now()
		lab.herd(100, func(int) error { return lab.post(b, "http://b.example") })
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("the second client took %v beside 19 idle connections", took)
		}
		var reclaimed uint64
		for _, a := range lab.ledger.Accounts() {
			reclaimed += a.Reclaimed
		}
		if reclaimed == 0 {
			t.Error("no idle connection was given up")
		}
		lab.herd(100, func(int) error { return lab.post(a, "http://a.example") })
	})
}

func TestClientsThatTakeTurnsFailNothing(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.server.Start()
		var cs []*http.Client
		for range 30 {
			// Whoever comes first may take all ports, and the last get theirs when two holds of
			// 15 s are over.
			cs = append(cs, &http.Client{Transport: &httpx.Transport{Dialer: lab.dialer(), MaxWait: time.Minute}})
		}
		lab.herd(3000, func(i int) error { return lab.post(cs[i%30], "http://api.example") })
	})
}

func TestHTTP2SharesOneConnection(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.server.EnableHTTP2 = true
		lab.server.StartTLS()
		tr := &http.Transport{ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, TLSClientConfig: lab.server.Client().Transport.(*http.Transport).TLSClientConfig}
		c := &http.Client{Transport: httpx.Wrap(tr, lab.dialer())}
		url := "https://example.com:80" // the name in httptest's certificate
		if err := lab.post(c, url); err != nil {
			t.Fatal(err)
		}
		lab.herd(100, func(int) error {
			resp, err := c.Get(url)
			if err == nil {
				resp.Body.Close()
				if resp.ProtoMajor != 2 {
					err = fmt.Errorf("got %s", resp.Proto)
				}
			}
			return err
		})
		if s := lab.nat.Stats(); s.Opened != 1 {
			t.Errorf("%d flows for 101 requests", s.Opened)
		}
	})
}

func TestAWaitForAPortEndsWithTheRequest(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.server.Start()
		c := httpx.NewClient(lab.dialer())
		hog, err := lab.dialer().DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://20.1.2.3", nil)
		if _, err := c.Do(req); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		start := time.Now()
		_, err = c.Get("http://20.1.2.3")
		var b *dialer.BudgetError
		if !errors.As(err, &b) || b.Account.Active != 1 {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 31*time.Second {
			t.Errorf("after %v", took)
		}
		hog.Close()
	})
}

func TestAnExchangeCancelledWhileItsAnswerIsDueEndsByReset(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls %v", secure), func(t *testing.T) {
			arrived, release := make(chan struct{}), make(chan struct{})
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				close(arrived)
				<-release
			}))
			if srv.Start(); secure {
				srv.Close()
				srv = httptest.NewUnstartedServer(srv.Config.Handler)
				srv.StartTLS()
			}
			defer srv.Close()
			defer close(release)
			path := netpath.AzureAppService()
			path.Exempt = netpath.NoExempt()
			endings := make(chan keepalive.Ending, 1)
			d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path}, Observe: func(e dialer.Event) {
				if e.Kind == dialer.Ended {
					endings <- e.Ending
				}
			}}
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
			go func() {
				<-arrived
				cancel()
			}()
			if _, err := httpx.Wrap(tr, d).RoundTrip(req); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if e := <-endings; e.How != keepalive.RSTByUs {
				t.Errorf("ended by %v", e.How)
			}
		})
	}
}

func TestInstallKeepsWhatTheTransportSays(t *testing.T) {
	d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: netpath.AzureAppService()}}
	tr := &http.Transport{MaxConnsPerHost: 10, IdleConnTimeout: time.Minute, HTTP2: &http.HTTP2Config{SendPingTimeout: time.Second}}
	require.NoError(t, httpx.Install(tr, d))
	if tr.MaxConnsPerHost != 10 || tr.MaxIdleConnsPerHost != 10 || tr.IdleConnTimeout != time.Minute || tr.HTTP2.SendPingTimeout != time.Second {
		t.Errorf("got %d, %d, %v, %v", tr.MaxConnsPerHost, tr.MaxIdleConnsPerHost, tr.IdleConnTimeout, tr.HTTP2.SendPingTimeout)
	}
	if !tr.ForceAttemptHTTP2 {
		t.Error("HTTP/2 was lost")
	}
}

func TestInstallRetiresInTimeWhereProbesDoNotCount(t *testing.T) {
	d := &dialer.Dialer{Ledger: new(dialer.Ledger), Beyond: []netpath.Profile{netpath.AWSALB()}}
	tr := new(http.Transport)
	require.NoError(t, httpx.Install(tr, d))
	if tr.IdleConnTimeout != 50*time.Second {
		t.Errorf("idle for %v behind a load balancer of 60 s", tr.IdleConnTimeout)
	}
}

func TestInstallSaysWhatItCannotDo(t *testing.T) {
	own := func(context.Context, string, string) (net.Conn, error) { return nil, nil }
	bad := &dialer.Dialer{Ledger: &dialer.Ledger{Path: netpath.Profile{Name: "mine", Sharers: -1}}}
	for _, c := range []struct {
		tr   *http.Transport
		d    *dialer.Dialer
		want string
	}{
		{nil, nil, "nil *http.Transport"},
		{&http.Transport{DialTLSContext: own}, nil, "DialTLSContext"},
		{new(http.Transport), bad, `"mine": Sharers is -1`},
	} {
		err := httpx.Install(c.tr, c.d)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
		body := &closed{Reader: bytes.NewReader(nil)}
		req, _ := http.NewRequest("POST", "http://20.1.2.3", body)
		if _, again := httpx.Wrap(c.tr, c.d).RoundTrip(req); again == nil || again.Error() != err.Error() {
			t.Errorf("Wrap says %v", again)
		}
		if !body.closed {
			t.Error("the request's body was left open")
		}
	}
}

type closed struct {
	io.Reader
	closed bool
}

func (c *closed) Close() error { c.closed = true; return nil }

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

func TestInstallLeavesIdleLimitsThatSomebodyChose(t *testing.T) {
	tr := &http.Transport{MaxIdleConns: 50, MaxIdleConnsPerHost: 5}
	require.NoError(t, httpx.Install(tr, &dialer.Dialer{Ledger: new(dialer.Ledger)}))
	if tr.MaxIdleConns != 50 || tr.MaxIdleConnsPerHost != 5 {
		t.Errorf("got %d and %d a host", tr.MaxIdleConns, tr.MaxIdleConnsPerHost)
	}
	clone := http.DefaultTransport.(*http.Transport).Clone()
	require.NoError(t, httpx.Install(clone, &dialer.Dialer{Ledger: new(dialer.Ledger)}))
	if clone.MaxIdleConns != 0 || clone.MaxIdleConnsPerHost != 256 {
		t.Errorf("of a clone: %d and %d a host", clone.MaxIdleConns, clone.MaxIdleConnsPerHost)
	}
}

func TestConnectionsAreNotTakenAtOnceWhereAResetCostsNothing(t *testing.T) {
	inLab(t, 20, func(t *testing.T, lab *lab) {
		lab.ledger.Path.Hold.RST = netpath.None
		lab.nat.Path.Hold.RST = netpath.None
		lab.server.Start()
		var cs []*http.Client
		for range 4 {
			cs = append(cs, httpx.NewClient(lab.dialer()))
		}
		lab.herd(1000, func(i int) error {
			// A body that streams: net/http cannot repeat it.
			resp, err := cs[i%4].Post("http://api.example", "text/plain", io.LimitReader(strings.NewReader("hello"), 5))
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			return err
		})
	})
}

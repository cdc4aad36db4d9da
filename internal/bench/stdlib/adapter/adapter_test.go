package adapter

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTheDialFunctionOfATestSeesTheName(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	var dialed []string
	tr := &http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		dialed = append(dialed, address)
		return net.Dial("tcp", srv.Listener.Addr().String())
	}}
	a := natwiseOver(tr)
	defer a.CloseIdleConnections()
	for _, url := range []string{"http://one.example/", "http://two.example:81/", "http://10.0.0.1/", "http://one.example/again"} {
		resp, err := (&http.Client{Transport: a}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if got, want := strings.Join(dialed, " "), "one.example:80 two.example:81 10.0.0.1:80"; got != want {
		t.Errorf("dialed %s, want %s", got, want)
	}
	if got, want := strings.Join(a.IdleConnKeysForTesting(), " "), "|http|10.0.0.1:80 |http|one.example:80 |http|two.example:81"; got != want {
		t.Errorf("idle: %s, want %s", got, want)
	}
}

func TestASettingIsHeardLate(t *testing.T) {
	tr := new(http.Transport)
	a := natwiseOver(tr)
	first := a.transport()
	if a.transport() != first {
		t.Error("another Transport, and nothing has changed")
	}
	tr.MaxConnsPerHost = 3
	tr.IdleConnTimeout = time.Hour
	second := a.transport()
	if second == first || second.MaxConns != 3 || second.MaxIdle != time.Hour {
		t.Errorf("%+v", second)
	}
	if natwiseUnder(a) != tr || natwiseOver(tr) != a {
		t.Error("the adapter and its Transport have lost each other")
	}
}

func TestKeepAlivesCanBeDisabled(t *testing.T) {
	conns := make(map[string]bool)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { conns[r.RemoteAddr] = true }))
	defer srv.Close()
	a := natwiseOver(&http.Transport{DisableKeepAlives: true})
	for range 3 {
		req, _ := http.NewRequest("GET", srv.URL, nil)
		resp, err := a.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Request != req || req.Close {
			t.Error("the test's request is not what the answer is to, or was changed")
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if len(conns) != 3 {
		t.Errorf("%d connections for 3 requests", len(conns))
	}
}

func TestHTTP2IsSpokenWhereHTTPTransportWould(t *testing.T) {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	for i, tr := range []*http.Transport{
		{},
		{DialContext: new(net.Dialer).DialContext},
		{DialContext: new(net.Dialer).DialContext, ForceAttemptHTTP2: true},
		{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}},
		{Protocols: &both, DialContext: new(net.Dialer).DialContext},
	} {
		p := natwiseProtocols(tr)
		tr.Clone() // decides it for tr, as the first request would
		if want := tr.TLSNextProto["h2"] != nil; p.HTTP2() != want || !p.HTTP1() {
			t.Errorf("%d: %v, and for http.Transport HTTP/2 is %v", i, p, want)
		}
	}
}

func TestAHollowConnectionIsFilled(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if natwiseHollow(a) || !natwiseHollow(readOnly{}) {
		t.Error("hollow is what has no net.Conn in it")
	}
	c := natwiseFilled{readOnly{}}
	if c.LocalAddr() == nil || c.SetDeadline(time.Now()) != nil || natwiseDialed(c) != (readOnly{}) {
		t.Error("it is not filled")
	}
}

type readOnly struct{ net.Conn }

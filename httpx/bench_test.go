package httpx_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive/netpath"
)

// BenchmarkTransport sends small requests over loopback, through httpx and through
// net/http beside it. The server of HTTP/1.1 allocates nothing. That of HTTP/2 is
// net/http's own, whose allocations are counted too.
//
//	go test ./httpx -run '^$' -bench Transport/HTTP1/httpx/serial -cpuprofile cpu.out
func BenchmarkTransport(b *testing.B) {
	b.Run("HTTP1", func(b *testing.B) { benchBoth(b, benchServer1(b), nil) })
	b.Run("HTTP2", func(b *testing.B) {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, benchBody)
		}))
		srv.EnableHTTP2 = true
		srv.StartTLS()
		b.Cleanup(srv.Close)
		benchBoth(b, srv.URL, srv.Client().Transport.(*http.Transport).TLSClientConfig)
	})
}

const benchBody = "sixteen letters."

// benchServer1 answers whatever ends with an empty line.
func benchServer1(b *testing.B) (url string) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { benchServe1(c) })
		}
	})
	b.Cleanup(func() {
		ln.Close()
		serving.Wait() // for the clients, which have closed their connections before
	})
	return "http://" + ln.Addr().String()
}

func benchServe1(c net.Conn) {
	defer c.Close()
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(benchBody), benchBody)
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(line) == len("\r\n") {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

// benchBoth measures both transports. That of httpx counts its flows, which it would
// not on loopback otherwise.
func benchBoth(b *testing.B, url string, trust *tls.Config) {
	b.Run("httpx", func(b *testing.B) {
		path := netpath.AzureLoadBalancer(1024)
		path.Exempt = netpath.NoExempt()
		tr := &httpx.Transport{Dialer: &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}}, TLS: trust}
		b.Cleanup(func() {
			if err := tr.Close(context.Background()); err != nil {
				b.Error(err)
			}
		})
		benchEach(b, tr, url)
	})
	b.Run("net-http", func(b *testing.B) {
		tr := &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 512}
		b.Cleanup(tr.CloseIdleConnections)
		benchEach(b, tr, url)
	})
}

// benchEach is one request after the other and many at a time, without and with a
// deadline.
func benchEach(b *testing.B, tr http.RoundTripper, url string) {
	client := &http.Client{Transport: tr}
	for _, limit := range []time.Duration{0, 10 * time.Second} {
		name := ""
		if limit > 0 {
			name = "-deadline"
		}
		send := func() {
			if err := benchSend(client, url, limit); err != nil {
				b.Error(err)
			}
		}
		b.Run("serial"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				send()
			}
		})
		b.Run("parallel"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					send()
				}
			})
		})
	}
}

// benchSend sends a request with that deadline; zero: with none.
func benchSend(client *http.Client, url string, limit time.Duration) error {
	ctx := context.Background()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != int64(len(benchBody)) {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

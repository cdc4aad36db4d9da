package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"

	"github.com/bufbuild/httplb"
	"github.com/go-resty/resty/v2"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/valyala/fasthttp"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive/netpath"
)

// An httpClient is an HTTP client in the contest. It may be used by many goroutines.
type httpClient interface {
	// get sends one request, and reads its answer to the end.
	get(ctx context.Context, url string) error

	close(ctx context.Context) error
}

// An httpEntry is how a client is named and made. Many have another one below them:
// that is a tuned http.Transport then, so that what is compared is what they add.
type httpEntry struct {
	name  string
	http2 bool // it can speak it
	open  func(trust *tls.Config) httpClient
}

var (
	oursHTTP    = httpEntry{"natwise", true, openHTTPX}
	defaultHTTP = httpEntry{"http.Transport", true, openDefault}
	tunedHTTP   = httpEntry{"http.Transport tuned", true, openTuned}
	otherHTTP   = []httpEntry{
		{"fasthttp", false, openFast},
		{"resty", true, openResty},
		{"go-retryablehttp", true, openRetryable},
		{"httplb", true, openHTTPLB},
	}
)

// tunedConns is how many connections a tuned client keeps: more than there are ever
// requests at a time, so that it need not open any.
const tunedConns = 512

// checked returns what is wrong with an answer.
func checked(status, length int, want string) error {
	if status != http.StatusOK || length != len(want) {
		return fmt.Errorf("answered with status %d and %d bytes", status, length)
	}
	return nil
}

// A stdClient is net/http's client on somebody's RoundTripper.
type stdClient struct {
	http.Client
	end func(ctx context.Context) error
}

func (c *stdClient) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	return readAll(resp, answer)
}

// readAll reads an answer to its end, as whoever wants to keep its connection does.
func readAll(resp *http.Response, want string) error {
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return err
	}
	return checked(resp.StatusCode, int(n), want)
}

func (c *stdClient) close(ctx context.Context) error { return c.end(ctx) }

// openHTTPX opens natwise's transport behind a NAT that counts every flow: what it
// costs to know of each is part of the contest.
func openHTTPX(trust *tls.Config) httpClient {
	path := netpath.AzureLoadBalancer(2 * tunedConns)
	path.Exempt = netpath.NoExempt() // or loopback would be
	t := &httpx.Transport{
		Dialer: &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}},
		TLS:    trust,
	}
	return &stdClient{http.Client{Transport: t}, t.Close}
}

// stock returns http.DefaultTransport with another trust.
func stock(trust *tls.Config) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = trust
	return t
}

// tuned returns the same, which keeps as many connections as it needs.
func tuned(trust *tls.Config) *http.Transport {
	t := stock(trust)
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.MaxConnsPerHost = 0, tunedConns, tunedConns
	return t
}

func openDefault(trust *tls.Config) httpClient { return openStd(stock(trust)) }
func openTuned(trust *tls.Config) httpClient   { return openStd(tuned(trust)) }

func openStd(t *http.Transport) httpClient {
	return &stdClient{http.Client{Transport: t}, func(context.Context) error {
		t.CloseIdleConnections()
		return nil
	}}
}

// openHTTPLB has httplb make tuned leaves.
func openHTTPLB(trust *tls.Config) httpClient {
	l := leaves(func(o httplb.TransportConfig) *http.Transport {
		t := tuned(trust)
		t.Proxy, t.DialContext = o.ProxyFunc, o.DialFunc
		return t
	})
	c := httplb.NewClient(httplb.WithTransport("http", l), httplb.WithTransport("https", l))
	return &stdClient{*c.Client, func(context.Context) error { return c.Close() }}
}

// leaves make the transports that httplb sends requests by: its own keep one connection
// each.
type leaves func(httplb.TransportConfig) *http.Transport

func (l leaves) NewRoundTripper(_, _ string, o httplb.TransportConfig) httplb.RoundTripperResult {
	t := l(o)
	return httplb.RoundTripperResult{RoundTripper: t, Close: t.CloseIdleConnections}
}

func openResty(trust *tls.Config) httpClient { return idler{newResty(tuned(trust), answer)} }

func openRetryable(trust *tls.Config) httpClient { return idler{newRetryable(tuned(trust), answer)} }

func openFast(trust *tls.Config) httpClient {
	return idler{fastClient{&fasthttp.Client{TLSConfig: trust, MaxConnsPerHost: tunedConns}, answer}}
}

// An idler needs no more to be closed than its idle connections. fasthttp leaves
// goroutines that look after those now and then, and find none the next time.
type idler struct{ work.Client }

func (c idler) get(ctx context.Context, url string) error { return c.Get(ctx, url) }

func (c idler) close(context.Context) error {
	c.CloseIdleConnections()
	return nil
}

type restyClient struct {
	*resty.Client
	answer string // that it wants
}

func newResty(t *http.Transport, answer string) restyClient {
	return restyClient{resty.NewWithClient(&http.Client{Transport: t}), answer}
}

func (c restyClient) Get(ctx context.Context, url string) error {
	resp, err := c.R().SetContext(ctx).Get(url)
	if err != nil {
		return err
	}
	return checked(resp.StatusCode(), len(resp.Body()), c.answer)
}

func (c restyClient) CloseIdleConnections() { c.GetClient().CloseIdleConnections() }

// A retryableClient is asked by its own kind of request.
type retryableClient struct {
	*retryablehttp.Client
	answer string // that it wants
}

func newRetryable(t *http.Transport, answer string) retryableClient {
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: t}
	c.Logger = nil // it would write a line for each request
	return retryableClient{c, answer}
}

func (c retryableClient) Get(ctx context.Context, url string) error {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	return readAll(resp, c.answer)
}

func (c retryableClient) CloseIdleConnections() { c.HTTPClient.CloseIdleConnections() }

// A fastClient knows deadlines and no contexts.
type fastClient struct {
	*fasthttp.Client
	answer string // that it wants
}

func (c fastClient) Get(ctx context.Context, url string) error {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI(url)
	do := c.Do
	if deadline, ok := ctx.Deadline(); ok {
		do = func(req *fasthttp.Request, resp *fasthttp.Response) error { return c.DoDeadline(req, resp, deadline) }
	}
	if err := do(req, resp); err != nil {
		return err
	}
	return checked(resp.StatusCode(), len(resp.Body()), c.answer)
}

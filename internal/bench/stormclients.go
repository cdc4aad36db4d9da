package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/bufbuild/httplb"
	"github.com/bufbuild/httplb/resolver"
	"github.com/go-resty/resty/v2"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/valyala/fasthttp"

	"github.com/natwise/natwise/internal/natlab/work"
)

// A stormEntry is how a client is named and made for a stage.
type stormEntry struct {
	name string
	open func(*work.Stage) work.Client
}

var stormEntries = []stormEntry{
	{work.Natwise, (*work.Stage).Natwise},
	{"http.Transport tuned", func(st *work.Stage) work.Client { return stormClient(st, work.Limit) }},
	{"http.Transport split", func(st *work.Stage) work.Client {
		return stormClient(st, work.Limit/st.Scenario.Names/st.Scenario.Clients)
	}},
	{"fasthttp", openStormFast},
	{"resty", func(st *work.Stage) work.Client {
		return stormResty{resty.NewWithClient(&http.Client{Transport: stormTransport(st.Dial, work.Limit)})}
	}},
	{"go-retryablehttp", openStormRetryable},
	{"httplb", openStormHTTPLB},
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// stormTransport returns an http.Transport that has so many connections of a host at
// most, and keeps them.
func stormTransport(dial dialFunc, conns int) *http.Transport {
	return &http.Transport{DialContext: dial, MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns}
}

func stormClient(st *work.Stage, conns int) work.Client {
	return work.Std{Client: &http.Client{Transport: stormTransport(st.Dial, conns)}}
}

type stormResty struct{ *resty.Client }

func (c stormResty) Get(ctx context.Context, url string) error {
	resp, err := c.R().SetContext(ctx).Get(url)
	if err != nil {
		return err
	}
	return wantOK(resp.StatusCode())
}

func (c stormResty) CloseIdleConnections() { c.GetClient().CloseIdleConnections() }

func wantOK(code int) error {
	if code != http.StatusOK {
		return fmt.Errorf("answered with status %d", code)
	}
	return nil
}

// A stormRetryable is asked by its own kind of request.
type stormRetryable struct{ *retryablehttp.Client }

func openStormRetryable(st *work.Stage) work.Client {
	c := retryablehttp.NewClient()
	c.HTTPClient = &http.Client{Transport: stormTransport(st.Dial, work.Limit)}
	c.Logger = nil // it would write a line for each request
	return stormRetryable{c}
}

func (c stormRetryable) Get(ctx context.Context, url string) error {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	return work.ReadAll(resp)
}

func (c stormRetryable) CloseIdleConnections() { c.HTTPClient.CloseIdleConnections() }

// A stormFast knows deadlines and no contexts.
type stormFast struct{ *fasthttp.Client }

func openStormFast(st *work.Stage) work.Client {
	return stormFast{&fasthttp.Client{
		MaxConnsPerHost:     work.Limit,
		MaxConnWaitTimeout:  st.Scenario.Deadline, // or it would not wait at all
		MaxIdleConnDuration: work.Path().Idle,
		DialTimeout: func(address string, timeout time.Duration) (net.Conn, error) {
			if timeout == 0 { // the request has waited for a connection first
				timeout = st.Scenario.Deadline
			}
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			return st.Dial(ctx, "tcp", address)
		},
	}}
}

func (c stormFast) Get(ctx context.Context, url string) error {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI(url)
	deadline, _ := ctx.Deadline() // every scenario has one
	if err := c.DoDeadline(req, resp, deadline); err != nil {
		return err
	}
	return wantOK(resp.StatusCode())
}

// openStormHTTPLB has httplb find the origin under every name, and make tuned leaves:
// its own keep one connection each.
func openStormHTTPLB(st *work.Stage) work.Client {
	c := httplb.NewClient(
		httplb.WithNoProxy(), httplb.WithDialer(st.Dial), httplb.WithTransport("http", stormLeaf{}),
		httplb.WithResolver(resolver.NewPollingResolver(stormNames(st.Origin.String()), time.Hour)),
	)
	return stormHTTPLB{work.Std{Client: c.Client}, c}
}

type stormHTTPLB struct {
	work.Std
	lb *httplb.Client
}

// CloseIdleConnections closes all: httplb offers no less.
func (c stormHTTPLB) CloseIdleConnections() { c.lb.Close() }

type stormLeaf struct{}

func (stormLeaf) NewRoundTripper(_, _ string, o httplb.TransportConfig) httplb.RoundTripperResult {
	t := stormTransport(o.DialFunc, work.Limit)
	return httplb.RoundTripperResult{RoundTripper: t, Close: t.CloseIdleConnections}
}

// stormNames is a resolver that finds every name at one address.
type stormNames string

func (n stormNames) ResolveOnce(context.Context, string, string) ([]resolver.Address, time.Duration, error) {
	return []resolver.Address{{HostPort: string(n)}}, 0, nil
}

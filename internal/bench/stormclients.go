package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/bufbuild/httplb"
	"github.com/bufbuild/httplb/resolver"
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
		return newResty(stormTransport(st.Dial, work.Limit), work.Answer)
	}},
	{"go-retryablehttp", func(st *work.Stage) work.Client {
		return newRetryable(stormTransport(st.Dial, work.Limit), work.Answer)
	}},
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

func openStormFast(st *work.Stage) work.Client {
	return fastClient{&fasthttp.Client{
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
	}, work.Answer}
}

// openStormHTTPLB has httplb find the origin under every name, and make tuned leaves.
func openStormHTTPLB(st *work.Stage) work.Client {
	l := leaves(func(o httplb.TransportConfig) *http.Transport { return stormTransport(o.DialFunc, work.Limit) })
	c := httplb.NewClient(
		httplb.WithNoProxy(), httplb.WithDialer(st.Dial), httplb.WithTransport("http", l),
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

// stormNames is a resolver that finds every name at one address.
type stormNames string

func (n stormNames) ResolveOnce(context.Context, string, string) ([]resolver.Address, time.Duration, error) {
	return []resolver.Address{{HostPort: string(n)}}, 0, nil
}

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// work is what every client has to do where ports run out: requests, so many at a
// time, as a program does that fans out. The next wave begins when the last one is
// back.
type work struct {
	requests, concurrency int
	service               time.Duration // the server's time for an answer
	ports                 int           // that the NAT has
}

// patience is how long a client may take for it.
const patience = 20 * time.Second

// exhaustion is a NAT that runs out of ports.
func exhaustion(w work) *scene {
	const scale = 60
	w.concurrency = min(w.concurrency, w.requests)
	path := appService(scale)
	full := netpath.AzureAppService()
	return &scene{
		name: "exhaustion", path: path, through: full.Name, scale: scale,
		clients: []client{leak, standard, ours},
		sites:   []site{{"api"}},
		service: w.service, timeout: w.timeout(), limit: patience,
		total: w.requests,
		play: func(ctx context.Context, l *lane) {
			for sent := 0; sent < w.requests && ctx.Err() == nil; sent += w.concurrency {
				l.wave(ctx, min(w.concurrency, w.requests-sent))
			}
		},
		intro: []note{
			{text: fmt.Sprintf("%s requests, %d at a time, to a server that answers after %s.", terminal.Thousands(w.requests), w.concurrency, span(w.service))},
			{text: fmt.Sprintf("Each client has a NAT with the numbers of Azure App Service: %d ports.", w.ports)},
			{quiet: true, text: fmt.Sprintf("The NAT's timers run %d times as fast here: a port is held %s after a FIN, not %s, and %s after a RST, not %s. "+
				"A request has %s, unscaled.",
				scale, span(path.Hold.FIN), span(full.Hold.FIN), span(path.Hold.RST), span(full.Hold.RST), span(w.timeout()))},
		},
		chart:  portsOverTime,
		table:  []column{answeredColumn, failedColumn, flowsColumn, peakColumn, droppedColumn, p99Column, timeColumn},
		missed: failedNone,
		told:   exhausted,
		advice: appServiceAdvice,
	}
}

const appServiceAdvice = `In your program on App Service:

    dialer.DefaultLedger.Path = netpath.AzureAppService()
    client := httpx.NewClient(nil) // an *http.Client
`

// appService is a NAT that is so many times as fast as Azure App Service's. It counts
// loopback, which a real one never sees.
func appService(scale int) netpath.Profile {
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt()
	return fauxnat.Scale(path, scale)
}

func (w work) waves() int { return (w.requests + w.concurrency - 1) / w.concurrency }

// ideal is how long a wave takes if every port but one is put to use.
func (w work) ideal() time.Duration {
	ports := w.ports - 1
	return time.Duration((w.concurrency+ports-1)/ports) * w.service
}

// timeout is what each request is given: time enough for who wastes no ports.
func (w work) timeout() time.Duration { return max(time.Second, 4*w.ideal()) }

// check refuses what cannot be done within 30 s behind so many ports.
func (w work) check() error {
	switch {
	case w.requests < 1 || w.requests > maxRequests:
		return fmt.Errorf("-requests %d: must be within 1 and %d", w.requests, maxRequests)
	case w.concurrency < 1 || w.concurrency > maxConcurrency:
		return fmt.Errorf("-concurrency %d: must be within 1 and %d", w.concurrency, maxConcurrency)
	case w.service < 0:
		return fmt.Errorf("-service %v: must not be negative", w.service)
	case w.service > patience:
		return fmt.Errorf("-service %v: too long to end within 30 s", w.service)
	}
	w.concurrency = min(w.concurrency, w.requests)
	if least := time.Duration(w.waves()) * w.ideal(); least > patience/2 {
		most := time.Duration(float64(w.service) * float64(patience/2) / float64(least))
		return fmt.Errorf("-service %v: %d requests, %d at a time through %d ports, would take %v at best, too long to end within 30 s; "+
			"at most -service %v, or fewer -requests", w.service, w.requests, w.concurrency, w.ports, least, most.Truncate(time.Millisecond))
	}
	return nil
}

// exhausted says in a sentence or two what the numbers show, and no more.
func exhausted(v verdict) string {
	var lost []string
	var dropped, failed int
	mine := v.ours()
	for _, r := range v.others() {
		dropped += r.RefusedSYN
		failed += r.Failed
		if r.Failed > 0 {
			lost = append(lost, fmt.Sprintf("%s lost %s", r.Name, terminal.Thousands(r.Failed)))
		}
	}
	switch {
	case dropped == 0 && failed == 0:
		return fmt.Sprintf("These sizes do not exhaust %d ports: no SYN was dropped and no request failed, so this run shows no difference. "+
			"Try the defaults, or more at a time.", v.Limit)
	case dropped == 0:
		return fmt.Sprintf("%s, but not for want of ports: no SYN was dropped. Is this machine too busy?", strings.Join(lost, " and "))
	case failed == 0:
		return fmt.Sprintf("The NAT ran out of ports and dropped %s SYNs of the others, but all their requests were answered in time: "+
			"at these sizes exhaustion costs time, not requests. natwise opened %s flows and was never refused.",
			terminal.Thousands(dropped), terminal.Thousands(mine.FlowsOpened))
	}
	return fmt.Sprintf("Of %s requests, %s: the NAT had no port left and dropped %s SYNs. "+
		"natwise did the same work behind such a NAT, on %s connections: none lost, none refused.",
		terminal.Thousands(mine.Requests), strings.Join(lost, " and "), terminal.Thousands(dropped), terminal.Thousands(mine.FlowsOpened))
}

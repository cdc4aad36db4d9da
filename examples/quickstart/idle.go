package main

import (
	"context"
	"fmt"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// visits is what every client has to do where flows are forgotten: a few requests at
// once, now and then.
type visits struct {
	times, atOnce int
	scale         int // zero: 30
}

// The firewall remembers for firewallIdle, and the clients are silent for longer, but
// not for so long that http.DefaultTransport closes what is idle: 90 s.
const (
	firewallIdle = 60 * time.Second
	silence      = 75 * time.Second
	visitTimeout = 30 * time.Second
)

// inspected is Azure App Service with a firewall behind it that looks into what passes,
// so that it counts bytes: a keepalive probe is none.
func inspected() netpath.Profile {
	firewall := netpath.Profile{
		Name:   "inspecting-firewall",
		Source: "supposed, for the quickstart",
		Grade:  netpath.Assumed,
		Idle:   firewallIdle,
		AtIdle: netpath.Drop,
		Hold:   netpath.Hold{FIN: netpath.None, RST: netpath.None, SYN: netpath.None, Idle: netpath.None},
		Counts: netpath.Bytes,
	}
	path := netpath.Chain(netpath.AzureAppService(), firewall)
	path.Exempt = netpath.NoExempt()
	return path
}

// idle is a path that forgets flows and tells nobody.
func idle(w visits) *scene {
	if w.scale == 0 {
		w.scale = 30
	}
	full := inspected()
	path := fauxnat.Scale(full, w.scale)
	fast := func(d time.Duration) time.Duration { return d / time.Duration(w.scale) }
	least := time.Duration(w.times) * fast(silence+visitTimeout)
	return &scene{
		name: "idle", path: path, through: full.Name, scale: w.scale, haste: time.Duration(w.scale),
		clients: []client{leak, standard, ours},
		sites:   []site{{"api"}},
		secure:  true,
		service: 20 * time.Millisecond, timeout: fast(visitTimeout), limit: least + 5*time.Second,
		total: w.times * w.atOnce,
		play: func(ctx context.Context, l *lane) {
			for i := range w.times {
				if i > 0 && !pause(ctx, fast(silence)) {
					return
				}
				l.wave(ctx, w.atOnce)
			}
		},
		intro: []note{
			{text: fmt.Sprintf("%d requests at once, over HTTP/2, then %s of silence; %d times.", w.atOnce, span(silence), w.times)},
			{text: fmt.Sprintf("Each client is on Azure App Service with a firewall behind it, which forgets a flow after %s without a byte and "+
				"tells nobody. Keepalive probes are no bytes to it.", span(firewallIdle))},
			{quiet: true, text: fmt.Sprintf("All timers of silence run %d times as fast here, those of the clients too: %s are %s, a request has %s instead of %s, and "+
				"http.DefaultTransport closes what is idle after %s instead of 90 s.",
				w.scale, span(silence), span(fast(silence)), span(fast(visitTimeout)), span(visitTimeout), span(fast(90*time.Second)))},
		},
		stray:  "forgotten",
		chart:  answersOverTime,
		table:  []column{answeredColumn, failedColumn, flowsColumn, peakColumn, strayColumn("flows", "forgotten"), p99Column, timeColumn},
		missed: func(v verdict, lanes []*lane) []string { return append(failedNone(v, lanes), strayedNone(v)...) },
		told:   forgotten,
		advice: `In your program, say what is between it and the server:

    app := netpath.AzureAppService()
    firewall := netpath.Profile{Idle: time.Minute, Counts: netpath.Bytes}
    dialer.DefaultLedger.Path = netpath.Chain(app, firewall)
    client := httpx.NewClient(nil) // an *http.Client
`,
	}
}

// strayedNone misses if natwise had a connection that the path had forgotten.
func strayedNone(v verdict) (bounds []string) {
	if n := v.ours().Astray; n > 0 {
		bounds = append(bounds, fmt.Sprintf("%s: astray %d, want 0: it kept what the path had forgotten", natwise, n))
	}
	return bounds
}

func forgotten(v verdict) string {
	mine := v.ours()
	text := ""
	for _, r := range v.others() {
		switch {
		case r.Failed > 0 && r.Astray > 0:
			text += fmt.Sprintf("%s wrote into %s that the path had forgotten, again and again: %s of its %s requests got no answer until their deadline. ",
				r.Name, counted(r.Astray, "a connection", "connections"), terminal.Thousands(r.Failed), terminal.Thousands(r.Requests))
		case r.Failed > 0:
			text += fmt.Sprintf("%s lost %s requests, though nothing was forgotten: is this machine too busy? ", r.Name, terminal.Thousands(r.Failed))
		default:
			text += fmt.Sprintf("%s lost none, at the price of %s. ", r.Name, counted(r.FlowsOpened, "one flow", "flows"))
		}
	}
	return text + fmt.Sprintf("natwise ended its connections before the path forgot them, and opened %s: none lost.",
		counted(mine.FlowsOpened, "one", "flows"))
}

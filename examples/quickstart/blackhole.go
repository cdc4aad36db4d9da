package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// load is what every client has to do where flows go dark: requests to each of two
// sites that come when they come, as from users, whether or not others are back. So
// there is always one that is just being written, and not acknowledged in the dark.
type load struct {
	every         time.Duration // to each site; one in five must not be sent twice
	before, after time.Duration // the flows go dark
}

const (
	loadTimeout = 5 * time.Second
	darkBound   = 3.0 // s; what the kernel lab asks for: internal/natlab/liveness
)

// blackhole is a path on which all flows to one destination go dark under load, as when
// a gateway fails over and loses its table. New ones work.
func blackhole(w load) *scene {
	s := &scene{
		name: "blackhole", path: appService(1), through: netpath.AzureAppService().Name, scale: 1,
		clients: []client{standard, ours},
		sites:   []site{{"orders"}, {"users"}},
		secure:  true,
		service: 100 * time.Millisecond, timeout: loadTimeout,
		limit: w.before + w.after + 2*loadTimeout,
		play:  w.play,
		intro: []note{
			{text: fmt.Sprintf("A request every %s to each of two servers, over HTTP/2; one in five is a POST, which must not run twice.", span(w.every))},
			{text: fmt.Sprintf("After %s all flows to orders.example go dark: whatever comes back on them is lost, and nobody is told. New ones work.", span(w.before))},
			{quiet: true, text: fmt.Sprintf("Nothing is scaled: the kernel sends again and again as it always does. A request has %s.", span(loadTimeout))},
		},
		stray: "dark",
		chart: answersOverTime,
		table: []column{answeredColumn, failedColumn, unsafeColumn, strayColumn("went", "dark"), keptColumn("kept"), slowestColumn, p99Column, timeColumn},
		told:  darkened,
		missed: func(v verdict, lanes []*lane) []string {
			return append(strayedAll(v), foundInTime(v, lanes)...)
		},
		advice: `In your program there is nothing to do but to use it:

    client := httpx.NewClient(nil) // an *http.Client
`,
	}
	if runtime.GOOS != "linux" {
		s.unable = errors.New("only a Linux kernel can be made to lose what comes to a socket")
	}
	return s
}

// play sends requests to all sites, and darkens the first one's flows.
func (w load) play(ctx context.Context, l *lane) {
	working, stop := context.WithTimeout(ctx, w.before+w.after)
	defer stop()
	var users sync.WaitGroup
	for site := range l.scene.sites {
		users.Go(func() { w.send(working, func(method string) { users.Go(func() { l.request(ctx, method, site) }) }) })
	}
	if pause(ctx, w.before) {
		if _, err := l.nat.Darken(l.servers.at[0]); err != nil {
			l.skip(fmt.Errorf("this kernel does not lose what comes to a socket: %w", err))
			stop()
		}
	}
	users.Wait()
}

// send has a request sent every so often, until ctx is done.
func (w load) send(ctx context.Context, request func(method string)) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if i%5 == 0 {
			request(post)
			continue
		}
		request(get)
	}
}

// strayedAll misses clients whose flows nothing happened to.
func strayedAll(v verdict) (bounds []string) {
	for _, r := range v.Clients {
		if r.Astray == 0 {
			bounds = append(bounds, fmt.Sprintf("%s: astray 0, want more: nothing happened to it", r.Name))
		}
	}
	return bounds
}

// foundInTime misses if natwise lost what it could have sent again, or kept dark
// connections for too long.
func foundInTime(v verdict, lanes []*lane) (bounds []string) {
	mine := v.ours()
	if lost := mine.Failed - mine.Unsafe; lost > 0 {
		bounds = append(bounds, fmt.Sprintf("%s: failed %d besides %d POSTs, want 0 (the first: %v)", natwise, lost, mine.Unsafe, firstErr(lanes)))
	}
	if mine.AstraySeconds > darkBound {
		bounds = append(bounds, fmt.Sprintf("%s: astray_seconds %v, want at most %v", natwise, mine.AstraySeconds, darkBound))
	}
	return bounds
}

func darkened(v verdict) string {
	mine, peer := v.ours(), v.others()[0]
	text := fmt.Sprintf("%s went on with %s for %.1f s and lost %s of %s requests, each at its deadline. ", peer.Name,
		counted(peer.Astray, "a connection in the dark", "connections in the dark"), peer.AstraySeconds, terminal.Thousands(peer.Failed), terminal.Thousands(peer.Requests))
	if peer.Failed == 0 {
		text = fmt.Sprintf("%s lost nothing this time. ", peer.Name)
	}
	text += fmt.Sprintf("natwise knew after %.1f s, by what its kernel tells and a new connection that worked: it sent the GETs again, the slowest of which took %s, ",
		mine.AstraySeconds, fmt.Sprintf("%.1f s", mine.Slowest/1000))
	if mine.Failed == 0 {
		return text + "and lost none."
	}
	return text + fmt.Sprintf("and reported %s, which nobody may send twice, as lost.", counted(mine.Failed, "one POST", "POSTs"))
}

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// lie is what a middlebox does: it is honest, then it lies on the flows that there are
// for as long as it lasts, and sends a FIN.
type lie struct{ before, lasts, after time.Duration }

const (
	lieTimeout = time.Second
	lieBound   = 1 // requests: the first that is not answered tells
	thinking   = 100 * time.Millisecond
)

// lyingProxy is a middlebox that acknowledges what it throws away.
func lyingProxy(w lie) *scene {
	return &scene{
		name: "lying-proxy", path: appService(1), through: netpath.AzureAppService().Name, scale: 1,
		clients: []client{standard, ours},
		sites:   []site{{"api"}},
		secure:  true,
		service: 20 * time.Millisecond, timeout: lieTimeout,
		limit: w.before + w.lasts + w.after + 2*lieTimeout,
		play:  w.play,
		intro: []note{
			{text: fmt.Sprintf("One request after the other, over HTTP/2, %s apart.", span(thinking))},
			{text: fmt.Sprintf("After %s a middlebox begins to lie on the flows that there are: it acknowledges what it is sent, answers probes, and hands on nothing. "+
				"%s after the first byte that it swallowed it sends a FIN. New flows are not lied to.", span(w.before), span(w.lasts))},
			{quiet: true, text: fmt.Sprintf("Nothing is scaled but the lie, which lasted 19 s where it was seen. A request has %s.", span(lieTimeout))},
		},
		stray: "lied to",
		chart: answersOverTime,
		table: []column{answeredColumn, failedColumn, flowsColumn, strayColumn("lied", "to"), keptColumn("trusted"), p99Column, timeColumn},
		told:  liedTo,
		missed: func(v verdict, lanes []*lane) []string {
			bounds := strayedAll(v)
			if n := v.ours().Failed; n > lieBound {
				bounds = append(bounds, fmt.Sprintf("%s: failed %d, want at most %d (the first: %v)", natwise, n, lieBound, firstErr(lanes)))
			}
			return bounds
		},
		advice: `In your program give requests a deadline; the rest is done:

    client := httpx.NewClient(nil) // an *http.Client
    ctx, cancel := context.WithTimeout(ctx, time.Second)
`,
	}
}

// play sends one request after the other, and has the middlebox begin to lie between two
// of them.
func (w lie) play(ctx context.Context, l *lane) {
	lying := false
	for begun := time.Now(); time.Since(begun) < w.before+w.lasts+w.after; {
		l.request(ctx, get, 0)
		if !lying && time.Since(begun) >= w.before {
			l.nat.Lie(l.servers.at[0], w.lasts)
			lying = true
		}
		if !pause(ctx, thinking) {
			return
		}
	}
}

func liedTo(v verdict) string {
	mine, peer := v.ours(), v.others()[0]
	return fmt.Sprintf("The kernel saw nothing wrong: every byte was acknowledged. %s lost %s in the %.1f s until the FIN. "+
		"natwise lost %s: where an answer was due and nothing came, it gives no further request to that connection, and opened another.",
		peer.Name, counted(peer.Failed, "one request", "requests"), peer.AstraySeconds, counted(mine.Failed, "one", "requests"))
}

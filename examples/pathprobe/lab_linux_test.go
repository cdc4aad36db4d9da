package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// late is how much later a busy machine may see something.
const late = 400 * time.Millisecond

func TestTheMemoryOfAKernelsPath(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		remembers time.Duration
		then      netpath.IdleAction
	}{
		{2 * time.Second, netpath.Drop},
		{3 * time.Second, netpath.ResetNext},
		{5 * time.Second, netpath.Drop},
	} {
		t.Run(fmt.Sprint(test.remembers, test.then), func(t *testing.T) {
			t.Parallel()
			p, target := inLab(t, path(test.remembers, test.then), 200)
			results := p.measure(t.Context(), 0, "-max", "6s", target)
			got := results["idle"]
			wantBracket(t, got, test.remembers, 10*time.Millisecond, 0)
			wantNarrow(t, got)
			if !*got.Certified || got.Then != test.then.String() {
				t.Errorf("got %+v", got)
			}
			t.Logf("%v s to %v s, %d connections, %v s", *got.AtLeast, *got.AtMost, got.Connections, got.Took)
			compile(t, results["profile"].Profile)
		})
	}
}

func TestThePortsAndHoldsOfAKernelsPath(t *testing.T) {
	t.Parallel()
	path := path(time.Minute, netpath.Drop)
	path.Hold = netpath.Hold{FIN: 4 * time.Second, RST: 2 * time.Second, SYN: 3 * time.Second, Idle: netpath.None}
	p, target := inLab(t, path, 8)
	results := p.measure(t.Context(), 0, "-holds", "-yes", "-max", "20s", target)
	if got := results["ports"]; got.Ports != 8 || got.More {
		t.Errorf("got %+v", got)
	}
	const collected = 1500 * time.Millisecond // by when the kernel has noticed
	wantBracket(t, results[holdFIN], path.Hold.FIN, 10*time.Millisecond, late+collected)
	wantBracket(t, results[holdRST], path.Hold.RST, 10*time.Millisecond, late+collected)
	wantBracket(t, results[holdSYN], path.Hold.SYN, 10*time.Millisecond, late+collected)
	for _, kind := range holdKinds {
		got := results[kind]
		t.Logf("%s: %+v", kind, got)
		if got.AtMost != nil && inSeconds(*got.AtMost) > path.Hold.FIN+late+collected {
			t.Errorf("%s: taken for up to %v s", kind, *got.AtMost)
		}
	}
	compile(t, results["profile"].Profile)
}

// A server's own probes keep the path from forgetting.
func TestASilenceIntoWhichSomethingSlipsIsNotCertified(t *testing.T) {
	t.Parallel()
	probing := func(ctx context.Context, address string) (net.Listener, error) {
		cfg := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}}
		return cfg.Listen(ctx, "tcp", address)
	}
	p, target := onLoopback(t, probing)
	results := p.measure(t.Context(), 1, "-max", "2500ms", "-parallel", "8", target)
	got := results["idle"]
	if got.Status != statusMissed || !strings.Contains(got.Why, "segments slipped into the silence") {
		t.Errorf("got %+v", got)
	}
	if got.AtLeast == nil || *got.AtLeast > 2.1 || got.AtMost != nil {
		t.Errorf("beyond the first probe it concluded: %+v", got)
	}
}

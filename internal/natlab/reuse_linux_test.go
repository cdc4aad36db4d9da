package natlab_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive/netpath"
)

func reuse(cfg *natlab.Config) {
	shortMemory(cfg)
	cfg.Reuse = true
}

// idleOut waits until the gateway has forgotten all flows and its kernel has
// collected them.
func (r *room) idleOut() {
	r.t.Helper()
	r.until("idled out", time.Second+late, func() bool { return len(r.flows()) == 0 })
	r.until("collected", 3*time.Second, func() bool { return r.held() == 0 })
}

func TestTheNextFlowThroughAPortMeetsTheSocketOfTheLast(t *testing.T) {
	for name, edit := range map[string]func(*natlab.Config){"reused": reuse, "not reused": shortMemory} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, 1, edit)
			_, stale := r.open()
			r.idleOut()
			client, server := r.open()
			if err := hears(stale, late); errors.Is(err, syscall.ECONNRESET) != (name == "reused") {
				t.Errorf("the old socket hears %v", err)
			}
			if err := passes(client, server); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConnectsHangOnTheSocketsOfFlowsThatIdledOut(t *testing.T) {
	for name, edit := range map[string]func(*natlab.Config){"reused": reuse, "not reused": shortMemory} {
		t.Run(name, func(t *testing.T) {
			const ports, dials = 128, 16
			r := newRoom(t, ports, edit)
			for range ports {
				r.open()
			}
			r.idleOut()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			var hung atomic.Int32
			var wg sync.WaitGroup
			for range dials {
				wg.Go(func() {
					c, err := r.Dial(ctx, "tcp", r.dst.String())
					if err != nil {
						hung.Add(1)
						return
					}
					c.Close()
				})
			}
			wg.Wait()
			t.Logf("%d of %d dials hung for 2 s", hung.Load(), dials)
			if n := hung.Load(); name == "reused" && n < dials/4 || name == "not reused" && n > 0 {
				t.Errorf("%d of %d dials hung for 2 s", n, dials)
			}
			if c := r.counts(); c.Refused > 0 {
				t.Errorf("the gateway counts %+v", c)
			}
		})
	}
}

func TestThereAreAsManyPortNumbersAsPorts(t *testing.T) {
	const ports = 32
	r := newRoom(t, ports, reuse)
	numbers := make(map[int]bool)
	for range ports {
		_, server := r.open()
		numbers[server.RemoteAddr().(*net.TCPAddr).Port] = true
	}
	for n := range numbers {
		if n < 10000 || n >= 10000+ports {
			t.Errorf("number %d", n)
		}
	}
	if len(numbers) != ports {
		t.Errorf("%d numbers", len(numbers))
	}
	if _, err := r.try(r.dst); !isTimeout(err) {
		t.Errorf("one more dial: %v, want silence", err)
	}
}

func TestAPortNumberIsFreeWhenItsPortIs(t *testing.T) {
	endings := map[string]struct {
		end  func(client, server *net.TCPConn)
		hold time.Duration
	}{
		"FIN":  {func(client, server *net.TCPConn) { client.Close(); server.Close() }, 2 * time.Second},
		"half": {func(client, _ *net.TCPConn) { client.CloseWrite() }, 2 * time.Second},
		"RST":  {func(client, _ *net.TCPConn) { client.SetLinger(0); client.Close() }, time.Second},
	}
	for name, how := range endings {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, 1, func(cfg *natlab.Config) { cfg.Reuse = true })
			client, server := r.open()
			start := time.Now()
			how.end(client, server)
			r.free(start, how.hold)
			r.until("collected", 3*time.Second, func() bool { return r.held() == 0 })
			r.open()
		})
	}
}

func TestTrafficKeepsAPortNumber(t *testing.T) {
	r := newRoom(t, 1, func(cfg *natlab.Config) {
		cfg.Path.Idle = 2 * time.Second
		cfg.Reuse = true
	})
	client, server := r.open()
	tick := time.NewTicker(900 * time.Millisecond)
	defer tick.Stop()
	for range 4 {
		<-tick.C
		if err := passes(client, server); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatConntrackForgotIsForgottenByItsAccount(t *testing.T) {
	answers := map[netpath.IdleAction]func(error) bool{
		netpath.Drop:      isTimeout,
		netpath.ResetNext: func(err error) bool { return errors.Is(err, syscall.ECONNRESET) },
	}
	for action, right := range answers {
		for _, end := range []string{"client", "server"} {
			t.Run(end, func(t *testing.T) {
				r := newRoom(t, 1, func(cfg *natlab.Config) {
					reuse(cfg)
					cfg.Path.AtIdle = action
				})
				client, server := r.open()
				r.idleOut()
				from := map[string]net.Conn{"client": client, "server": server}[end]
				if err := passes(from, from); !right(err) {
					t.Errorf("AtIdle %v: the write was answered with %v", action, err)
				}
				if c := r.counts().By[r.dst]; c.Forgotten == 0 {
					t.Errorf("the gateway counts %+v", c)
				}
			})
		}
	}
}

func TestForgetFreesPortNumbersToo(t *testing.T) {
	r := newRoom(t, 1, reuse)
	_, stale := r.open()
	if err := r.Forget(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if err := hears(stale, soon); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the old socket hears %v", err)
	}
}

func TestReuseSaysWhatItCannot(t *testing.T) {
	limit := []netpath.Limit{{Scope: netpath.Destination, N: 128}}
	for word, cfg := range map[string]natlab.Config{
		"1.5s":    {Reuse: true, Path: netpath.Profile{Limits: limit, Idle: 1500 * time.Millisecond}},
		"60000":   {Reuse: true, Path: netpath.Profile{Limits: limit}, Room: 60000},
		"at most": {Reuse: true}, // no limit
	} {
		if l, err := natlab.New(cfg); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%+v: lab %v, error %v", cfg, l, err)
		}
	}
	r := newRoom(t, 1, reuse)
	if _, err := r.Proxy(netip.AddrPortFrom(r.Server(0), 443)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a proxy: %v", err)
	}
}

package natlab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestA129thFlowIsRefusedSilently(t *testing.T) {
	r := newRoom(t, 128, nil)
	for range 128 {
		c, _ := r.open()
		if _, ok := r.flow(c); !ok {
			t.Fatalf("%v is not in the gateway's table", c.LocalAddr())
		}
	}
	if _, err := r.try(r.dst); !isTimeout(err) {
		t.Errorf("the 129th dial: %v, want silence", err)
	}
	if c := r.counts().By[r.dst]; c.Admitted != 128 || c.Refused == 0 {
		t.Errorf("the gateway counts %+v", c)
	}
	if held := r.held(); held != 128 {
		t.Errorf("%d ports are held", held)
	}
}

func TestRoomBeyondTheLimitIsSeenInTheTable(t *testing.T) {
	r := newRoom(t, 1, func(cfg *natlab.Config) { cfg.Room = 3 })
	for range 3 {
		r.open()
	}
	if got := len(r.flows()); got != 3 {
		t.Errorf("%d flows, want 3", got)
	}
}

func TestAFINHoldsThePortForTheFINHold(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, server := r.open()
	start := time.Now()
	client.Close()
	server.Close()
	r.until("finished", late, func() bool { f, _ := r.flow(client); return f.State == natlab.Finished })
	r.free(start, 2*time.Second)
}

func TestARSTHoldsThePortForTheRSTHold(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, _ := r.open()
	start := time.Now()
	client.SetLinger(0)
	client.Close()
	r.until("reset", late, func() bool { f, _ := r.flow(client); return f.State == natlab.Reset })
	r.free(start, time.Second)
}

func TestAPortIsGivenAgainOnceTheKernelHasCollectedIt(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, _ := r.open()
	start := time.Now()
	client.SetLinger(0)
	client.Close()
	r.free(start, time.Second)
	took := r.until("collected", 3*time.Second, func() bool { return r.held() == 0 })
	t.Logf("the kernel collected the port %v late", took)
	r.open()
}

func TestASecondFINRearmsTheHold(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, server := r.open()
	left := func() time.Duration { f, _ := r.flow(client); return f.Left }

	client.CloseWrite()
	r.until("a part of the hold over", 2*time.Second, func() bool { return left() < 1500*time.Millisecond })
	if err := passes(server, client); err != nil {
		t.Errorf("data after the first FIN: %v", err)
	}
	if l := left(); l > 1500*time.Millisecond {
		t.Errorf("data after the first FIN kept the flow for %v", l)
	}
	start := time.Now()
	server.Close()
	r.until("hold again", late, func() bool { return left() > 1500*time.Millisecond })
	r.free(start, 2*time.Second)
}

func TestARSTAfterAFINDoesNotShortenTheHold(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, server := r.open()
	start := time.Now()
	client.CloseWrite()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	client.SetLinger(0)
	client.Close()
	r.until("the RST at the server", late, func() bool {
		_, err := server.Write([]byte{'a'})
		return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	})
	if f, _ := r.flow(client); f.State != natlab.Finished {
		t.Errorf("the flow is %v", f.State)
	}
	r.free(start, 2*time.Second)
}

func TestAFINAfterARSTDoesNotProlongTheHold(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, server := r.open()
	// The hole swallows the server's first FIN and the client's RST, so that the
	// server says FIN again when the gateway thinks that the flow is reset.
	if err := r.Blackhole(r.dst, true); err != nil {
		t.Fatal(err)
	}
	server.CloseWrite()
	start := time.Now()
	client.SetLinger(0)
	client.Close()
	r.until("reset", late, func() bool { f, _ := r.flow(client); return f.State == natlab.Reset })
	if err := r.Blackhole(r.dst, false); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(start.Add(time.Second))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the server's FIN was not answered: %v", err)
	}
	r.free(start, time.Second)
}

func TestAnUnansweredSYNHoldsItsPort(t *testing.T) {
	r := newRoom(t, 1, nil)
	nobody := netip.AddrPortFrom(r.Server(1), 443)
	if err := r.Count(nobody); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := r.try(nobody); !isTimeout(err) {
		t.Fatalf("dial: %v", err)
	}
	if n := len(r.flows()); n != 1 {
		t.Fatalf("%d flows", n)
	}
	r.free(start, 1500*time.Millisecond)
}

func TestARefusedDialHoldsItsPortAsReset(t *testing.T) {
	r := newRoom(t, 1, nil)
	closed := netip.AddrPortFrom(r.Server(0), 9)
	if err := r.Count(closed); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := r.try(closed); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v", err)
	}
	if f := r.flows(); len(f) != 1 || f[0].State != natlab.Reset {
		t.Fatalf("flows: %v", f)
	}
	r.free(start, time.Second)
}

func TestAnIdleFlowIsForgottenWithoutAWord(t *testing.T) {
	r := newRoom(t, 1, shortMemory)
	client, server := r.open()
	start := time.Now()
	if err := passes(client, server); err != nil {
		t.Fatal(err)
	}
	r.free(start, time.Second)
	if err := passes(client, server); !isTimeout(err) {
		t.Errorf("to the server: %v, want silence", err)
	}
	if err := passes(server, client); !isTimeout(err) {
		t.Errorf("to the client: %v, want silence", err)
	}
	if r.counts().Forgotten == 0 {
		t.Error("no packet of a forgotten flow was counted")
	}
}

func shortMemory(cfg *natlab.Config) { cfg.Path.Idle = time.Second }

func TestAForgottenFlowHoldsItsPortForTheIdleHold(t *testing.T) {
	r := newRoom(t, 1, func(cfg *natlab.Config) {
		shortMemory(cfg)
		cfg.Path.Hold.Idle = time.Second
	})
	start := time.Now()
	client, server := r.open()
	r.until("forgotten", time.Second+late, func() bool {
		f, _ := r.flow(client)
		return f.State == natlab.Forgotten
	})
	if err := passes(client, server); !isTimeout(err) {
		t.Errorf("write: %v, want silence", err)
	}
	r.free(start, 2*time.Second)
}

func TestResetNextAnswersWithARST(t *testing.T) {
	for _, end := range []string{"client", "server"} {
		t.Run(end, func(t *testing.T) {
			r := newRoom(t, 1, func(cfg *natlab.Config) {
				shortMemory(cfg)
				cfg.Path.AtIdle = netpath.ResetNext
			})
			start := time.Now()
			client, server := r.open()
			r.free(start, time.Second)
			from := map[string]net.Conn{"client": client, "server": server}[end]
			if err := passes(from, from); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the %s's write was answered with %v", end, err)
			}
		})
	}
}

func TestKeepaliveProbesKeepAFlow(t *testing.T) {
	r := newRoom(t, 1, func(cfg *natlab.Config) { cfg.Path.Idle = 1500 * time.Millisecond })
	client, server := r.open()
	start := time.Now()
	if err := client.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: time.Second, Interval: time.Second, Count: 3,
	}); err != nil {
		t.Fatal(err)
	}
	r.until("two idle times over", 4*time.Second, func() bool {
		if _, ok := r.flow(client); !ok {
			t.Fatalf("the flow was forgotten after %v", time.Since(start))
		}
		return time.Since(start) > 3*time.Second
	})
	if err := passes(client, server); err != nil {
		t.Error(err)
	}
}

func TestEachAddressAndPortHasItsOwnAccount(t *testing.T) {
	r := newRoom(t, 1, func(cfg *natlab.Config) { cfg.Servers = 2 })
	r.serve(":444")
	for _, dst := range []netip.AddrPort{
		r.dst, netip.AddrPortFrom(r.Server(1), 443), netip.AddrPortFrom(r.Server(0), 444),
	} {
		if _, err := r.try(dst); err != nil {
			t.Errorf("first dial to %v: %v", dst, err)
		}
		if _, err := r.try(dst); !isTimeout(err) {
			t.Errorf("second dial to %v: %v", dst, err)
		}
		if c := r.counts().By[dst]; c.Admitted != 1 || c.Refused == 0 {
			t.Errorf("%v: %+v", dst, c)
		}
	}
}

func TestADestinationWithoutAccountCannotBeReached(t *testing.T) {
	r := newRoom(t, 1, nil)
	if _, err := r.try(netip.AddrPortFrom(r.Server(0), 9)); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("dial: %v", err)
	}
}

func TestTheSamePortOfTheClientOpensAnEndedFlowAgain(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, _ := r.open()
	client.SetLinger(0)
	client.Close()
	r.until("reset", late, func() bool { f, _ := r.flow(client); return f.State == natlab.Reset })

	again, err := natlab.DialFrom(r.Lab, t.Context(), client.LocalAddr(), "tcp", r.dst.String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if f, _ := r.flow(again); f.State != natlab.Open {
		t.Errorf("the flow is %v", f.State)
	}
	if c := r.counts(); c.Admitted != 2 {
		t.Errorf("the gateway counts %+v", c)
	}
}

func TestForgetFreesAllPortsAtOnce(t *testing.T) {
	r := newRoom(t, 2, nil)
	client, server := r.open()
	r.open()
	if err := r.Forget(); err != nil {
		t.Fatal(err)
	}
	if f := r.flows(); len(f) != 0 {
		t.Errorf("flows: %v", f)
	}
	if err := passes(client, server); !isTimeout(err) {
		t.Errorf("write: %v, want silence", err)
	}
	r.open()
	r.open()
}

func TestBlackholeDropsSilently(t *testing.T) {
	for what, hole := range map[string]func(*room) netip.AddrPort{
		"one destination": func(r *room) netip.AddrPort { return r.dst },
		"everything":      func(*room) (all netip.AddrPort) { return all },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRoom(t, 8, nil)
			client, server := r.open()
			for range 2 { // to switch on what is on is no mistake
				if err := r.Blackhole(hole(r), true); err != nil {
					t.Fatal(err)
				}
			}
			if err := passes(client, server); !isTimeout(err) {
				t.Errorf("to the server: %v, want silence", err)
			}
			if err := passes(server, client); !isTimeout(err) {
				t.Errorf("to the client: %v, want silence", err)
			}
			if _, err := r.try(r.dst); !isTimeout(err) {
				t.Errorf("dial: %v, want silence", err)
			}
			if n := len(r.flows()); n != 2 {
				t.Errorf("the gateway books %d flows, want the old one and the SYN", n)
			}
			for range 2 {
				if err := r.Blackhole(hole(r), false); err != nil {
					t.Fatal(err)
				}
			}
			server.SetReadDeadline(time.Now().Add(5 * time.Second)) // until TCP tries again
			if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
				t.Errorf("after the hole: %v", err)
			}
		})
	}
}

func TestLabsDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 20, 30, 40} {
		t.Run("", func(t *testing.T) {
			r := newRoom(t, n, nil)
			for range n {
				r.open()
			}
			if got := len(r.flows()); got != n {
				t.Errorf("%d flows, want %d", got, n)
			}
			if _, err := r.try(r.dst); !isTimeout(err) {
				t.Errorf("one more dial: %v", err)
			}
		})
	}
}

func TestTheZeroProfileRefusesNothing(t *testing.T) {
	r := newRoom(t, 1, func(cfg *natlab.Config) { cfg.Path = netpath.Profile{} })
	for range 200 {
		r.open()
	}
	if got := len(r.flows()); got != 200 {
		t.Errorf("%d flows, want 200", got)
	}
}

func TestTheClientCanListenToo(t *testing.T) {
	r := newRoom(t, 1, nil)
	ln, err := r.ListenClient("10.78.1.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := r.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestExecRunsInANamespace(t *testing.T) {
	r := newRoom(t, 1, nil)
	for ns, addr := range map[string]string{"client": "10.78.1.2/24", "gateway": "10.78.1.1/24", "server": "198.51.100.1/32"} {
		out, err := r.Exec(t.Context(), ns, "ip", "-brief", "addr")
		if err != nil || !strings.Contains(out, addr) {
			t.Errorf("%s: %v, %s", ns, err, out)
		}
	}
	if _, err := r.Exec(t.Context(), "client", "ip", "nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("the error does not say what the command said: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Exec(ctx, "client", "sleep", "60"); err == nil {
		t.Error("the command outlived its context")
	}
}

func TestWhatIsOpenedOrStartedInsideANamespaceStaysThere(t *testing.T) {
	r := newRoom(t, 1, nil)
	var ln net.Listener
	command := exec.Command("ip", "-brief", "addr")
	var out strings.Builder
	command.Stdout = &out
	err := r.Inside("server", func() (err error) {
		if err := command.Start(); err != nil {
			return err
		}
		ln, err = net.Listen("tcp4", "198.51.100.1:444")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := command.Wait(); err != nil || !strings.Contains(out.String(), "198.51.100.1/32") {
		t.Errorf("the command: %v, %s", err, &out)
	}
	if err := r.Count(netip.AddrPortFrom(r.Server(0), 444)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.try(netip.AddrPortFrom(r.Server(0), 444)); err != nil {
		t.Errorf("a dial from the client: %v", err)
	}
}

func TestANamespaceThatThereIsNotIsRefused(t *testing.T) {
	r := newRoom(t, 1, nil)
	err := r.Inside("elsewhere", func() error { t.Error("called"); return nil })
	if _, execErr := r.Exec(t.Context(), "elsewhere", "ip"); err == nil || execErr == nil {
		t.Errorf("the errors are %v, %v", err, execErr)
	}
}

func TestNewRefusesWhatItCannotImitate(t *testing.T) {
	for _, cfg := range []natlab.Config{
		{Path: netpath.Profile{AtIdle: netpath.ResetBoth}},
		{Path: netpath.Profile{AtIdle: netpath.Close}},
		{Path: netpath.Profile{Idle: -5}},
		{Servers: 1000},
	} {
		if l, err := natlab.New(cfg); err == nil || errors.Is(err, natlab.ErrUnavailable) {
			t.Errorf("%+v: lab %v, error %v", cfg, l, err)
		}
	}
}

func TestAClosedLabSaysSo(t *testing.T) {
	r := newRoom(t, 1, nil)
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Flows(nil); err == nil {
		t.Error("Flows tells of a lab that is closed")
	}
	if c, err := r.try(r.dst); err == nil {
		t.Errorf("%v was dialed in a lab that is closed", c.RemoteAddr())
	}
}

func BenchmarkFlows(b *testing.B) {
	lab := natlab.Need(b, natlab.Config{})
	ln, err := lab.Listen(":443")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	for range 128 {
		c, err := lab.Dial(b.Context(), "tcp", netip.AddrPortFrom(lab.Server(0), 443).String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
	}
	var flows []natlab.Flow
	b.ReportAllocs()
	for b.Loop() {
		if flows, err = lab.Flows(flows[:0]); len(flows) != 128 || err != nil {
			b.Fatal(len(flows), err)
		}
	}
}

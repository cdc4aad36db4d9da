package keepalive_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A room is one watched connection through a NAT of the kernel's.
type room struct {
	*natlab.Lab
	t    *testing.T
	dst  netip.AddrPort
	near *keepalive.Conn
	far  *net.TCPConn
	told ear
}

func newRoom(t *testing.T, idle time.Duration, plan keepalive.Plan) *room {
	t.Helper()
	t.Parallel()
	lab := natlab.Need(t, natlab.Config{Path: netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: 8}},
		Idle:   idle,
		Hold:   netpath.Hold{FIN: 20 * time.Second, RST: 10 * time.Second, SYN: 5 * time.Second, Idle: netpath.None},
	}})
	ln, err := lab.Listen(":443")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := &room{Lab: lab, t: t, dst: netip.AddrPortFrom(lab.Server(0), 443), told: newEar()}
	c, err := lab.Dial(t.Context(), "tcp", r.dst.String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); far.Close() })
	if err := plan.Apply(c.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	r.near, r.far = keepalive.Watch(c, plan, r.told.tell), far.(*net.TCPConn)
	return r
}

// gateway wants the gateway to know the flow as ended in such a way.
func (r *room) gateway(want natlab.State) {
	r.t.Helper()
	flows, err := r.Flows(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(flows) != 1 || flows[0].State != want {
		r.t.Errorf("the gateway knows %+v, want one flow that is %v", flows, want)
	}
}

func (r *room) blackhole() {
	r.t.Helper()
	if err := r.Blackhole(r.dst, true); err != nil {
		r.t.Fatal(err)
	}
}

func TestTheGatewaySawTheFIN(t *testing.T) {
	r := newRoom(t, time.Minute, lingering)
	talk(t, r.near, r.far)
	r.near.Close()
	wantRead(t, r.far, io.EOF)
	r.far.Close()
	r.told.want(t, keepalive.Ending{How: keepalive.FINByUs})
	r.gateway(natlab.Finished)
}

func TestTheGatewaySawTheRST(t *testing.T) {
	r := newRoom(t, time.Minute, lingering)
	talk(t, r.near, r.far)
	acknowledged(t, r.near)
	r.near.EndSoonest()
	r.near.Close()
	r.told.want(t, keepalive.Ending{How: keepalive.RSTByUs})
	wantRead(t, r.far, syscall.ECONNRESET)
	r.gateway(natlab.Reset)
}

func TestTheGatewaySawTheRSTOfTheServer(t *testing.T) {
	r := newRoom(t, time.Minute, lingering)
	reset(r.far)
	wantRead(t, r.near, syscall.ECONNRESET)
	r.near.Close()
	r.told.want(t, keepalive.Ending{How: keepalive.RSTByPeer})
	r.gateway(natlab.Reset)
}

func TestAFINIntoABlackHoleIsUnsure(t *testing.T) {
	r := newRoom(t, time.Minute, keepalive.Plan{Linger: 300 * time.Millisecond})
	talk(t, r.near, r.far)
	r.blackhole()
	r.near.Close()
	r.told.want(t, keepalive.Ending{How: keepalive.FINByUs, Unsure: true})
}

func TestASilentFlowIsForgotten(t *testing.T) {
	plan := keepalive.Plan{Idle: -1, Forgets: time.Second, Linger: time.Minute}
	r := newRoom(t, time.Second, plan)
	talk(t, r.near, r.far)
	acknowledged(t, r.near)
	r.near.Park(r.near.Turn())
	until(t, "silent for too long", func() bool { return r.near.Silence() > 1100*time.Millisecond })
	if _, err := r.near.Unpark(); err != keepalive.ErrStale {
		t.Errorf("Unpark: %v", err)
	}
	r.near.Close()
	r.told.want(t, keepalive.Ending{How: keepalive.Forgotten})
	if flows, err := r.Flows(nil); len(flows) > 0 || err != nil {
		t.Errorf("the gateway knows %+v, %v", flows, err)
	}
}

// In a turn of its own length, a byte may be older than Park.
func TestASilentTurnIsSilence(t *testing.T) {
	r := newRoom(t, time.Minute, keepalive.Plan{Idle: -1, Forgets: 1200 * time.Millisecond}) // 900 ms may pass
	talk(t, r.near, r.far)
	until(t, "a silent turn", func() bool { return r.near.Silence() > 700*time.Millisecond })
	r.near.Park(r.near.Turn())
	parked := time.Now()
	until(t, "silent for too long", func() bool { return r.near.Silence() > 950*time.Millisecond })
	if _, err := r.near.Unpark(); err != keepalive.ErrStale {
		t.Errorf("parked for %v: %v", time.Since(parked), err)
	}
	r.near.Close()
}

func TestProbesEndTheSilence(t *testing.T) {
	plan := keepalive.Plan{Idle: time.Second, Interval: time.Second, Count: 3, Forgets: 1500 * time.Millisecond}
	r := newRoom(t, 1500*time.Millisecond, plan)
	talk(t, r.near, r.far)
	r.near.Park(r.near.Turn())
	parked := time.Now()
	until(t, "two idle times over", func() bool { return time.Since(parked) > 3*time.Second })
	if got := r.near.Silence(); got > 1200*time.Millisecond {
		t.Errorf("the silence is %v", got)
	}
	r.gateway(natlab.Open)
	until(t, "a probe", func() bool { return r.near.Silence() < 500*time.Millisecond })
	if _, err := r.near.Unpark(); err != nil {
		t.Error(err)
	}
	talk(t, r.near, r.far)
	r.near.Close()
}

// Probes that nobody answers keep the flow known to the gateway.
func TestAFlowThatIsProbedInVainIsNotForgotten(t *testing.T) {
	plan := keepalive.Plan{Idle: time.Second, Interval: time.Second, Count: 9, Forgets: 1500 * time.Millisecond, Linger: 100 * time.Millisecond}
	r := newRoom(t, 1500*time.Millisecond, plan)
	r.blackhole()
	until(t, "silent for too long", func() bool { return r.near.Silence() > 2500*time.Millisecond })
	r.gateway(natlab.Open)
	r.near.Close()
	if end := r.told.ending(t); end.How == keepalive.Forgotten || !end.Unsure {
		t.Errorf("it ended as %v %+v", end.How, end)
	}
}

func TestTheKernelsVerdict(t *testing.T) {
	for _, test := range []struct {
		name string
		plan keepalive.Plan
		use  func(r *room)
	}{
		{"unacknowledged data", keepalive.Plan{Idle: -1, UserTimeout: time.Second}, func(r *room) {
			r.near.Write([]byte("x"))
			wantRead(r.t, r.near, syscall.ETIMEDOUT)
		}},
		{"unacknowledged data, TLS", keepalive.Plan{Idle: -1, UserTimeout: time.Second}, func(r *room) {
			if err := r.Blackhole(r.dst, false); err != nil {
				r.t.Fatal(err)
			}
			client, server := withTLS(r.t, r.near, r.far)
			talk(r.t, client, server)
			acknowledged(r.t, r.near)
			r.blackhole()
			client.Write([]byte("x"))
			wantRead(r.t, client, syscall.ETIMEDOUT)
		}},
		{"unacknowledged data, unseen", keepalive.Plan{Idle: -1, UserTimeout: time.Second}, func(r *room) {
			r.near.Write([]byte("x"))
			until(r.t, "the verdict", func() bool { return kernelEnded(r.t, r.near) })
		}},
		{"unanswered probes", keepalive.Plan{Idle: time.Second, Interval: time.Second, Count: 1}, func(r *room) {
			wantRead(r.t, r.near, syscall.ETIMEDOUT)
		}},
		{"unanswered probes, peeked at", keepalive.Plan{Idle: time.Second, Interval: time.Second, Count: 1}, func(r *room) {
			wantPeek(r.t, r.near, 0, keepalive.ErrEnded)
			wantRead(r.t, r.near, syscall.ETIMEDOUT)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.plan.Linger = time.Minute
			r := newRoom(t, time.Minute, test.plan)
			r.blackhole()
			test.use(r)
			r.near.Close()
			r.told.want(t, keepalive.Ending{How: keepalive.TimedOut, Unsure: true, Err: keepalive.ErrBlackhole, Gap: max(0, test.plan.Idle)})
		})
	}
}

func TestADeadlineIsNoVerdict(t *testing.T) {
	c, far, told := watched(t, lingering)
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("Read: %v", err)
	}
	c.Close()
	wantRead(t, far, io.EOF)
	far.Close()
	told.want(t, keepalive.Ending{How: keepalive.FINByUs})
}

package natlab_test

import (
	"io"
	"math"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"golang.org/x/sys/unix"
)

// info is what the kernel knows of a connection.
func (r *room) info(c syscall.Conn) (info *unix.TCPInfo) {
	r.t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	if cut := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); cut != nil || err != nil {
		r.t.Fatal(cut, err)
	}
	return info
}

func TestExactlyTheNextPacketsOfTheClientAreLost(t *testing.T) {
	const n = 3
	r := newRoom(t, 1, nil)
	client, server := r.open()
	sent, came := r.info(client).Segs_out, r.info(server).Segs_in
	lost := func() int { return int(r.info(client).Segs_out-sent) - int(r.info(server).Segs_in-came) }

	if err := r.DropNext(r.dst, n); err != nil {
		t.Fatal(err)
	}
	if err := passes(server, client); err != nil {
		t.Errorf("what the server sends is lost too: %v", err)
	}
	client.Write([]byte{'a'})
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := passes(client, server); err != nil {
			t.Fatal(err)
		}
	}
	r.until("as many packets lost as should be", time.Second, func() bool { return lost() == n })
}

func TestTwoLostProbesInARowKillNothing(t *testing.T) {
	r := newRoom(t, 1, nil)
	client, server := r.open()
	if err := r.DropNext(r.dst, 2); err != nil {
		t.Fatal(err)
	}
	if err := client.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: time.Second, Interval: time.Second, Count: 3,
	}); err != nil {
		t.Fatal(err)
	}
	r.until("two probes unanswered", 4*time.Second, func() bool { return r.info(client).Probes == 2 })
	r.until("the third answered", 2*time.Second, func() bool { return r.info(client).Probes == 0 })
	if err := passes(client, server); err != nil {
		t.Error(err)
	}
}

func TestWhatIsLostOnItsWayKeepsNoFlow(t *testing.T) {
	for how, lose := range map[string]func(*room) error{
		"the next packets": func(r *room) error { return r.DropNext(r.dst, 1000) },
		"all packets":      func(r *room) error { return r.Lose(1) },
	} {
		t.Run(how, func(t *testing.T) {
			r := newRoom(t, 1, shortMemory)
			client, server := r.open()
			start := time.Now()
			if err := lose(r); err != nil {
				t.Fatal(err)
			}
			if err := passes(client, server); !isTimeout(err) {
				t.Errorf("write: %v, want silence", err)
			}
			r.free(start, time.Second)
		})
	}
}

func TestTheNextPacketsToOthersPass(t *testing.T) {
	r := newRoom(t, 1, nil)
	r.serve(":444")
	if err := r.DropNext(r.dst, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := r.try(r.dst); !isTimeout(err) {
		t.Errorf("dial: %v, want silence", err)
	}
	if _, err := r.try(netip.AddrPortFrom(r.Server(0), 444)); err != nil {
		t.Errorf("dial to another port: %v", err)
	}
}

func TestDropNextForgetsWhatWasLeft(t *testing.T) {
	r := newRoom(t, 1, nil)
	for _, n := range []int{1000, 0} {
		if err := r.DropNext(r.dst, n); err != nil {
			t.Fatal(err)
		}
	}
	r.open()
}

func TestDropNextSaysWhatIsWrong(t *testing.T) {
	r := newRoom(t, 1, nil)
	if err := r.DropNext(r.dst, -1); err == nil || !strings.Contains(err.Error(), "-1") {
		t.Errorf("-1 packets: %v", err)
	}
	unknown := netip.AddrPortFrom(r.Server(0), 9)
	if err := r.DropNext(unknown, 1); err == nil || !strings.Contains(err.Error(), unknown.String()) {
		t.Errorf("no account: %v", err)
	}
}

// echoes says whether a byte comes back, however many packets get lost.
func echoes(c net.Conn) error {
	if _, err := c.Write([]byte{'a'}); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func TestAShareOfThePacketsIsLostEachWay(t *testing.T) {
	const flows, rounds, share = 200, 10, 0.1
	r := newRoom(t, flows, nil)
	var clients, servers []*net.TCPConn
	for range flows {
		client, server := r.open()
		clients, servers = append(clients, client), append(servers, server)
		go io.Copy(server, server) // until the test ends
	}
	segments := func(conns []*net.TCPConn) (in, out float64) {
		for _, c := range conns {
			info := r.info(c)
			in, out = in+float64(info.Segs_in), out+float64(info.Segs_out)
		}
		return in, out
	}
	clientIn, clientOut := segments(clients)
	serverIn, serverOut := segments(servers)
	if err := r.Lose(share); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for range rounds {
				if err := echoes(c); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := r.Lose(0); err != nil {
		t.Fatal(err)
	}
	in1, out1 := segments(clients)
	in2, out2 := segments(servers)
	for way, lost := range map[string]float64{
		"to the server": 1 - (in2-serverIn)/(out1-clientOut),
		"to the client": 1 - (in1-clientIn)/(out2-serverOut),
	} {
		if math.Abs(lost-share) > 0.03 {
			t.Errorf("%.3f of the packets %s were lost, want %v", lost, way, share)
		}
	}
}

func TestLossEnds(t *testing.T) {
	r := newRoom(t, 2, nil)
	for _, share := range []float64{1, 0} {
		if err := r.Lose(share); err != nil {
			t.Fatal(err)
		}
		if _, err := r.try(r.dst); isTimeout(err) != (share == 1) {
			t.Errorf("loss %v: %v", share, err)
		}
	}
	if n := len(r.flows()); n != 1 {
		t.Errorf("%d flows were booked, want the one that was not lost", n)
	}
}

func TestLoseRefusesWhatIsNoShare(t *testing.T) {
	var lab natlab.Lab
	for share, name := range map[float64]string{-0.5: "-0.5", 1.5: "1.5", math.NaN(): "NaN"} {
		if err := lab.Lose(share); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %v", share, err)
		}
	}
}

package keepalive_test

import (
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
	"golang.org/x/sys/unix"
)

// userTimeout reads it back from the socket.
func userTimeout(t *testing.T, c *keepalive.Conn) (d time.Duration) {
	fd(t, c, func(fd int) {
		ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil {
			t.Error(err)
		}
		d = time.Duration(ms) * time.Millisecond
	})
	return d
}

func TestTheKernelHasAUserTimeoutOnlyWhileBytesAreOut(t *testing.T) {
	plan := keepalive.Plan{UserTimeout: 90 * time.Second}
	c, far, _ := watched(t, plan)
	if err := c.Follow(plan); err != nil {
		t.Fatal(err)
	}
	var d keepalive.Detector
	d.Guard(c, there, new(owner))
	if got := userTimeout(t, c); got != 0 {
		t.Errorf("it is %v before anything was written", got)
	}
	for range 2 {
		talk(t, c, far)
		if got := userTimeout(t, c); got != plan.UserTimeout {
			t.Errorf("it is %v after something was written", got)
		}
		until(t, "none", func() bool { return userTimeout(t, c) == 0 })
		plan.UserTimeout += time.Second // another plan changes nothing about that
		if err := c.Follow(plan); err != nil {
			t.Fatal(err)
		}
		if got := userTimeout(t, c); got != 0 {
			t.Errorf("it is %v after Follow", got)
		}
	}
}

func TestInfoTellsWhatTheKernelKnows(t *testing.T) {
	c, far, _ := watched(t, keepalive.Plan{})
	talk(t, c, far)
	far.Write([]byte("four"))
	until(t, "four bytes unread", func() bool {
		i, err := c.Info()
		return err == nil && i.Unread == 4
	})
	i, err := c.Info()
	if err != nil || i.RTT <= 0 || i.RTO < 100*time.Millisecond || i.PeerWindow == 0 || i.SegmentsIn < 2 || i.SegmentsOut < 2 {
		t.Errorf("got %+v, %v", i, err)
	}
	if i.LastProof > patience || i.LastAck > i.LastProof || i.Retransmits != 0 || i.Probes != 0 {
		t.Errorf("got %+v", i)
	}
}

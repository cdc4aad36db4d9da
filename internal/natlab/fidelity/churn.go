package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	churners    = 60
	killEvery   = 250 * time.Millisecond
	closedPorts = 8
	silentOnes  = 6
	patience    = 300 * time.Millisecond // for somebody who does not answer
)

// A churn opens flows and ends them in every way there is.
type churn struct {
	stage  *work.Stage
	peer   *peer
	dialer *dialer.Dialer
	next   atomic.Int64

	mu   sync.Mutex // guards errs
	errs []error
}

// endings are the ways in which a churner ends a connection that it has just
// opened. The peer does what the first byte says.
var endings = []func(c *dialer.Conn) error{
	finByUs, finByPeer, finByPeerLongBefore, halfClose, resetByUs, resetUnread, resetByPeer, cancel, killed, killedUnread, lost,
}

func finByUs(c *dialer.Conn) error { return errors.Join(answered(c, answer), c.Close()) }

func finByPeer(c *dialer.Conn) error { return errors.Join(finished(c, finish), c.Close()) }

// finByPeerLongBefore leaves a gap between the two FINs: the later one counts.
func finByPeerLongBefore(c *dialer.Conn) error {
	err := finished(c, finish)
	<-time.After(patience)
	return errors.Join(err, c.Close())
}

func halfClose(c *dialer.Conn) error {
	err := answered(c, answer)
	return errors.Join(err, c.CloseWrite(), finished(c), c.Close())
}

func resetByUs(c *dialer.Conn) error {
	err := answered(c, answer)
	c.Conn.EndSoonest()
	return errors.Join(err, c.Close())
}

// resetUnread closes with a byte unread, at which the kernel resets.
func resetUnread(c *dialer.Conn) error { return errors.Join(answered(c, twice), c.Close()) }

func resetByPeer(c *dialer.Conn) error { return errors.Join(broken(c, reset), c.Close()) }

// cancel gives a request up while its answer is due.
func cancel(c *dialer.Conn) error {
	_, err := c.Write([]byte{hang})
	c.Asked()
	return errors.Join(err, c.Close())
}

// killed waits until the peer's process ends.
func killed(c *dialer.Conn) error { return errors.Join(finished(c, hang), c.Close()) }

// killedUnread does so with something that the peer had not read.
func killedUnread(c *dialer.Conn) error { return errors.Join(broken(c, hang, hang), c.Close()) }

// lost leaves the connection to the garbage collector.
func lost(c *dialer.Conn) error { return answered(c, answer) }

// answered sends a command and reads one byte.
func answered(c net.Conn, command ...byte) error {
	if _, err := c.Write(command); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// finished sends a command and reads the peer's FIN.
func finished(c net.Conn, command ...byte) error {
	if _, err := c.Write(command); len(command) > 0 && err != nil {
		return err
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		return errors.New("data instead of a FIN")
	}
	return nil
}

// broken sends a command and reads that the connection is broken.
func broken(c net.Conn, command ...byte) error { return finished(c, command...) }

// play ends as many flows as it is told, and some HTTP requests and dials
// besides.
func (c *churn) play(flows int) error {
	stop := make(chan struct{})
	var killer, all sync.WaitGroup
	killer.Go(func() { c.kill(stop) })
	for range churners {
		all.Go(func() { c.flows(flows) })
	}
	all.Go(func() { c.cancels(flows / 10) })
	all.Go(c.refusals)
	all.Go(c.silences)
	all.Wait()
	close(stop)
	killer.Wait()
	return errors.Join(c.errs...)
}

// failed keeps the first few errors.
func (c *churn) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) < 3 {
		c.errs = append(c.errs, err)
	}
}

// kill ends the peer's hanging connections again and again, and collects those
// that were dropped.
func (c *churn) kill(stop <-chan struct{}) {
	tick := time.NewTicker(killEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.peer.kill()
			runtime.GC()
		case <-stop:
			c.peer.kill()
			runtime.GC()
			return
		}
	}
}

func (c *churn) flows(n int) {
	for {
		i := int(c.next.Add(1)) - 1
		if i >= n {
			return
		}
		conn, err := c.dialer.DialContext(context.Background(), "tcp", c.peer.address.String())
		if err == nil {
			err = endings[i%len(endings)](conn.(*dialer.Conn))
		}
		if err != nil {
			c.failed(fmt.Errorf("ending %d: %w", i%len(endings), err))
		}
	}
}

// cancels gives up every second HTTP request in the middle.
func (c *churn) cancels(n int) {
	client := c.stage.Client()
	for i := range n {
		ctx, cancel := context.WithCancel(context.Background())
		if i%2 == 1 {
			ctx, cancel = context.WithTimeout(ctx, work.Service/2)
		}
		err := c.stage.Get(ctx, client, i)
		cancel()
		if given := errors.Is(err, context.DeadlineExceeded); given != (i%2 == 1) {
			c.failed(fmt.Errorf("request %d: %v", i, err))
		}
	}
}

// refusals dials ports at which nobody listens, one flow each.
func (c *churn) refusals() {
	for i := range closedPorts {
		to := netip.AddrPortFrom(c.peer.address.Addr(), uint16(1000+i))
		c.fail(c.dialer, to, "refused")
	}
}

// silences dials addresses at which nobody is.
func (c *churn) silences() {
	d := &dialer.Dialer{Ledger: c.stage.Ledger, Dial: c.stage.Lab.Dial, Timeout: patience}
	for i := range silentOnes {
		c.fail(d, netip.AddrPortFrom(c.stage.Lab.Server(1), uint16(1000+i)), "timeout")
	}
}

func (c *churn) fail(d *dialer.Dialer, to netip.AddrPort, want string) {
	if err := c.stage.Lab.Count(to); err != nil {
		c.failed(err)
		return
	}
	conn, err := d.DialContext(context.Background(), "tcp", to.String())
	if err == nil {
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		c.failed(fmt.Errorf("dial of %v: %v, want %q", to, err, want))
	}
}

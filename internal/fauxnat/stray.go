package fauxnat

import (
	"errors"
	"io"
	"net/netip"
	"syscall"
	"time"
)

// Darken makes black holes of the flows to dst that there are now, as a gateway
// does that fails over without its table, and returns how many. From now on the
// client's kernel throws away whatever comes on them, acknowledgements and RSTs
// included, so that it sends again and again, and can be looked at. What the client sends
// arrives, and the server may act on it. New flows are not concerned.
//
// It takes a Linux socket; elsewhere the error is errors.ErrUnsupported.
func (n *NAT) Darken(dst netip.AddrPort) (flows int, err error) {
	for _, c := range n.live(dst) {
		raw, ok := c.inner.(syscall.Conn)
		if !ok {
			return flows, errors.ErrUnsupported
		}
		if err := deafen(raw); err != nil {
			return flows, err
		}
		n.mu.Lock()
		if !c.closed && c.dead == nil {
			c.dark = true
			c.strayLocked(true)
			flows++
		}
		n.mu.Unlock()
	}
	return flows, nil
}

// Lie has a middlebox acknowledge whatever it is sent on the flows to dst that
// there are now, and hand on nothing in either direction; it returns how many
// they are. patience after the first byte that it swallowed on one of them, the
// middlebox ends that one by a FIN, of which Read tells; zero: never. To the NAT
// such a flow is as alive as any, and so it is to the client's kernel, which never
// has anything unacknowledged. New flows are not concerned.
func (n *NAT) Lie(dst netip.AddrPort, patience time.Duration) (flows int) {
	for _, c := range n.live(dst) {
		n.mu.Lock()
		if !c.closed && c.dead == nil && !c.lied {
			c.lied, c.patience = true, patience
			c.strayLocked(true)
			c.cond.Broadcast()
			flows++
		}
		n.mu.Unlock()
	}
	return flows
}

// live returns the conns of the flows to dst that can carry data.
func (n *NAT) live(dst netip.AddrPort) (conns []*conn) {
	n.once.Do(n.start)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireLocked()
	for f := range n.flows {
		if f.state == live && f.dst == dst {
			conns = append(conns, f.conn)
		}
	}
	return conns
}

// strayLocked books whether the conn's bytes lead nowhere.
func (c *conn) strayLocked(is bool) {
	if c.astray == is {
		return
	}
	c.astray = is
	d := 1
	if !is {
		d = -1
	}
	for _, a := range c.flow.ports {
		a.Astray += d
		a.Strayed += max(0, d)
	}
}

// swallowLocked takes what is written to a liar.
func (c *conn) swallowLocked(now time.Time) {
	c.flow.last, c.flow.asked = now, true
	if c.patience > 0 {
		time.AfterFunc(c.patience, c.leave)
		c.patience = 0
	}
}

// leave is the liar's FIN.
func (c *conn) leave() {
	c.flow.nat.mu.Lock()
	now := c.flow.nat.expireLocked()
	told := !c.closed && c.dead == nil
	if told {
		c.dead, c.gotFIN = io.EOF, true
		c.strayLocked(false)
		c.finLocked(now)
		c.cond.Broadcast()
	}
	c.flow.nat.mu.Unlock()
	if told {
		c.interrupt()
	}
}

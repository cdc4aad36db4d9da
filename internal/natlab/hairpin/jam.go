package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	jammedFor  = 8 * time.Second
	jamLive    = 12 // connections that are there before
	jamDials   = 30
	jamBacklog = 8

	jamSlowest = 20.0 // s
	jamAfter   = 2.5  // some find the backlog full, and send another SYN after 1 s
)

// jam is no want of ports, though it looks like that: a server that accepts nothing for a
// while, so that its kernel drops SYNs.
func jam(note func(work.Measurement)) (err error) {
	st, err := open(natlab.Config{Path: work.Path(), Servers: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	if _, err := st.Exec(context.Background(), "server", "sysctl", "-qw", fmt.Sprint("net.core.somaxconn=", jamBacklog)); err != nil {
		return err
	}
	setups := []Setup{{}, {Plain: true, Timeout: 30 * time.Second}}
	var during, after [2]lot
	var errs [2]error
	var both sync.WaitGroup
	for i, s := range setups {
		both.Go(func() { during[i], after[i], errs[i] = st.jammed(netip.AddrPortFrom(st.Server(i), 80), s) })
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	tell := func(when string, lots [2]lot, most float64) {
		failed, why := lots[0].failed(time.Minute)
		theirs, whose := lots[1].failed(time.Minute)
		note(work.Told("dials "+when+" that failed", "", work.Number(failed)).Beside(goDial, work.Number(theirs)).Said(why.Err(), whose.Err()).AtMost(0))
		note(work.Told("the slowest of them", "s", lots[0].took(1)).Beside(goDial, lots[1].took(1)).AtMost(most))
	}
	tell("meanwhile", during, jamSlowest)
	tell("afterwards", after, jamAfter)
	return nil
}

// jammed has a client dial a server that accepts nothing for a while, and once more when that
// is over.
func (st *stage) jammed(to netip.AddrPort, s Setup) (during, after lot, err error) {
	ln, err := st.Listen(to.String())
	if err != nil {
		return during, after, err
	}
	g := &gate{Listener: ln}
	go st.origin.echo(g, 0)
	d := Dials{Address: to.String(), N: jamLive, AtOnce: 1, Keep: true}
	if d.Client, err = st.client(s); err != nil {
		return during, after, err
	}
	var before lot
	if err := st.guest.ask("Dial", d, &before.dials); err != nil {
		return during, after, err
	}
	d.N, d.AtOnce = jamDials, 0
	g.shut(jammedFor)
	if err := st.guest.ask("Dial", d, &during.dials); err != nil {
		return during, after, err
	}
	return during, after, st.guest.ask("Dial", d, &after.dials)
}

// A gate is a listener that accepts nothing while it is shut.
type gate struct {
	net.Listener

	mu   sync.Mutex
	open chan struct{} // closed when it is; nil: it never was shut
}

func (g *gate) shut(d time.Duration) {
	open := make(chan struct{})
	g.mu.Lock()
	g.open = open
	g.mu.Unlock()
	time.AfterFunc(d, func() { close(open) })
}

func (g *gate) Accept() (net.Conn, error) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open != nil {
		<-open
	}
	return g.Listener.Accept()
}

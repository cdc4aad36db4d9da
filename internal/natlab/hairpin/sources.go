package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	sourceLimit = 32 // of flows from each address to a destination
	fewPorts    = 16 // local ports, where they run out
)

// sources dials from one and from two addresses through a NAT that counts each, and where the
// client itself has no port left.
func sources(r *work.Report) (err error) {
	path := work.Path()
	path.Limits = []netpath.Limit{{Scope: netpath.SourceDestination, N: sourceLimit}}
	st, err := open(natlab.Config{Path: path, Clients: 2, PerSource: true, Servers: 4})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ln, err := st.Listen(":80")
	if err != nil {
		return err
	}
	go st.origin.echo(ln, 0)
	var opened [2]int
	for i := range opened {
		s := Setup{Path: path, MaxWait: time.Second}
		for j := range i + 1 {
			s.Sources = append(s.Sources, st.Client(j))
		}
		if opened[i], err = st.fill(r, s, netip.AddrPortFrom(st.Server(i), 80)); err != nil {
			return err
		}
	}
	twice := work.Told("flows fewer than twice as many, from two addresses", "", work.Number(2*opened[0]-opened[1])).AtMost(0)
	r.Note(twice.At("two addresses", ""))
	return st.runOut(r, path)
}

// fill opens as many flows as natwise will, and returns how many the gateway has.
func (st *stage) fill(r *work.Report, s Setup, to netip.AddrPort) (int, error) {
	client, err := st.client(s)
	if err != nil {
		return 0, err
	}
	before, err := st.Counts()
	if err != nil {
		return 0, err
	}
	l := lot{timeout: s.MaxWait}
	if err := st.guest.ask("Dial", Dials{Client: client, Address: to.String(), N: 3 * sourceLimit, Keep: true}, &l.dials); err != nil {
		return 0, err
	}
	flows, err := st.Flows(nil)
	if err != nil {
		return 0, err
	}
	after, err := st.Counts()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, f := range flows {
		if f.Dest == to {
			n++
		}
	}
	at := func(m work.Measurement) { r.Note(m.At(fmt.Sprintf("addresses: %d", len(s.Sources)), "")) }
	_, why := l.failed(time.Minute)
	at(work.Told(fmt.Sprintf("flows to one destination, %d asked for", 3*sourceLimit), "", work.Number(n)).Said(why.Err(), nil))
	at(work.Told("SYNs refused", "", work.Number(after.Refused-before.Refused)).AtMost(0))
	return n, nil
}

// runOut dials when the client has few local ports and all are taken.
func (st *stage) runOut(r *work.Report, path netpath.Profile) error {
	set := fmt.Sprintf("net.ipv4.ip_local_port_range=40000 %d", 40000+fewPorts-1)
	if _, err := st.Exec(context.Background(), "client", "sysctl", "-qw", set); err != nil {
		return err
	}
	for i, from := range [][]netip.Addr{nil, {st.Client(1)}} {
		to := netip.AddrPortFrom(st.Server(2+i), 80).String()
		ours, err := st.client(Setup{Path: path, Sources: from})
		if err != nil {
			return err
		}
		held := lot{}
		if err := st.guest.ask("Dial", Dials{Client: ours, Address: to, N: fewPorts, AtOnce: 1, Keep: true}, &held.dials); err != nil {
			return err
		}
		l := lot{}
		if err := st.guest.ask("Dial", Dials{Client: ours, Address: to, N: 4}, &l.dials); err != nil {
			return err
		}
		failed, _ := held.failed(time.Minute)
		_, why := l.failed(time.Minute)
		name := map[bool]string{true: "the system's choice", false: "a chosen address"}[from == nil]
		m := work.Told("dials without a local port that are not called local-ports", "", work.Number(l.unnamed("local-ports"))).
			AtMost(0).Said(why.Err(), nil).At(name, "")
		if failed > 0 {
			m.Miss("%d of the %d local ports were not to be had", failed, fewPorts)
		}
		r.Note(m)
	}
	return nil
}

package main

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

const (
	aroundDials     = 100
	aroundDialsFull = 1000
	aroundRequests  = 20

	// loopbackMost is how much longer the local address may take than a plain dial there:
	// what a dial by natwise costs at all.
	loopbackMost = 0.3 // ms
)

// workarounds dials a balancer that has no backend but who dials, in three ways that must
// always get through.
func workarounds(r *work.Report) (err error) {
	st, err := open(natlab.Config{Path: work.Path(), Servers: 1, Clients: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	if err := errors.Join(st.service(), st.balance(0, 1), st.forward()); err != nil {
		return err
	}
	local := make(map[netip.AddrPort]netip.AddrPort)
	for port, front := range fronts {
		local[vip(0, front)] = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	}
	for _, around := range []struct {
		how   string
		setup Setup
	}{
		{"local address", Setup{Hairpin: local}},
		{"second address", Setup{Sources: []netip.Addr{st.Client(1)}}},
		{"proxy, CONNECT", Setup{Proxy: "http://" + connectProxy}},
		{"proxy, SOCKS5", Setup{Proxy: "socks5h://" + socksProxy}},
	} {
		around.setup.Service = vip(0, 0).Addr()
		if err := st.around(r, around.how, around.setup); err != nil {
			return err
		}
	}
	return st.besideLoopback(r, Setup{Hairpin: local, Service: vip(0, 0).Addr()})
}

// around dials, and requests, by name.
func (st *stage) around(r *work.Report, how string, s Setup) error {
	n := aroundDials
	if r.Full {
		n = aroundDialsFull
	}
	client, err := st.client(s)
	if err != nil {
		return err
	}
	for _, over := range overs {
		l := lot{over: over, timeout: soon}
		d := Dials{Client: client, Address: service(80), N: n, AtOnce: 10, Each: soon, Say: true}
		if over == overTLS {
			d.TLS, d.Address = true, service(443)
		}
		if err := st.guest.ask("Dial", d, &l.dials); err != nil {
			return err
		}
		l.noteAround(r, how, "dials")
	}
	l := lot{over: "https", timeout: soon}
	if err := st.guest.ask("Get", Dials{Client: client, Address: service(444), N: aroundRequests, Each: soon}, &l.dials); err != nil {
		return err
	}
	l.noteAround(r, how, "requests")
	return st.misnamed(r, how, client)
}

// service is the service's name with a port.
func service(port int) string { return net.JoinHostPort(serviceName, strconv.Itoa(port)) }

// misnamed requests by a name that the certificate does not have: it is verified, after all.
func (st *stage) misnamed(r *work.Report, how string, client int) error {
	if strings.HasPrefix(how, "proxy") {
		return nil // which would not know the name
	}
	var got []Dialed
	if err := st.guest.ask("Get", Dials{Client: client, Address: "other.test:444", N: 1, Each: soon}, &got); err != nil {
		return err
	}
	m := work.Told("requests answered by a name that is not the certificate's", "", work.Number(0)).At("https", how).AtMost(0)
	if !strings.Contains(got[0].Error, "x509") {
		m.Miss("the error is %q", got[0].Error)
	}
	r.Note(m)
	return nil
}

func (l *lot) noteAround(r *work.Report, how, what string) {
	failed, why := l.failed(l.timeout)
	r.Note(work.Told(strconv.Itoa(len(l.dials))+" "+what+", failed", "", work.Number(failed)).AtMost(0).Said(why.Err(), nil).At(l.over, how))
	r.Note(work.Told("p99", "s", l.took(0.99)).At(l.over, how))
}

// besideLoopback compares the local address with a plain dial to the same, in turns.
func (st *stage) besideLoopback(r *work.Report, s Setup) error {
	ours, err := st.client(s)
	if err != nil {
		return err
	}
	peer, err := st.client(Setup{Plain: true, Timeout: soon})
	if err != nil {
		return err
	}
	var own, other lot
	for range 10 {
		for l, d := range map[*lot]Dials{
			&own:   {Client: ours, Address: vip(0, 80).String()},
			&other: {Client: peer, Address: "127.0.0.1:" + strconv.Itoa(echoPort)},
		} {
			d.N, d.AtOnce = 50, 1
			var some []Dialed
			if err := st.guest.ask("Dial", d, &some); err != nil {
				return err
			}
			l.dials = append(l.dials, some...)
		}
	}
	const loopback = "Go's own dial to loopback"
	for _, q := range []struct {
		name string
		of   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		mine, peers := own.milliseconds(q.of), other.milliseconds(q.of)
		m := work.Told(q.name, "ms", mine).Beside(loopback, peers)
		if q.of == 0.5 {
			m = m.AtMost(math.Round(100*(peers.Value+loopbackMost)) / 100)
		}
		r.Note(m.At(plain, "local address"))
	}
	return nil
}

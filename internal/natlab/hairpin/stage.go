package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// The addresses of balancers are 10.78.9.1 and following.
var firstVIP = netip.MustParseAddr("10.78.9.1")

// A stage is a lab, what listens in it, and a guest who dials. Whoever opens it closes it.
type stage struct {
	*natlab.Lab
	origin *origin
	guest  *guest
}

func open(cfg natlab.Config) (_ *stage, err error) {
	lab, err := natlab.New(cfg)
	if err != nil {
		return nil, err
	}
	st := &stage{Lab: lab}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	if st.origin, err = newOrigin(); err != nil {
		return nil, err
	}
	st.guest, err = invite(lab)
	return st, err
}

func (st *stage) close() error {
	var errs []error
	if st.guest != nil {
		errs = append(errs, st.guest.leave())
	}
	if st.origin != nil {
		errs = append(errs, st.origin.close())
	}
	return errors.Join(append(errs, st.Lab.Close())...)
}

// The ports of the service at each backend, and what it does there.
const (
	echoPort = 8080
	tlsPort  = 8443
	webPort  = 9443 // HTTP over TLS
)

// vip is the i-th balancer's address, with a port.
func vip(i int, port uint16) netip.AddrPort {
	a := firstVIP.As4()
	a[3] += byte(i)
	return netip.AddrPortFrom(netip.AddrFrom4(a), port)
}

// fronts are what the service's ports are at the balancer.
var fronts = map[uint16]uint16{echoPort: 80, tlsPort: 443, webPort: 444}

// balance starts the service on the client and on n-1 servers, and balances it at the i-th
// address.
func (st *stage) balance(i, n int) error {
	for port, front := range fronts {
		backends := []netip.AddrPort{netip.AddrPortFrom(st.Client(0), port)}
		for i := range n - 1 {
			backends = append(backends, netip.AddrPortFrom(st.Server(i), port))
		}
		if err := st.Balance(vip(i, front), backends...); err != nil {
			return err
		}
	}
	return nil
}

// service has the client and all servers serve.
func (st *stage) service() error {
	for port := range fronts {
		own, err := st.ListenClient(":" + strconv.Itoa(int(port)))
		if err != nil {
			return err
		}
		others, err := st.Listen(":" + strconv.Itoa(int(port)))
		if err != nil {
			return errors.Join(err, own.Close())
		}
		for _, ln := range []net.Listener{own, others} {
			switch port {
			case echoPort:
				go st.origin.echo(ln, 0)
			case tlsPort:
				go st.origin.echoTLS(ln)
			case webPort:
				go st.origin.serve(ln)
			}
		}
	}
	return nil
}

// settle is how long something is given that nobody tells of.
const settle = 200 * time.Millisecond

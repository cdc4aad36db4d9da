package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive/netpath"
)

// natPath is the NAT in front of all processes, so many times as fast as Azure's load
// balancer. It counts loopback, which a real one never sees.
func natPath(ports, scale int) netpath.Profile {
	path := netpath.AzureLoadBalancer(ports)
	path.Exempt = netpath.NoExempt()
	return fauxnat.Scale(path, scale)
}

// processPath is what the processes believe of it, who book a port for longer than its hold.
// What they send reaches this NAT through a relay that has to be scheduled, and is late. A
// real one sees the packets themselves.
func processPath(ports, scale int, late time.Duration) netpath.Profile {
	path := natPath(ports, scale)
	path.Hold.FIN += late
	path.Hold.RST += late
	path.Hold.SYN += late
	return path
}

// A gateway is the one NAT of all processes, and the server behind it. It lives in the
// parent. A process connects to it, names the destination in a line, and has that
// connection through the NAT when it reads connected.
type gateway struct {
	nat    *fauxnat.NAT
	door   net.Listener // for the processes
	dest   netip.AddrPort
	server *http.Server

	ctx    context.Context // ends all dials: by close
	cancel context.CancelFunc
	runs   sync.WaitGroup
}

const connected = "+"

// openGateway starts one whose server takes so long for an answer. Whoever opens it closes
// it, after the processes have ended.
func openGateway(path netpath.Profile, service time.Duration) (*gateway, error) {
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	behind, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		door.Close()
		return nil, err
	}
	g := &gateway{
		nat:    &fauxnat.NAT{Path: path},
		door:   door,
		dest:   addrOf(behind),
		server: &http.Server{Handler: answerAfter(service)},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.runs.Go(func() { g.server.Serve(behind) })
	g.runs.Go(g.accept)
	return g, nil
}

func addrOf(ln net.Listener) netip.AddrPort { return ln.Addr().(*net.TCPAddr).AddrPort() }

// close returns when nothing of it runs any more.
func (g *gateway) close() {
	g.cancel()
	g.door.Close()
	g.server.Close()
	g.runs.Wait()
}

func (g *gateway) accept() {
	for {
		c, err := g.door.Accept()
		if err != nil {
			return
		}
		g.runs.Go(func() { g.relay(c.(*net.TCPConn)) })
	}
}

// A side is one of the two connections that are relayed.
type side interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
	SetKeepAliveConfig(net.KeepAliveConfig) error
}

// relay carries one connection of a process through the NAT.
func (g *gateway) relay(in *net.TCPConn) {
	defer in.Close()
	address, err := bufio.NewReader(in).ReadString('\n') // no more comes before our answer
	if err != nil {
		return
	}
	out, err := g.dial(in, strings.TrimSuffix(address, "\n"))
	if err != nil {
		return
	}
	defer out.Close()
	// The process probes its end, which the NAT does not see. The relay's probes stand for
	// those.
	out.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second})
	if _, err := io.WriteString(in, connected); err != nil {
		reset(out)
		return
	}
	var back sync.WaitGroup
	back.Go(func() { carry(in, out) })
	carry(out, in)
	back.Wait()
}

// dial dials through the NAT, for as long as the process is there to wait for it.
func (g *gateway) dial(in *net.TCPConn, address string) (side, error) {
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		if _, err := in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel() // it has nothing to say before it is connected: this is its end
		}
	}()
	c, err := g.nat.DialContext(ctx, "tcp", address)
	in.SetReadDeadline(time.Unix(1, 0))
	<-looked
	in.SetReadDeadline(time.Time{})
	if err != nil {
		return nil, err
	}
	out := c.(side)
	if ctx.Err() != nil { // a kernel answers the SYN-ACK for nobody with a RST
		reset(out)
		return nil, ctx.Err()
	}
	return out, nil
}

// carry copies what comes from one side to the other until it ends, and ends the other
// in the same way, on which depends how long the NAT holds the port: a FIN stays a FIN
// and leaves the other direction open, and a RST stays a RST.
func carry(to, from side) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		reset(to)
		reset(from)
	}
}

func reset(c side) {
	c.SetLinger(0)
	c.Close()
}

// through returns a dial function for a process whose gateway is at that address.
func through(gateway netip.AddrPort) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, gateway.String())
		if err != nil {
			return nil, err
		}
		if err := ask(ctx, c, address); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
}

// ask has the gateway connect c to an address. A SYN that the NAT drops is not answered, so
// that this may last until ctx is done.
func ask(ctx context.Context, c net.Conn, address string) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	_, err := io.WriteString(c, address+"\n")
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, len(connected)))
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

const answer = "hello\n"

func answerAfter(service time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pause(r.Context(), service) {
			io.WriteString(w, answer)
		}
	})
}

// pause waits, and reports whether it did to the end.
func pause(ctx context.Context, d time.Duration) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

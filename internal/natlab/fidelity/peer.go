package main

import (
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/natwise/natwise/internal/natlab"
)

// What a peer does with a connection, by the first byte that arrives.
const (
	answer = 'a' // one byte, and wait for the end
	twice  = 't' // two bytes
	finish = 'f' // FIN
	reset  = 'r' // RST
	hang   = 'h' // nothing, until it is killed
)

// A peer is a server that ends connections as it is told.
type peer struct {
	net.Listener
	address netip.AddrPort

	mu      sync.Mutex // guards hanging
	hanging []net.Conn
}

func listen(lab *natlab.Lab, address netip.AddrPort) (*peer, error) {
	ln, err := lab.Listen(address.String())
	if err != nil {
		return nil, err
	}
	p := &peer{Listener: ln, address: address}
	go p.serve()
	return p, nil
}

// serve accepts until the listener is closed.
func (p *peer) serve() {
	for {
		c, err := p.Accept()
		if err != nil {
			return
		}
		go p.obey(c.(*net.TCPConn))
	}
}

func (p *peer) obey(c *net.TCPConn) {
	var command [1]byte
	io.ReadFull(c, command[:])
	switch command[0] {
	case answer:
		c.Write([]byte{answer})
		io.Copy(io.Discard, c)
	case twice:
		c.Write([]byte{twice, twice})
		io.Copy(io.Discard, c)
	case reset:
		c.SetLinger(0)
	case hang:
		p.mu.Lock()
		p.hanging = append(p.hanging, c)
		p.mu.Unlock()
		return
	}
	c.Close()
}

// kill closes what hangs, as the kernel does for a process that is killed.
func (p *peer) kill() {
	p.mu.Lock()
	hanging := p.hanging
	p.hanging = nil
	p.mu.Unlock()
	for _, c := range hanging {
		c.Close()
	}
}

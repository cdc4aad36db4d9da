package main

import (
	"errors"
	"io"
	"net"
	"sync"
)

// A forwarder leads from an address in the client's namespace to a server outside of the lab,
// which may be exchanged for another as a virtual address or a load balancer is. Whoever
// makes it closes it.
type forwarder struct {
	net.Listener
	all sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	server string
	open   map[net.Conn]struct{} // both sides
	closed bool
}

// forward leads what comes to a listener to a server.
func forward(ln net.Listener, server string) *forwarder {
	f := &forwarder{Listener: ln, server: server, open: make(map[net.Conn]struct{})}
	f.all.Go(f.accept)
	return f
}

// to has everybody who comes from now on led to another server, and those who are there
// already come again.
func (f *forwarder) to(server string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = server
	f.cutLocked()
}

func (f *forwarder) cutLocked() {
	for c := range f.open {
		c.Close()
	}
	clear(f.open)
}

func (f *forwarder) close() error {
	err := f.Listener.Close()
	f.mu.Lock()
	f.closed = true
	f.cutLocked()
	f.mu.Unlock()
	f.all.Wait()
	return err
}

func (f *forwarder) accept() {
	for {
		c, err := f.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			f.all.Go(func() { f.lead(c) })
		}
	}
}

// lead carries both ways until one side has ended.
func (f *forwarder) lead(in net.Conn) {
	defer in.Close()
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	out, err := net.Dial("tcp", server)
	if err != nil {
		return // as if it had refused
	}
	defer out.Close()
	if !f.keep(server, in, out) {
		return
	}
	defer f.forget(in, out)
	f.all.Go(func() {
		io.Copy(out, in)
		out.Close()
	})
	io.Copy(in, out)
}

// keep notes connections that are to be cut when the server is exchanged. It reports false if
// that is what happened meanwhile.
func (f *forwarder) keep(server string, cs ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.server != server {
		return false
	}
	for _, c := range cs {
		f.open[c] = struct{}{}
	}
	return true
}

func (f *forwarder) forget(cs ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		delete(f.open, c)
	}
}

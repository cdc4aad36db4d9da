package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/natwise/natwise/keepalive"
)

// A way is one way to hear that an idle connection has ended.
type way interface {
	// adopt is shown all connections before any of them is watched.
	adopt(conns []*net.TCPConn)

	// watch has ended called when connection i has ended.
	watch(i int, ended func()) error

	// stop ends the watching and leaves the connections as they are.
	stop()
}

// An entrant is how a way is named and begun.
type entrant struct {
	name  string
	begin func() way
}

var entrants = []entrant{
	{ourName, func() way { return new(watcherWay) }},
	{readName, func() way { return new(readWay) }},
	{loopsName, func() way { return new(loopsWay) }},
}

// A watcherWay is one Watcher for all.
type watcherWay struct {
	watcher keepalive.Watcher
	conns   []*keepalive.Conn
}

func (w *watcherWay) adopt(conns []*net.TCPConn) {
	w.conns = make([]*keepalive.Conn, len(conns))
	for i, c := range conns {
		w.conns[i] = keepalive.Watch(lent{c}, keepalive.Plan{}, func(keepalive.Ending) {})
	}
}

func (w *watcherWay) watch(i int, ended func()) error {
	if !w.watcher.Watch(w.conns[i], ended) {
		return fmt.Errorf("connection %d is not watched", i)
	}
	return nil
}

func (w *watcherWay) stop() {
	for _, c := range w.conns {
		c.Close()
	}
}

// A lent connection survives the Conn that is made of it: the next way wants it.
type lent struct{ *net.TCPConn }

func (lent) Close() error { return nil }

// A readWay has a goroutine for each connection, which waits for a byte.
type readWay struct {
	conns   []*net.TCPConn
	readers sync.WaitGroup
}

func (w *readWay) adopt(conns []*net.TCPConn) { w.conns = conns }

func (w *readWay) watch(i int, ended func()) error {
	c := w.conns[i]
	w.readers.Go(func() {
		var b [1]byte
		if _, err := c.Read(b[:]); !stopped(err) {
			ended()
		}
	})
	return nil
}

func (w *readWay) stop() { interrupt(w.conns, &w.readers) }

// A loopsWay has two goroutines and two buffers for each connection: one waits
// for an answer, the other for a request that is to be written.
type loopsWay struct {
	conns []*net.TCPConn
	loops sync.WaitGroup
}

func (w *loopsWay) adopt(conns []*net.TCPConn) { w.conns = conns }

func (w *loopsWay) watch(i int, ended func()) error {
	c := w.conns[i]
	in, out := bufio.NewReader(c), bufio.NewWriter(c) // 4 kB each, as net/http's
	requests, closed := make(chan []byte, 1), make(chan struct{})
	w.loops.Go(func() {
		defer close(closed)
		if _, err := in.Peek(1); !stopped(err) {
			ended()
		}
	})
	w.loops.Go(func() {
		select {
		case b := <-requests: // there are none
			out.Write(b)
		case <-closed:
		}
	})
	return nil
}

func (w *loopsWay) stop() { interrupt(w.conns, &w.loops) }

// interrupt wakes whoever reads, without ending what they read from.
func interrupt(conns []*net.TCPConn, readers *sync.WaitGroup) {
	for _, c := range conns {
		c.SetReadDeadline(time.Unix(1, 0))
	}
	readers.Wait()
	for _, c := range conns {
		c.SetReadDeadline(time.Time{})
	}
}

// stopped reports whether a reader was interrupted.
func stopped(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// What the two ends say to each other, a line each. Any other line is echoed.
const (
	sayMute  = "mute" // be unreachable for muteTime, so that a SYN is not answered
	saidMute = "muted"
	saidDeaf = "cannot be muted"
	saidFull = "full"

	maxLine  = 128
	muteTime = time.Second
	backlog  = 4096 // when not mute: what Linux has by default (somaxconn)
)

// serve is the echo server. It ends with ctx, and all connections with it.
func serve(ctx context.Context, o options, w world) error {
	ln, err := w.listen(ctx, o.serve)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.errs, "listening on %v: at most %d connections, each for at most %v; interrupt ends it\n",
		ln.Addr(), o.connections, o.max+time.Minute)
	s := &server{ln: ln, room: make(chan struct{}, o.connections), lasts: o.max + time.Minute}
	defer s.conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	defer ln.Close()
	return s.accept(ctx)
}

// A server echoes lines.
type server struct {
	ln    net.Listener
	room  chan struct{} // holds one for each connection
	lasts time.Duration // how long a connection may last
	muted atomic.Int64  // until when, in nanoseconds since 1970
	conns sync.WaitGroup
}

func (s *server) accept(ctx context.Context) error {
	for {
		c, err := s.ln.Accept()
		switch {
		case err == nil:
			s.welcome(ctx, c)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.beMute(ctx)
		default:
			return err
		}
	}
}

func (s *server) welcome(ctx context.Context, c net.Conn) {
	select {
	case s.room <- struct{}{}:
	default: // not to accept would look like a path without ports
		io.WriteString(c, saidFull+"\n")
		c.Close()
		return
	}
	s.conns.Go(func() {
		defer func() { <-s.room }()
		defer context.AfterFunc(ctx, func() { c.Close() })()
		defer c.Close()
		c.SetDeadline(time.Now().Add(s.lasts))
		s.echo(c)
	})
}

// echo ends with the connection, or with the first line that is too long.
func (s *server) echo(c net.Conn) {
	lines := bufio.NewScanner(c)
	lines.Buffer(make([]byte, maxLine), maxLine)
	for lines.Scan() {
		answer := lines.Text()
		if answer == sayMute {
			answer = s.mute()
		}
		if _, err := io.WriteString(c, answer+"\n"); err != nil {
			return
		}
	}
}

// mute lets the kernel drop the next SYNs but one: nobody accepts, and there is
// no room to wait in.
func (s *server) mute() string {
	ln, ok := s.ln.(*net.TCPListener)
	if !ok || setBacklog(ln, 0) != nil {
		return saidDeaf
	}
	s.muted.Store(time.Now().Add(muteTime).UnixNano())
	ln.SetDeadline(time.Unix(1, 0)) // wakes Accept
	return saidMute
}

// beMute waits until the server may accept again.
func (s *server) beMute(ctx context.Context) {
	left := time.NewTimer(time.Until(time.Unix(0, s.muted.Load())))
	defer left.Stop()
	select {
	case <-left.C:
	case <-ctx.Done():
	}
	ln := s.ln.(*net.TCPListener)
	setBacklog(ln, backlog)
	ln.SetDeadline(time.Time{})
}

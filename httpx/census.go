package httpx

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/natwise/natwise/dialer"
)

// A census counts the exchanges on connections that carry several at a time. The
// zero census is ready to use.
type census struct {
	mu     sync.Mutex
	active map[*dialer.Conn]int
}

func (s *census) join(c *dialer.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		s.active = make(map[*dialer.Conn]int)
	}
	if s.active[c]++; s.active[c] > 1 {
		return
	}
	for old := range s.active { // there is somebody who never closes bodies
		if old.Closed() {
			delete(s.active, old)
		}
	}
}

// leave counts an exchange on c out. If c is of no use any more and carries none, it
// is retired: what somebody writes on it who comes now is refused, and so can be
// repeated.
func (s *census) leave(c *dialer.Conn, useless bool) (retired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[c]--; s.active[c] > 0 {
		return false
	}
	delete(s.active, c)
	return useless && c.Conn.Park(c.Turn()) && c.Retire()
}

// settle counts the exchange of t out: now, or when its answer has been read. Where
// no answer came in time, its connection is not used again, unless others are on it:
// they may wait for as long as they like, and net/http's pings ask for them.
func (s *census) settle(req *http.Request, t *ticket, resp *http.Response, err error) (*http.Response, error) {
	t.mu.Lock()
	a := t.try
	t.mu.Unlock()
	switch {
	case a.shared == nil:
	case err != nil:
		missed := errors.Is(req.Context().Err(), context.DeadlineExceeded) && silent(a.shared, a.began)
		if s.leave(a.shared, missed) {
			a.shared.Asked() // a late answer would meet nobody
			a.shared.Close()
		}
	case req.Method == http.MethodHead || resp.ContentLength == 0:
		s.leave(a.shared, false)
	default:
		resp.Body = &stream{ReadCloser: resp.Body, over: sync.OnceFunc(func() { s.leave(a.shared, false) })}
	}
	return resp, err
}

const (
	// leastSilence is how long an answer may take on a path that is in order.
	leastSilence = time.Second

	kernelTick = 10 * time.Millisecond // how coarse the kernel's times are, at 100 Hz
)

// A stream is a body that says when it is over.
type stream struct {
	io.ReadCloser
	over func()
}

func (s *stream) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	if err != nil {
		s.over()
	}
	return n, err
}

func (s *stream) Close() error {
	s.over()
	return s.ReadCloser.Close()
}

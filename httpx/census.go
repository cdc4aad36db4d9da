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
	s.active[c]++
}

// leave reports whether c carries no exchange any more.
func (s *census) leave(c *dialer.Conn) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[c]--; s.active[c] > 0 {
		return false
	}
	delete(s.active, c)
	return true
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
	case err == nil:
		resp.Body = &stream{ReadCloser: resp.Body, over: sync.OnceFunc(func() { s.leave(a.shared) })}
	case s.leave(a.shared) && errors.Is(req.Context().Err(), context.DeadlineExceeded) && a.silent():
		a.shared.Asked() // a late answer would meet nobody
		a.shared.Close()
	}
	return resp, err
}

// silent reports whether nothing has come on the connection since the attempt began,
// though the kernel does not wait for anything: a machine on the way may have
// acknowledged what it threw away.
func (a attempt) silent() bool {
	const tick = 10 * time.Millisecond // of the kernel's clock, at 100 Hz
	info, err := a.shared.Info()
	return err == nil && info.LastProof+tick >= time.Since(a.began) && info.Retransmits == 0 && !a.shared.Suspect()
}

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

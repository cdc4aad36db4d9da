package httpx

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
)

// An outgoing is the body of a request on its way. net/http closes it, or forgets to,
// before anybody knows whether the request must be sent again.
type outgoing struct {
	io.ReadCloser

	mu      sync.Mutex // guards the fields below
	read    bool       // something was
	broken  bool       // reading it failed, which is the caller's affair
	closed  bool       // by net/http
	settled bool       // it will not be sent again
	over    bool       // ReadCloser is closed
}

// guard returns req with a body that can be sent again if nothing was read of it. What
// net/http sends in a special way it must recognise: that is left as it is.
func guard(req *http.Request) (*http.Request, *outgoing) {
	if !hasBody(req) || inMemory(req.Body) {
		return req, nil
	}
	if _, file := req.Body.(*os.File); file {
		return req, nil
	}
	b := &outgoing{ReadCloser: req.Body}
	sent := *req
	sent.Body = b
	return &sent, b
}

// inMemory reports whether body is what http.NewRequest makes of bytes and strings,
// which goes out in one packet with the header. Closing it does nothing.
func inMemory(body io.ReadCloser) bool {
	if t := reflect.TypeOf(body); t != nopCloser && t != nopCloserWriterTo {
		return false
	}
	switch reflect.ValueOf(body).Field(0).Interface().(type) {
	case *bytes.Reader, *bytes.Buffer, *strings.Reader:
		return true
	}
	return false
}

var (
	nopCloser         = reflect.TypeOf(io.NopCloser(nil))
	nopCloserWriterTo = reflect.TypeOf(io.NopCloser(struct {
		io.Reader
		io.WriterTo
	}{}))
)

func (b *outgoing) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.read = true
	b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.mu.Lock()
		b.broken = b.broken || !b.closed // after that an error is of no interest
		b.mu.Unlock()
	}
	return n, err
}

// failed reports whether it was the body that could not be read.
func (b *outgoing) failed() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

// Close closes the body, unless it is not needed any more only for this time.
func (b *outgoing) Close() error { return b.close(func() { b.closed = true }) }

// settle says that the body will not be sent again.
func (b *outgoing) settle() {
	if b != nil {
		b.close(func() { b.settled = true })
	}
}

// close notes something, and closes the body if that is due now.
func (b *outgoing) close(note func()) error {
	b.mu.Lock()
	note()
	due := b.closed && (b.read || b.settled) && !b.over
	b.over = b.over || due
	b.mu.Unlock()
	if due {
		return b.ReadCloser.Close()
	}
	return nil
}

// finish closes the body of a request that has failed for good.
func (b *outgoing) finish(req *http.Request) {
	if b == nil {
		closeBody(req)
		return
	}
	b.settle()
	b.Close()
}

// rewind returns sent with its body from the beginning, or nil if that cannot be had.
func (b *outgoing) rewind(sent *http.Request) (*http.Request, *outgoing) {
	if !hasBody(sent) || b.untouch() {
		return sent, b
	}
	again, ok := rewind(sent)
	if !ok {
		return nil, b
	}
	b.finish(sent)
	return guard(again)
}

// untouch reports whether nothing was read of b, which then is as good as new.
func (b *outgoing) untouch() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read {
		return false
	}
	b.closed = false
	return true
}

// closeBody closes the body of a request that was not sent.
func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

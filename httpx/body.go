package httpx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// drainBytes and drainTime bound what is read of a body that nobody wants to save
	// its connection: what net/http has from Go 1.27 on.
	drainBytes = 256 << 10
	drainTime  = 50 * time.Millisecond
)

// A body is a response's. When it is over, so is its exchange.
type body struct {
	io.ReadCloser // net/http's
	x             *exchange
	left          atomic.Int64 // bytes; negative: nobody knows
	over          atomic.Bool
	tether        *tether
	unhook        func() bool // from the request's context; nil: net/http listens to that
}

// A delivered response is a copy: net/http keeps its own for as long as the body is open,
// and with it what would be forgotten.
type delivered struct {
	http.Response
	body body
}

// wrap makes the body of resp end the exchange.
func (x *exchange) wrap(resp *http.Response) *http.Response {
	if resp.Trailer == nil && resp.ContentLength < 0 {
		resp.Trailer = make(http.Header) // net/http puts them there at the end
	}
	d := &delivered{Response: *resp}
	b := &d.body
	b.ReadCloser, b.x = resp.Body, x
	b.left.Store(resp.ContentLength)
	d.Body = b
	if x.done != nil {
		b.unhook = x.listen()
	}
	if x.user.leaky.Load() {
		x.place = callers()
	}
	b.tether = x.conn.tie(x, resp.Body)
	return &d.Response
}

// A tether is held by one open body alone: when nobody can reach it any more, that was
// forgotten. It serves one body of its connection after the other, since to set a finalizer
// for each would cost as much as all else that is done here for a request.
type tether struct {
	x    *exchange // nil: it holds none
	body io.Closer // net/http's
	next *tether   // in the connection's list of those that hold none
}

// tie returns a tether for a body.
func (c *conn) tie(x *exchange, body io.Closer) *tether {
	c.mu.Lock()
	t := c.tethers
	if t != nil {
		c.tethers = t.next
	}
	c.mu.Unlock()
	if t == nil {
		t = new(tether)
		runtime.SetFinalizer(t, (*tether).forgotten)
	}
	*t = tether{x: x, body: body}
	return t
}

func (c *conn) untie(t *tether) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*t = tether{next: c.tethers}
	c.tethers = t
}

// listen ends the exchange when the caller calls it off while the body is read.
func (x *exchange) listen() (unhook func() bool) {
	ctx := x.Context()
	if x.Cancel != nil {
		ctx, x.release = withCancel(ctx, x.Cancel)
	}
	return context.AfterFunc(ctx, func() { x.cancel(context.Cause(ctx)) })
}

func (b *body) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	if left := b.left.Load(); left > 0 {
		b.left.Store(max(0, left-int64(n)))
	}
	if err != nil {
		if err != io.EOF {
			err = b.x.explainBody(err)
		}
		b.end(err == io.EOF)
	}
	return n, err
}

// explainBody returns what the caller is told when the body breaks off.
func (x *exchange) explainBody(err error) error {
	if x.done != nil {
		if why := x.canceled(); why != nil {
			err = why
		}
	}
	return x.explain(err)
}

// Close gives the rest up. It is read all the same if that saves the connection and
// takes no longer than 50 ms and 256 KiB.
func (b *body) Close() error {
	if b.over.Load() || b.x.conn.shared || b.left.Load() > drainBytes {
		err := b.ReadCloser.Close()
		b.end(b.x.conn.shared)
		return err
	}
	b.end(drain(b.ReadCloser))
	return nil
}

func (b *body) end(clean bool) {
	if b.over.Swap(true) {
		return
	}
	b.x.conn.untie(b.tether)
	b.tether = nil // it may serve another body while this one is still held
	if b.unhook != nil {
		b.unhook()
	}
	b.x.over(clean)
}

// drain reads the rest of a body, within bounds, and closes it. It reports whether that
// was all.
func drain(body io.ReadCloser) bool {
	defer body.Close()
	defer time.AfterFunc(drainTime, func() { body.Close() }).Stop()
	n, err := io.CopyN(io.Discard, body, drainBytes+1)
	return n <= drainBytes && err == io.EOF
}

// forgotten takes the connection back from a caller who has lost the body without Close.
func (t *tether) forgotten() {
	x := t.x
	if x == nil {
		return // its connection is gone
	}
	x.user.leaky.Store(true)
	go func() { // what this takes is not the garbage collector's affair
		const text = "a response body was forgotten without Close"
		about, made := x.URL.Host, "not known: the next one will be"
		if x.place != "" { // each place by itself: they are what has to be mended
			about, made = about+", "+x.place, x.place
		}
		args := []any{"method", x.Method, "host", x.URL.Host, "made", made}
		told := x.user.stock.scope.Warn("leak", about, text, args...)
		if log := x.transport.Logger; told && log != nil {
			log.Warn("httpx: "+text, args...)
		}
		t.body.Close()
		x.over(x.conn.shared)
	}()
}

// callers names the function and line that made the request: the first one that is
// neither natwise's nor net/http's.
func callers() string {
	var stack [32]uintptr
	frames := runtime.CallersFrames(stack[:runtime.Callers(3, stack[:])])
	for {
		f, more := frames.Next()
		ours := strings.HasPrefix(f.Function, "github.com/natwise/natwise/httpx.") || strings.HasPrefix(f.Function, "net/http.")
		if !more || !ours {
			return fmt.Sprintf("%s (%s:%d)", f.Function, f.File, f.Line)
		}
	}
}

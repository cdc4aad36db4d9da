package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/natwise/natwise/keepalive"
)

const (
	connectPatience = 3500 * time.Millisecond // two SYNs may be lost: the third leaves after 3 s
	leastPatience   = time.Second             // with an answer

	// settle is how long the acknowledgement of an answer may be delayed, and
	// some more. It would fall into the silence.
	settle = 60 * time.Millisecond
)

var (
	// errNoAnswer says that nobody answered a SYN.
	errNoAnswer = errors.New("no answer")

	// errFull says that the server has no room. It is not the path that has none.
	errFull = errors.New("the server serves no more connections (its flag -connections)")
)

// A flow is one connection to the server. Nothing but what it is asked is sent
// on it. One goroutine at a time may use it; any may close it.
type flow struct {
	*keepalive.Conn
	lines    *bufio.Reader
	token    uint64        // so that an answer cannot be another's
	asked    int           // questions
	rtt      time.Duration // of the first question, which is an upper bound
	answered time.Time     // when the last answer came
}

// connect opens a flow and asks it once. The error is the context's if that has
// ended.
func (p *prober) connect(ctx context.Context, patience time.Duration) (*flow, error) {
	dialing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := p.open(dialing)
	if err == nil {
		defer context.AfterFunc(ctx, func() { f.Close() })()
		if err = f.ask(connectPatience); err == nil {
			return f, nil
		}
		f.abandon()
	} else if keepalive.FaultOf(err) == keepalive.Deadline {
		err = fmt.Errorf("%w within %v", errNoAnswer, patience)
	}
	return nil, cmp.Or(ctx.Err(), err)
}

// open opens a flow and asks nothing: a server that does not accept answers
// nothing.
func (p *prober) open(ctx context.Context) (*flow, error) {
	c, err := p.world.dial(ctx, "tcp", p.dest.String())
	if err != nil {
		return nil, err
	}
	w := keepalive.Watch(c, keepalive.Plan{Idle: -1}, func(keepalive.Ending) {})
	return &flow{Conn: w, lines: bufio.NewReaderSize(w, maxLine), token: rand.Uint64()}, nil
}

// ask sends a line and waits for the same line.
func (f *flow) ask(patience time.Duration) error {
	f.asked++
	question := fmt.Sprintf("%016x %d", f.token, f.asked)
	start := time.Now()
	answer, err := f.say(question, patience)
	switch {
	case err != nil:
		return err
	case answer == saidFull:
		return errFull
	case answer != question:
		return fmt.Errorf("this is no echo server: to %q it said %q", question, answer)
	}
	f.answered = time.Now()
	if f.asked == 1 {
		f.rtt = f.answered.Sub(start)
	}
	return nil
}

// say sends a line and returns the server's.
func (f *flow) say(line string, patience time.Duration) (string, error) {
	f.SetDeadline(time.Now().Add(patience))
	defer f.SetDeadline(time.Time{})
	if _, err := io.WriteString(f, line+"\n"); err != nil {
		return "", err
	}
	answer, err := f.lines.ReadSlice('\n')
	return strings.TrimSuffix(string(answer), "\n"), err
}

// patience is how long an answer may take: 1 s or four retransmission timeouts.
func (f *flow) patience() time.Duration {
	rto := 200*time.Millisecond + 2*f.rtt // where the kernel does not tell
	if info, err := f.Info(); err == nil && info.RTO > 0 {
		rto = info.RTO
	}
	return max(leastPatience, 4*rto)
}

// hush waits until a moment and wants nothing to come. The error is nil if
// nothing did, io.EOF for a FIN, and what else the connection says.
func (f *flow) hush(until time.Time) error {
	f.SetReadDeadline(until)
	_, err := f.lines.Peek(1)
	switch {
	case err == nil:
		return errors.New("the server spoke without being asked")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	}
	return err
}

// segments counts what has passed in both directions. It reports false where the
// kernel does not tell.
func (f *flow) segments() (n int, ok bool) {
	info, err := f.Info()
	return info.SegmentsIn + info.SegmentsOut, err == nil && info.SegmentsIn > 0
}

// abandon ends a flow by RST, so that nothing of it is sent again and again.
func (f *flow) abandon() {
	if c, ok := f.NetConn().(interface{ SetLinger(int) error }); ok {
		c.SetLinger(0)
	}
	f.Close()
}

// keep lets the kernel keep a flow known to its path.
func (f *flow) keep() {
	if c, ok := f.NetConn().(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3})
	}
}

package keepalive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrBlackhole says that packets of a connection vanish on the way: what was sent
// was not acknowledged, or keepalive probes were not answered. It is in every
// *BlackholeError.
var ErrBlackhole = errors.New("keepalive: black hole")

// A BlackholeError ends a connection whose packets vanish. What was written may
// have arrived all the same. Read and Write return it within a *net.OpError; it
// matches ErrBlackhole and, if the kernel found out, syscall.ETIMEDOUT. Although
// that one says otherwise it is no timeout: no deadline of the caller's has passed.
type BlackholeError struct {
	Evidence Evidence
	Silence  time.Duration // for how long nothing had come; 0: not known
	Err      error         // the kernel's, or nil
}

// Evidence is what somebody knows a black hole by.
type Evidence uint8

const (
	GaveUp  Evidence = iota // the kernel has waited for its user timeout, or for the answer to its probes
	Others                  // other connections to the same address live
	Control                 // a new connection to the same address could be opened
)

var evidences = [...]string{"the kernel gave up", "others to the same address live", "a new one to the same address works"}

func (e Evidence) String() string {
	if int(e) < len(evidences) {
		return evidences[e]
	}
	return "unknown"
}

func (e *BlackholeError) Error() string {
	what := ErrBlackhole.Error() + ": " + e.Evidence.String()
	if e.Silence > 0 {
		what += fmt.Sprintf(", this one was silent for %v", e.Silence.Round(time.Millisecond))
	}
	return what
}

func (e *BlackholeError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrBlackhole}
	}
	return []error{ErrBlackhole, e.Err}
}

// Timeout is false, and so is Temporary, as net.Error wants them: who waits
// longer, or tries again on the same connection, waits in vain.
func (e *BlackholeError) Timeout() bool   { return false }
func (e *BlackholeError) Temporary() bool { return false }

// ErrorType is what telemetry says of the error.
func (e *BlackholeError) ErrorType() string { return "natwise.blackhole" }

var _ net.Error = (*BlackholeError)(nil)

// A Fault is what an error of a connection says about it.
type Fault uint8

const (
	NoFault     Fault = iota // none of the others; nil too
	Deadline                 // the caller's own clock ran out: it says nothing, unless an answer was due
	Blackhole                // packets vanish
	Unreachable              // a router has said so: ICMP
	Reset                    // a RST has come, from the peer or a machine on the way
	Finished                 // the peer's FIN has come, before what was to be read
	Shut                     // this side has closed it, or retired it
)

var faults = [...]string{"none", "deadline", "blackhole", "unreachable", "reset", "finished", "shut"}

// String returns the fault as telemetry names it: "blackhole".
func (f Fault) String() string {
	if int(f) < len(faults) {
		return faults[f]
	}
	return "unknown"
}

// FaultOf tells errors of a connection apart by what caused them. Ask it before
// the error's Timeout method, which is true of the kernel's verdict as of the
// caller's deadline. An ErrEnded of which nobody knows more counts as a reset.
func FaultOf(err error) Fault {
	switch {
	case err == nil:
	case refused(err): // before isUnreachable
		return Reset
	case errors.Is(err, ErrBlackhole) || isTimedOut(err) || errors.Is(err, ErrStale):
		return Blackhole
	case isUnreachable(err):
		return Unreachable
	case isReset(err) || errors.Is(err, syscall.EPIPE) || errors.Is(err, ErrEnded):
		return Reset
	case errors.Is(err, net.ErrClosed) || errors.Is(err, ErrRetired):
		return Shut
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		return Deadline
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return Finished
	}
	return NoFault
}

// refused reports whether err is that of a connect which was answered with a RST. On
// a connection that is there, the same number means an ICMP message.
func refused(err error) bool {
	if !isRefused(err) {
		return false
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

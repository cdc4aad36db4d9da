package keepalive

import "time"

// An Ending says how a flow ended, as far as this side knows. It decides for
// how long the path holds the port.
type Ending struct {
	How How

	// Unsure: the last segment may not have reached the path, or came after
	// another that counts for longer. Expect the longest hold.
	Unsure bool

	// Err is why the connection was given up, for TimedOut: a *BlackholeError, or
	// nil if that is all that is known.
	Err error

	// Gap, if not zero, is the silence after which no keepalive probe was
	// answered, as Plan.Idle had it.
	Gap time.Duration

	// Lost: nobody closed the connection; the garbage collector found it.
	Lost bool
}

// How is a way in which a flow ends.
type How uint8

const (
	FINByUs    How = iota // we closed first, and the peer's FIN has come
	FINByPeer             // the peer closed first, then we did
	RSTByUs               // we reset it, or closed it with data unread
	RSTByPeer             // the peer, or a box on the way, reset it
	TimedOut              // the kernel gave up: no answer within the user timeout or to the probes
	Refused               // the connect was answered with a RST
	Unanswered            // the connect was not answered
	Forgotten             // it was silent for longer than the path remembers

	Hows // how many there are
)

var hows = [Hows]string{
	"fin-by-us", "fin-by-peer", "rst-by-us", "rst-by-peer", "timed-out", "refused", "unanswered", "forgotten",
}

// String returns the ending as telemetry names it: "rst-by-peer".
func (h How) String() string {
	if h < Hows {
		return hows[h]
	}
	return "unknown"
}

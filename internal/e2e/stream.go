package main

import (
	"context"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/sqlx"
)

const (
	inTime = 250 * time.Millisecond // later is not well
	calm   = time.Second            // for so long all has to be well before the end, or it is not known when it was
)

// A stream is what one client is asked.
type stream struct {
	*client
	work.Stream

	// The accident, its end, and the end of all.
	struck, mended, over mark
}

// A mark is a time, and how many connections were dialed until then.
type mark struct {
	at    time.Time
	dials int
}

func newStream(of *client) *stream {
	return &stream{client: of, Stream: work.Stream{Every: rate, Deadline: impatience}}
}

// askAt asks what is no harm to ask twice, which only ours can be told.
func (s *stream) askAt(due time.Time) {
	s.Ask(due, takes, func(ctx context.Context) error { return s.ask(sqlx.Idempotent(ctx), takes) })
}

// late returns how late those queries were that were over after the accident.
func (s *stream) late() work.Lateness { return s.Between(s.struck.at, time.Time{}) }

// recovery is how long after the accident all was well again.
func (s *stream) recovery() work.Reading { return s.Recovery(s.struck.at, inTime, calm) }

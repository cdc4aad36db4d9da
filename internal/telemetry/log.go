package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"time"
)

// A Record is something that somebody should know of.
type Record struct {
	At    time.Time
	Kind  string // "budget", "blackhole", "leak", "refused"
	About string // an address, or an engine's name
	Text  string
	Times int // since the last one of its kind about the same
}

const (
	records = 200 // that are kept

	// quiet is for how long after a warning the next of its kind, about the same, is only
	// counted.
	quiet = time.Minute
)

// journal is what was warned of last.
type journal struct {
	kept []Record
	next int // the oldest, once there are as many as are kept
	told map[subject]*telling
}

type subject struct{ kind, about string }

type telling struct {
	at     time.Time
	silent int // times since
}

// Warn tells the logger, and keeps for whoever looks, what has happened, at most once a
// minute for each kind and address.
func (s *Scope) Warn(kind, about, text string, args ...any) { s.warn(kind, about, text, args...) }

func (s *Scope) warn(kind, about, text string, args ...any) (told bool) {
	times, due := s.note(kind, about, text)
	if due {
		s.say(slog.LevelWarn, times, text, args...)
	}
	return due
}

// say tells the logger, if there is one, of what has happened so many times.
func (s *Scope) say(level slog.Level, times int, text string, args ...any) {
	if s.cfg.Logger == nil {
		return
	}
	if s.cfg.Name != "" {
		args = append(args, "ledger", s.cfg.Name)
	}
	if times > 1 {
		args = append(args, "times", times)
	}
	s.cfg.Logger.Log(context.Background(), level, "natwise: "+text, args...)
}

// Due reports whether Warn would tell. If not, what would have been told is counted: there is no
// need to find out what that is.
func (s *Scope) Due(kind, about string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.journal.told[subject{kind, about}]
	if t == nil || time.Since(t.at) >= quiet {
		return true
	}
	t.silent++
	return false
}

func (s *Scope) note(kind, about, text string) (times int, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := &s.journal
	now := time.Now()
	of := subject{kind, about}
	t := j.told[of]
	if t != nil && now.Sub(t.at) < quiet {
		t.silent++
		return 0, false
	}
	if t == nil {
		if len(j.told) >= most {
			maps.DeleteFunc(j.told, func(_ subject, t *telling) bool { return now.Sub(t.at) >= quiet })
		}
		if len(j.told) >= most { // so many in a minute are more than anybody reads
			j.keep(Record{At: now, Kind: kind, About: about, Text: text, Times: 1})
			return 0, false
		}
		if j.told == nil {
			j.told = make(map[subject]*telling)
		}
		t = new(telling)
		j.told[of] = t
	}
	times = t.silent + 1
	*t = telling{at: now}
	j.keep(Record{At: now, Kind: kind, About: about, Text: text, Times: times})
	return times, true
}

func (j *journal) keep(r Record) {
	if len(j.kept) < records {
		j.kept = append(j.kept, r)
		return
	}
	j.kept[j.next] = r
	j.next = (j.next + 1) % records
}

// Records returns what was warned of, the latest last.
func (s *Scope) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := &s.journal
	return append(append([]Record(nil), j.kept[j.next:]...), j.kept[:j.next]...)
}

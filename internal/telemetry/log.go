package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"time"
)

// A Record is something that somebody should know of.
type Record struct {
	At    time.Time
	Kind  string // "budget", "blackhole", "degraded", "leak", "refused"
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
	told map[string]*subjects
}

// subjects are what warnings of one kind were about. Each kind has its own: if a thousand
// connections leak, nobody is to miss that a budget is degraded.
type subjects struct {
	about map[string]*telling
	rest  telling // about those that are too many
}

type telling struct {
	at     time.Time
	silent int // times since
}

func (t *telling) due(now time.Time) bool { return now.Sub(t.at) >= quiet }

// of returns what was told about one subject, or about the rest if so many others were warned of
// within a minute: they are more than anybody reads.
func (j *journal) of(kind, about string, now time.Time) (t *telling, rest bool) {
	k := j.told[kind]
	if k == nil {
		k = &subjects{about: make(map[string]*telling)}
		if j.told == nil {
			j.told = make(map[string]*subjects)
		}
		j.told[kind] = k
	}
	if t := k.about[about]; t != nil {
		return t, false
	}
	if len(k.about) >= most {
		maps.DeleteFunc(k.about, func(_ string, t *telling) bool { return t.due(now) })
	}
	if len(k.about) >= most {
		return &k.rest, true
	}
	t = new(telling)
	k.about[about] = t
	return t, false
}

// Warn tells the logger, and keeps for whoever looks, what has happened, at most once a
// minute for each kind and address. Of a kind of which there is too much, one stands for the rest.
// It reports whether it has told.
func (s *Scope) Warn(kind, about, text string, args ...any) (told bool) {
	times, rest := s.note(kind, about, text)
	if times == 0 {
		return false
	}
	if rest {
		text = fmt.Sprintf("more than %d within a minute, this one stands for the rest: %s", most, text)
	}
	s.say(slog.LevelWarn, times, text, args...)
	return true
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
	now := time.Now()
	t, _ := s.journal.of(kind, about, now)
	if !t.due(now) {
		t.silent++
		return false
	}
	return true
}

// note returns how many times something has happened of which somebody is to be told now; 0: nobody
// is.
func (s *Scope) note(kind, about, text string) (times int, rest bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := &s.journal
	now := time.Now()
	t, rest := j.of(kind, about, now)
	if t.due(now) {
		times = t.silent + 1
		*t = telling{at: now}
	} else {
		t.silent++
	}
	switch {
	case rest: // here each can be seen, since the logger does not name them
		j.keep(Record{At: now, Kind: kind, About: about, Text: text, Times: 1})
	case times > 0:
		j.keep(Record{At: now, Kind: kind, About: about, Text: text, Times: times})
	}
	return times, rest
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

package main

import (
	"database/sql/driver"
	"errors"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab/work"
)

// A fate is what the client was told of an INSERT.
type fate uint8

const (
	unsent  fate = iota // nobody has begun it, or the end came before the answer
	stored              // with success
	strange             // with another success than it can have
	safe                // it has failed, and cannot have run
	unknown             // it has failed, and may have run
)

// judge says what a client is told by err.
func judge(err error) fate {
	switch {
	case err == nil:
		return stored
	case errors.Is(err, errStrange):
		return strange
	case dialer.SafeToRetry(err) || errors.Is(err, driver.ErrBadConn):
		return safe
	}
	return unknown
}

// A verdict is what the server has of the INSERTs of a crowd, beside what their client
// was told.
type verdict struct {
	sent, stored, safe int
	ran, lost          int // of those that may have run: they did, or did not

	// What must not be.
	twice    [ways]int // there is more than one row, by how it was sent
	phantoms int       // succeeded, and there is no row
	broken   int       // cannot have run, and there is one
	strange  int       // of another number of rows

	causes map[fate]work.Causes
}

// weigh compares each INSERT's fate with its rows.
func weigh(sent []insert, way func(i int) way, rows func(i int) int) (v verdict) {
	v.causes = make(map[fate]work.Causes)
	for i, in := range sent {
		n := rows(i)
		if n > 1 {
			v.twice[way(i)]++
		}
		if in.fate == unsent {
			continue
		}
		v.sent++
		if in.err != nil {
			of := v.causes[in.fate]
			of.Add(in.err)
			v.causes[in.fate] = of
		}
		switch {
		case in.fate == strange:
			v.strange++
		case in.fate == stored && n == 0:
			v.phantoms++
		case in.fate == stored:
			v.stored++
		case in.fate == safe && n > 0:
			v.broken++
		case in.fate == safe:
			v.safe++
		case n > 0:
			v.ran++
		default:
			v.lost++
		}
	}
	return v
}

// noteInserts notes what became of the INSERTs of ours and of a peer. All is told of rows
// by id.
func noteInserts(r *work.Report, rows map[int]int, own, peer *crowd) {
	v := weigh(own.sent, own.way, func(i int) int { return rows[own.id(i)] })
	p := weigh(peer.sent, peer.way, func(i int) int { return rows[peer.id(i)] })
	for _, f := range []struct {
		figure    string
		own, peer int
		of        fate // whose causes are told
		asked     bool // that there is none
	}{
		{"INSERTs", v.sent, p.sent, stored, false},
		{"succeeded", v.stored, p.stored, stored, false},
		{"failed, cannot have run, did not", v.safe, p.safe, safe, false},
		{"failed, may have run, did", v.ran, p.ran, unknown, false},
		{"failed, may have run, did not", v.lost, p.lost, stored, false},
		{"succeeded, no row", v.phantoms, p.phantoms, stored, true},
		{"failed, cannot have run, did", v.broken, p.broken, safe, true},
		{"other than one row", v.strange, p.strange, strange, true},
	} {
		m := work.Told(f.figure, "", work.Number(f.own)).At(own.driver, "").Beside(plain, work.Number(f.peer)).
			Said(v.causes[f.of].Err(), p.causes[f.of].Err())
		if f.asked {
			m = m.AtMost(0)
		}
		if want := len(own.sent); f.figure == "INSERTs" && f.own < want {
			m.Miss("%d were to be sent, and time was over", want)
		}
		r.Note(m)
	}
	for w := range ways {
		r.Note(work.Told("more than one row", "", work.Number(v.twice[w])).At(own.driver, w.String()).
			Beside(plain, work.Number(p.twice[w])).AtMost(0))
	}
}

// noteFaults notes how often what struck. What never did has proved nothing.
func noteFaults(r *work.Report, t toll, took time.Duration) {
	for _, f := range []struct {
		figure string
		kind   kind
	}{
		{"flows forgotten by the gateway", forget},
		{"flows reset by the gateway", cut},
		{"connections terminated by the server", terminate},
		{"connections terminated after the commit", stranded},
		{"servers killed", killed},
		{"servers killed, without a word", vanished},
		{"servers killed after commits", orphaned},
	} {
		m := work.Told(f.figure, "", work.Number(t[f.kind]))
		if t[f.kind] == 0 && took >= round {
			m.Miss("there was none")
		}
		r.Note(m)
	}
	r.Note(work.Told("it took", "s", work.Seconds(took)))
}

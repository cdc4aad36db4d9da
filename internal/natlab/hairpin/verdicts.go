package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/natwise/natwise/internal/natlab/work"
)

// classes are what an episode can be, and be called; it can be called unknown, too. The slow
// ones come first.
var classes = []string{"hairpin", healthy, "exhausted", "path-down", "peer-down", "unreachable", "local-ports", "dns"}

const (
	episodes     = 20 // of each class
	episodesFull = 150

	venues = 20 // at a time: they mostly wait

	wrong = 0.05 // the share of a class that may be missed, or be another

	mistakesTold = 5 // of each class, in full
)

// seed is where chance begins; zero: anywhere.
var seed uint64

// verdicts plays episodes of all classes. Hairpins do not happen beside others, nor beside each
// other: what the kernel counts for them it counts for the whole machine.
func verdicts(r *work.Report) error {
	if seed == 0 {
		seed = rand.Uint64()>>32 + 1
	}
	n := episodes
	if r.Full {
		n = episodesFull
	}
	p := &playbill{venues: make(chan *venue, venues)}
	defer p.close()
	for range venues {
		p.venues <- nil // opened by who needs it
	}
	before := 0
	for i, class := range classes {
		atOnce := venues
		if class == "hairpin" {
			atOnce = 1
		}
		turns := make(chan struct{}, atOnce)
		for j := range n {
			turns <- struct{}{}
			chance := rand.New(rand.NewPCG(seed, uint64(i)<<32+uint64(j)))
			p.playing.Go(func() {
				p.play(class, chance)
				<-turns
			})
		}
		if class == "hairpin" {
			p.playing.Wait()
			before = martians()
		}
	}
	p.playing.Wait()
	r.Note(work.Told("seed", "", work.Reading{Value: float64(seed)}))
	r.Note(work.Told("SYNs that came back to others on this machine, beside all but hairpins", "", work.Number(martians()-before)))
	p.matrix().note(r)
	return errors.Join(p.failed...)
}

// A playbill is the episodes, and where they are played.
type playbill struct {
	playing sync.WaitGroup
	venues  chan *venue // that are free; nil: not open yet

	mu     sync.Mutex // guards the fields below
	played []*episode
	failed []error // in what was to be measured with, not in what was measured
}

func (p *playbill) play(class string, chance *rand.Rand) {
	v := <-p.venues
	e, err := p.perform(&v, class, chance)
	p.venues <- v
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed = append(p.failed, fmt.Errorf("%s: %s%w", class, e.about, err))
		return
	}
	p.played = append(p.played, e)
}

func (p *playbill) perform(v **venue, class string, chance *rand.Rand) (e *episode, err error) {
	e = &episode{class: class, chance: chance}
	if *v != nil && (*v).used() {
		err = (*v).close()
		*v = nil
	}
	if *v == nil && err == nil {
		*v, err = openVenue(chance)
	}
	if err != nil {
		return e, err
	}
	if e.venue = *v; e.old {
		e.tell("an older kernel")
	}
	err = scenes[class][chance.IntN(len(scenes[class]))](e)
	return e, errors.Join(err, e.end())
}

func (p *playbill) close() {
	for range venues {
		if v := <-p.venues; v != nil {
			v.close()
		}
	}
}

// told is an error that says everything; nil: there is nothing to say.
func told(all []string) error {
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "\n    "))
}

// A matrix is how often episodes of a class were called what: by class, then by verdict.
type matrix map[string]map[string][]*episode

func (p *playbill) matrix() matrix {
	m := make(matrix)
	for _, e := range p.played {
		if m[e.class] == nil {
			m[e.class] = make(map[string][]*episode)
		}
		called := e.called()
		m[e.class][called] = append(m[e.class][called], e)
	}
	return m
}

// note notes what became of each class, and of each verdict.
func (m matrix) note(r *work.Report) {
	for _, class := range classes {
		all, right := 0, len(m[class][class])
		var row []string
		var mistakes []string
		for _, called := range append(slices.Clone(classes), "unknown") {
			found := m[class][called]
			if all += len(found); len(found) == 0 {
				continue
			}
			row = append(row, fmt.Sprintf("%d %s", len(found), called))
			for _, e := range found {
				if called != class && len(mistakes) < mistakesTold {
					mistakes = append(mistakes, e.String())
				}
			}
		}
		given := 0
		for _, other := range classes {
			given += len(m[other][class])
		}
		at := func(x work.Measurement) { r.Note(x.At(class, "")) }
		at(work.Told("called "+strings.Join(row, ", "), "episodes", work.Number(all)).Said(told(mistakes), nil))
		at(work.Told("not recognised (1 - recall)", "%", share(all-right, all)).AtMost(100 * wrong))
		at(work.Told("are others (1 - precision)", "%", share(given-right, given)).AtMost(100 * wrong))
	}
	alarms := len(m[healthy]["exhausted"]) + len(m[healthy]["hairpin"])
	r.Note(work.Told("called exhausted or hairpin", "", work.Number(alarms)).At(healthy, "").AtMost(0))
}

package work

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// An Act is something that happens to connections or clients, and what is measured then.
type Act struct {
	Name  string // the scenario's, for -only and in what is printed
	About string
	Alone bool // nothing else runs meanwhile
	Play  func(r *Report) error
}

// A Command is a measuring main. Its fields do not change while it runs.
type Command struct {
	Name string // of the program, in what it says on standard error
	Acts []Act

	// Peer is who most figures stand beside: a column of the table has that title.
	Peer string

	// Order sorts the measurements of an act. Nil: as they were noted.
	Order func(a, b Measurement) int

	// Flags add flags of its own.
	Flags []func(*flag.FlagSet)

	// Unavailable is what an act's error is if something that it needs is not here, besides
	// natlab.ErrUnavailable. Nil: nothing else is needed.
	Unavailable error
}

// Run does what the arguments say, which are those of ParseOptions. It returns the exit
// status: 0 if all bounds were kept, 1 if not, 2 for bad arguments. Who runs alone comes
// first, one after the other, then the rest side by side; they are printed as they stand in
// Acts.
func (c *Command) Run(args []string, stdout, stderr io.Writer) int {
	o, status, ok := ParseOptions(c.Name, args, stderr, c.Flags...)
	if !ok {
		return status
	}
	acts, err := c.choose(o.Only)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", c.Name, err)
		return 2
	}
	for _, played := range c.perform(acts, o.Full, stderr) {
		r := <-played
		if err := r.write(stdout, o.JSON, c.Peer); err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", c.Name, err)
			return 1
		}
		if !r.kept() {
			status = 1
		}
	}
	return status
}

// choose returns the act of that name, or all for no name.
func (c *Command) choose(name string) ([]Act, error) {
	if name == "" {
		return c.Acts, nil
	}
	var names []string
	for _, a := range c.Acts {
		if a.Name == name {
			return []Act{a}, nil
		}
		names = append(names, a.Name)
	}
	return nil, fmt.Errorf("no scenario %q, there are %s", name, strings.Join(names, ", "))
}

// perform has the acts played, each of which sends its report when it is over.
func (c *Command) perform(acts []Act, full bool, progress io.Writer) []chan *Report {
	var reports []chan *Report
	for range acts {
		reports = append(reports, make(chan *Report, 1)) // whoever plays waits for nobody
	}
	var mu sync.Mutex // guards progress
	play := func(i int) {
		begin := time.Now()
		r := c.play(acts[i], full)
		mu.Lock()
		fmt.Fprintf(progress, "%s: %s, %.1f s\n", r.Name, r.summary(), time.Since(begin).Seconds())
		mu.Unlock()
		reports[i] <- r
	}
	go func() {
		for i, a := range acts {
			if a.Alone {
				play(i)
			}
		}
		for i, a := range acts {
			if !a.Alone {
				go play(i)
			}
		}
	}()
	return reports
}

// play plays one act, and notes why that could not be done to its end.
func (c *Command) play(a Act, full bool) *Report {
	r := &Report{Act: a, Full: full}
	switch err := a.Play(r); {
	case errors.Is(err, natlab.ErrUnavailable) || c.Unavailable != nil && errors.Is(err, c.Unavailable):
		r.Note(Measurement{Figure: "everything", Status: Skipped, Why: err.Error()})
	case err != nil:
		r.Note(Measurement{Figure: "everything", Status: Missed, Why: err.Error()})
	}
	if c.Order != nil {
		slices.SortStableFunc(r.measurements, c.Order)
	}
	return r
}

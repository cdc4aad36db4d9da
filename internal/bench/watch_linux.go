package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/natwise/natwise/internal/leak"
)

// playWatch has every way watch the same n connections as often as there are
// rounds. Who begins moves on by one each round.
func playWatch(n, rounds, events int, progress io.Writer) (turns map[string][]turn, err error) {
	c, err := openCrowd(n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	turns = make(map[string][]turn)
	for round := range rounds {
		fmt.Fprintf(progress, "watch: round %d of %d, %d connections\n", round+1, rounds, n)
		for k := range entrants {
			e := entrants[(round+k)%len(entrants)]
			t, err := c.play(e.begin(), events)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			turns[e.name] = append(turns[e.name], t)
		}
	}
	return turns, nil
}

// An event is what a way has told, and when.
type event struct {
	conn int
	at   time.Time
}

// play has w watch all connections, of which the server ends so many by FIN and
// as many by RST, and opens those again.
func (c *crowd) play(w way, events int) (t turn, err error) {
	told := make(chan event, len(c.near)) // has room for all: whoever tells does not wait
	tell := make([]func(), len(c.near))   // the caller's, whatever the way: made before
	for i := range tell {
		tell[i] = func() { told <- event{i, time.Now()} }
	}
	bare := inUse()
	goroutines := runtime.NumGoroutine() // after the garbage collector: what was before has ended
	w.adopt(c.near)
	before := inUse()
	for i := range tell {
		if err := w.watch(i, tell[i]); err != nil {
			w.stop()
			return t, err
		}
	}
	t.goroutines = runtime.NumGoroutine() - goroutines
	after := inUse()
	runtime.KeepAlive(tell) // or what held them would be counted as saved
	t.conn = before.minus(bare, len(c.near)).heap
	t.memory = after.minus(before, len(c.near))

	t.news, err = c.listen(told, events)
	w.stop()
	if stacks := leak.Beyond(goroutines); stacks != "" {
		err = errors.Join(err, fmt.Errorf("goroutines left behind:\n%s", stacks))
	}
	return t, errors.Join(err, c.refill())
}

// listen has the server end some connections, one at a time, and returns how
// long each way of ending took to be told.
func (c *crowd) listen(told <-chan event, events int) (map[ending][]time.Duration, error) {
	news := make(map[ending][]time.Duration)
	tooLong := time.NewTimer(stuck)
	defer tooLong.Stop()
	for k := range 2 * events {
		i, how := k*len(c.near)/(2*events), fin
		if k%2 == 1 {
			how = rst
		}
		began, err := c.end(i, how)
		if err != nil {
			return nil, err
		}
		select {
		case e := <-told:
			if e.conn != i {
				return nil, fmt.Errorf("connection %d was ended and %d was told", i, e.conn)
			}
			news[how] = append(news[how], e.at.Sub(began))
		case <-tooLong.C:
			return nil, fmt.Errorf("nobody told of the %s on connection %d", how, i)
		}
	}
	if n := len(told); n > 0 {
		return nil, fmt.Errorf("%d ends were told twice", n)
	}
	return news, nil
}

// refill opens again what the server has ended.
func (c *crowd) refill() error {
	for i, far := range c.far {
		if far >= 0 {
			continue
		}
		if err := c.connect(i); err != nil {
			return err
		}
	}
	return nil
}

// inUse returns what Go has in use, after a collection: of the second one, what
// the first one found to be finalized is gone too.
func inUse() memory {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{float64(m.HeapAlloc), float64(m.StackInuse)}
}

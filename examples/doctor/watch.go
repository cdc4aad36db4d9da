package main

import (
	"context"
	"runtime"
	"time"
)

const (
	// With so many times what a look has cost in between, looking takes 5 % of a processor.
	share = 20

	frameEvery = 500 * time.Millisecond // on a terminal
	lineEvery  = 10 * time.Second       // on paper
)

// A doctor is one run of the command.
type doctor struct {
	options
	world
	proc    *proc
	history *history

	screen   screen
	drawn    time.Time     // when the last frame was
	asked    time.Time     // when all processes were asked last what they hold
	asking   time.Duration // what that cost
	events   bool          // the kernel tells of what is destroyed
	connects int           // begun in this namespace before the first look; negative: the system does not tell
	begun    int           // and since then, before the last
}

// watchAll looks until its time is over or ctx ends. An error says why it could not.
func (d *doctor) watchAll(ctx context.Context) error {
	runtime.LockOSThread() // its time is the cost of looking
	defer runtime.UnlockOSThread()
	see, err := d.open()
	if err != nil {
		return err
	}
	defer see.close()
	d.events, d.connects = see.tellsEnds(), -1
	if n, ok := d.proc.connects(); ok {
		d.connects = n
	}
	if d.watch {
		d.screen = newScreen(d.out, d.term)
		defer d.screen.settle()
	}
	ctx, cancel := context.WithTimeout(ctx, d.forHow)
	defer cancel()
	var s sight
	for {
		began, before := time.Now(), see.cpu()
		if n, ok := d.proc.connects(); ok && d.connects >= 0 {
			d.begun = n - d.connects // what comes after this look is not missed
		}
		if err := see.look(&s); err != nil {
			return err
		}
		d.history.look(began, &s)
		d.attribute(see)
		d.draw()
		pause := d.every - time.Since(began)
		if d.history.unseen > 0 {
			pause = densest
		}
		timer := time.NewTimer(max(pause, share*(see.cpu()-before)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return d.screen.err
		case <-timer.C:
		}
	}
}

// attribute finds out whose the new connections are. To ask all processes costs the most,
// so that is done only so often.
func (d *doctor) attribute(see eyes) {
	want := d.history.ownerless(d.all)
	if len(want) == 0 {
		return
	}
	before, all := see.cpu(), time.Since(d.asked) >= share*d.asking
	d.proc.find(want, all)
	if all {
		d.asked, d.asking = time.Now(), see.cpu()-before
	}
}

// draw shows what is taken, if that is asked for and due.
func (d *doctor) draw() {
	if !d.watch || time.Since(d.drawn) < d.screen.pause() {
		return
	}
	d.drawn = time.Now()
	d.proc.bury()
	d.screen.show(d.history.chart(d.drawn, d.all, d.pid))
}

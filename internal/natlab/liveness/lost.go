package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
)

const inARow = 2

// lostProbes loses two packets in a row that the client sends after a silence:
// keepalive probes, or what HTTP/2 has in their place.
func lostProbes(r *work.Report) (err error) {
	overs := []string{plain, overTLS, http1, http2}
	st, err := open(natlab.Config{Servers: 2 * len(overs)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	silence := 2 * keepalive.For(work.Path()).Idle
	var victims []*victim
	for i, over := range overs {
		for j, long := range []time.Duration{0, silence} {
			v := &victim{over: over, long: long, count: fmt.Sprintf("victim%d", 2*i+j)}
			if v.line, err = st.line(ctx, ours, over, 2*i+j); err != nil {
				return err
			}
			victims = append(victims, v)
		}
	}
	var all sync.WaitGroup
	for _, v := range victims {
		if v.long > 0 {
			all.Go(func() { v.err = v.wait(ctx, v.long) })
		}
	}
	settle()
	for _, v := range victims {
		if err := errors.Join(st.count(v.count, "ip daddr "+v.remote().Addr().String()), st.DropNext(v.remote(), inARow)); err != nil {
			return err
		}
	}
	time.Sleep(silence)
	all.Wait()
	counts, err := st.counted()
	if err != nil {
		return err
	}
	for _, v := range victims {
		use := "parked"
		if v.long > 0 {
			use = fmt.Sprintf("an answer after %v", v.long)
		}
		failed := 0
		if v.err = errors.Join(v.err, v.ask(ctx)); v.err != nil {
			failed = 1
		}
		r.Note(measured("requests failed", "", work.Number(failed), 0).At(v.over, use).Said(v.err, nil))
		m := measured("connections lost", "", work.Number(st.lost(v)), 0).At(v.over, use)
		if lost := counts[v.count] - counts[v.count+"_passed"]; lost != inARow {
			m.Miss("%d packets were lost and not %d", lost, inARow)
		}
		r.Note(m)
	}
	return nil
}

// A victim is a line whose next packets are lost.
type victim struct {
	line
	over, count string
	long        time.Duration // until the answer comes; 0: nothing is asked
	err         error
}

package work

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Crowd is those who use one client to send what may run only once. Its fields do not
// change while it does.
type Crowd struct {
	Ours     bool                 // it ends what it has begun; a peer that is slow has that called off
	Hands    int                  // how many are sent at a time
	Pause    func() time.Duration // of who has its answer
	Deadline time.Duration        // of each

	// Send sends the i-th, once as far as it is concerned, and Judge tells what was said
	// of it.
	Send  func(ctx context.Context, i int) error
	Judge func(error) Fate
	Sent  []Sent // each is written once, by whoever sends it

	// Besides is what else the client is used for, until life ends. Nil: for nothing.
	Besides func(life context.Context)

	begin time.Time
	next  atomic.Int64
}

// Torment lets crowds send everything while the faults happen that do does, until those of
// ours are done, or for so long at most. It returns how long that took.
func (s *Schedule) Torment(crowds []*Crowd, most time.Duration, do func(Kind) (struck int, err error)) (took time.Duration, t Toll, err error) {
	if err := s.Check(); err != nil {
		return 0, nil, err
	}
	begin := time.Now()
	life, end := context.WithDeadline(context.Background(), begin.Add(most))
	defer end()
	var mine, all sync.WaitGroup
	for _, c := range crowds {
		c.begin = begin
		if c.Ours {
			mine.Go(func() { c.send(life) })
		} else {
			all.Go(func() { c.send(life) })
		}
		if c.Besides != nil {
			all.Go(func() { c.Besides(life) })
		}
	}
	all.Go(func() { t, err = s.Harm(life, begin, do) })
	mine.Wait()
	took = time.Since(begin)
	end()
	all.Wait()
	return took, t, err
}

// send sends all, some at a time, until life ends.
func (c *Crowd) send(life context.Context) {
	var hands sync.WaitGroup
	for range c.Hands {
		hands.Go(func() {
			for c.Ready(life) {
				i := int(c.next.Add(1)) - 1
				if i >= len(c.Sent) {
					return
				}
				c.Sent[i] = c.once(life, i)
			}
		})
	}
	hands.Wait()
}

// Ready waits as long as everybody rests, and a little in any case. It reports false if
// life has ended.
func (c *Crowd) Ready(life context.Context) bool {
	return Until(life, time.Now().Add(c.Pause()+Resting(time.Since(c.begin))))
}

func (c *Crowd) once(life context.Context, i int) Sent {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(life), c.Deadline)
	defer cancel()
	defer context.AfterFunc(life, func() {
		if !c.Ours {
			cancel()
		}
	})()
	err := c.Send(ctx, i)
	if err != nil && context.Cause(ctx) == context.Canceled {
		return Sent{}
	}
	return Sent{c.Judge(err), err}
}

package keepalive

import "time"

// Freeze makes c see what a process sees that was frozen for d: the wall clock
// has gone on, the monotonic clock has not.
func (c *Conn) Freeze(d time.Duration) { c.l.sinceWall.Add(-int64(d)) }

// Known is how many destinations d keeps, and Queued how many connections it will
// look at.
func (d *Detector) Known() int  { d.mu.Lock(); defer d.mu.Unlock(); return len(d.known) }
func (d *Detector) Queued() int { d.mu.Lock(); defer d.mu.Unlock(); return d.queued }

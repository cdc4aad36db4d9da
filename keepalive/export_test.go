package keepalive

import "time"

// Freeze makes c see what a process sees that was frozen for d: the wall clock
// has gone on, the monotonic clock has not.
func (c *Conn) Freeze(d time.Duration) { c.l.sinceWall.Add(-int64(d)) }

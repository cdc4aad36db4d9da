package main

import (
	"database/sql/driver"
	"errors"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab/work"
)

// judge says what a client is told by err.
func judge(err error) work.Fate {
	return work.FateOf(err, errStrange, func(err error) bool {
		return dialer.SafeToRetry(err) || errors.Is(err, driver.ErrBadConn)
	})
}

// noteInserts notes what became of the INSERTs of ours and of a peer. All is told of rows
// by id.
func noteInserts(r *work.Report, rows map[int]int, own, peer *crowd) {
	weigh := func(c *crowd) work.Verdict { return work.Weigh(c.Sent, func(i int) int { return rows[c.id(i)] }) }
	v, p := weigh(own), weigh(peer)
	t := work.Trial{Over: own.driver, Peer: plain, Ours: v, Peers: p}
	t.Note(r, "INSERTs")
	t.Never(r, "succeeded, no row", v.Phantoms, p.Phantoms, work.Unsent)
	t.Never(r, "failed, cannot have run, did", v.Broken, p.Broken, work.Safe)
	t.Never(r, "other than one row", v.Strange, p.Strange, work.Strange)
	twice, peers := own.byWay(v.Twice), peer.byWay(p.Twice)
	for w := range ways {
		r.Note(work.Told("more than one row", "", work.Number(twice[w])).At(own.driver, w.String()).
			Beside(plain, work.Number(peers[w])).AtMost(0))
	}
}

// byWay counts INSERTs by how they were sent.
func (c *crowd) byWay(inserts []int) (n [ways]int) {
	for _, i := range inserts {
		n[c.way(i)]++
	}
	return n
}

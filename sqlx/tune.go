package sqlx

import (
	"database/sql"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// manyIdle is how many idle connections a DB keeps where the path sets no limit.
const manyIdle = 256

// Tune sets the limits of database/sql's own pool that fit a path, for those who keep
// that pool instead of OpenDB; their driver dials by a Dialer all the same.
//
//   - MaxOpenConns is the path's limit for one destination, our part of it, less the
//     port that is kept for cancel requests and newcomers.
//   - MaxIdleConns is the same. The default, 2, closes all others as soon as they are
//     idle, and each holds its port for as long as the path holds closed ones: with 20
//     connections for a second, every ten seconds, and a hold of 240 s, 18 x 24 = 432
//     ports.
//   - ConnMaxLifetime is none: a lifetime L holds N x 240 s / L ports more, at 5 min four
//     fifths of N.
//   - ConnMaxIdleTime is none where keepalive probes keep the path, else what it
//     remembers, with a margin.
//
// What it cannot give is a heartbeat, a fair queue, and a pool that prefers to wait for a
// connection to waiting for a port.
func Tune(db *sql.DB, path netpath.Profile) {
	d := dialer.Dialer{Ledger: &dialer.Ledger{Path: path}}
	open, idle := d.MaxConns(), d.MaxConns()
	if open == netpath.None {
		open, idle = 0, manyIdle
	}
	db.SetMaxOpenConns(open)
	db.SetMaxIdleConns(idle)
	db.SetConnMaxLifetime(0)
	db.SetConnMaxIdleTime(d.MaxIdle())
}

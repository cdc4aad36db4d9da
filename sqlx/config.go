package sqlx

import (
	"fmt"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
)

// A Config says how connections are kept. The zero Config is useful: as many
// connections as the path has ports, each kept for an hour at most, and asked often
// enough for the path not to forget it.
type Config struct {
	// Name is what telemetry calls the pool, which must tell it from others. Empty:
	// host:port of the server.
	Name string

	// Dialer is what the driver dials by, to be set there too. Nil: DefaultDialer.
	Dialer *Dialer

	// Max is how many connections there may be, and MinIdle how many are kept ready.
	// Max zero: as many as the ledger has ports for.
	Max     int
	MinIdle int

	// MaxIdle closes a connection that was idle for so long. Zero: none is, unless the
	// path would forget it (dialer.Dialer.MaxIdle) and no Heartbeat keeps it.
	MaxIdle time.Duration

	// MaxLife closes a connection of that age when it is not in use; each draws its own
	// at birth, between three quarters and the whole. Zero: 1 h. Negative: never.
	//
	// Lifetimes cost ports: with N connections, a lifetime of L and a NAT that holds a
	// closed port for H, some N x H / L ports are held in vain. With H = 4 min that are
	// a seventh of N at 30 min, a fifteenth at 1 h, and four fifths at 5 min.
	MaxLife time.Duration

	// Heartbeat is how often an idle connection is asked by its driver.Pinger whether
	// its server is there, less up to a tenth. Zero: so often that one may be lost
	// before the path forgets, if it forgets. Negative: never.
	Heartbeat time.Duration

	// MaxWait is how long an operation waits for a connection whose context has no
	// deadline. Zero: 30 s. Negative: for ever.
	MaxWait time.Duration

	// OpenTimeout bounds the driver's Connect, with its handshake; then what it has
	// dialed is closed. Zero: 30 s.
	OpenTimeout time.Duration

	// Patience is for how long operations outlast a server that cannot be connected to,
	// while that is tried less and less often. Zero: the first failure is theirs.
	Patience time.Duration

	// Drain is how long DB.Close waits for connections that are in use. Zero: 5 s.
	// Negative: it does not.
	Drain time.Duration

	// Statements is how many prepared statements each connection keeps for the next who
	// prepares the same outside of a transaction. Zero: 16. Negative: none. They are
	// forgotten when a text without arguments is executed on the connection, which may be
	// USE, SET or DDL. Where another connection changes a table, PostgreSQL refuses a kept
	// statement once. MySQL and MariaDB allow 16,382 for all connections together
	// (max_prepared_stmt_count).
	Statements int

	// LeakAfter, if not zero, reports connections in use for so long to Observe.
	LeakAfter time.Duration

	// Observe is told of what happens to connections, under no lock. It must not block.
	Observe func(pool.Event)

	// Unbooked allows for a driver that does not dial by Dialer, such as one that has no
	// network. Then nothing is booked, idle connections are not watched, and it is the
	// driver alone who says what is safe to try again.
	Unbooked bool
}

const (
	defaultMaxLife    = time.Hour
	defaultMaxWait    = 30 * time.Second
	defaultDrain      = 5 * time.Second
	defaultStatements = 16

	never = time.Duration(1<<63 - 1)

	// pingTimeout is how long a heartbeat's answer may take.
	pingTimeout = 5 * time.Second

	// fresh is for how long a connection need not be asked again: what drivers do then
	// takes no round trip.
	fresh = time.Second
)

// Validate returns what is wrong with c, by field and value: NewConnector panics with it.
func (c Config) Validate() error {
	for _, f := range []struct {
		field string
		value time.Duration
	}{{"MaxIdle", c.MaxIdle}, {"OpenTimeout", c.OpenTimeout}, {"Patience", c.Patience}, {"LeakAfter", c.LeakAfter}} {
		if f.value < 0 {
			return fmt.Errorf("sqlx: Config.%s is %v; it cannot be negative", f.field, f.value)
		}
	}
	switch {
	case c.Max < 0:
		return fmt.Errorf("sqlx: Config.Max is %d; it cannot be negative", c.Max)
	case c.MinIdle < 0:
		return fmt.Errorf("sqlx: Config.MinIdle is %d; it cannot be negative", c.MinIdle)
	case c.Max > 0 && c.MinIdle > c.Max:
		return fmt.Errorf("sqlx: Config.MinIdle is %d, more than Max, %d", c.MinIdle, c.Max)
	}
	return nil
}

// or is what a field means: its value, def where that is zero, zero where it is
// negative.
func or[T int | time.Duration](value, def T) T {
	switch {
	case value == 0:
		return def
	case value < 0:
		return 0
	}
	return value
}

// heartbeat is how often idle connections are asked: as late as it can be so that
// another try is in time if one is lost.
func (c Config) heartbeat(path netpath.Profile) time.Duration {
	var def time.Duration
	if path.Idle > 0 {
		def = max((path.Idle-pingTimeout)/2, path.Idle/4)
	}
	return or(c.Heartbeat, def)
}

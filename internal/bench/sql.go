package main

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/sqlx"
)

// What is asked of natwise's pool under database/sql.
const (
	sqlNanosMore  = 700 // for an ExecContext more than database/sql takes by itself, at most
	sqlAllocsMore = 5
	sqlIdealMost  = 1.2 // times the 99th percentile of the ideal queue's waits, at most
	sqlPlainLeast = 3   // of database/sql's 99th percentile divided by ours, at least
	sqlAgainBelow = 1   // preparations of what was prepared on that connection before
	sqlDialsBelow = 1   // for an operation while good connections are idle
)

const (
	moreAtMost = "ours_value - peer_value at most"
	oursBelow  = "ours_value below"
)

// A sqlCase is what is done, and by how many on how many connections.
type sqlCase struct {
	Bench       string `json:"bench"`
	Figure      string `json:"figure"`
	Operation   string `json:"operation"`
	Goroutines  int    `json:"goroutines"`
	Connections int    `json:"connections"`
}

func (c sqlCase) named(figure string) sqlCase {
	c.Figure = figure
	return c
}

func (c sqlCase) load() load { return load{goroutines: c.Goroutines, values: c.Connections} }

// A sqlFigure is one figure beside a peer's.
type sqlFigure struct {
	sqlCase
	Ours   float64 `json:"ours_value"`
	Peer   string  `json:"peer"`
	Peers  float64 `json:"peer_value"`
	*ratio         // nil: there is one pair only, or none
	verdict
}

// What the figures are about, and the peer that is no program.
const (
	sqlNanos   = "ns"
	sqlAllocs  = "allocs"
	sqlAgain   = "prepared again"
	sqlWaitP99 = "wait_p99_ms"
	sqlDials   = "dials"

	idealName = "ideal queue"
)

// A sqlReport is the bench sql.
type sqlReport struct{ figures []sqlFigure }

// measureSQL compares a *sql.DB on natwise's pool with one on its own, over a driver
// in memory.
func measureSQL(full bool, progress io.Writer) report {
	pairs, rounds := 20, 30
	if full {
		pairs, rounds = 100, 120
	}
	r := new(sqlReport)
	for _, o := range sqlOperations {
		for _, n := range []int{1, 64} {
			fmt.Fprintf(progress, "sql: %s, %d goroutines\n", o.name, n)
			r.measureCost(o, plainSQL, n, pairs)
			r.measureCost(o, leastSQL, n, pairs)
		}
	}
	for _, c := range []sqlCase{{Goroutines: 64, Connections: 8}, {Goroutines: 8, Connections: 2}} {
		fmt.Fprintf(progress, "sql: waits, %d goroutines on %d connections\n", c.Goroutines, c.Connections)
		r.measureWaits(c, rounds)
	}
	r.measureStarved()
	return r
}

// measureCost has each goroutine do an operation again and again that takes the driver
// no time. There are connections for all.
func (r *sqlReport) measureCost(o sqlOperation, peer sqlEntry, goroutines, pairs int) {
	c := sqlCase{"sql", sqlNanos, o.name, goroutines, goroutines}
	ds := [2]*memoryDriver{{preparing: o.prepared}, {preparing: o.prepared}}
	mine, theirs, err := c.load().turns(oursSQL.entry(ds[0], o), peer.entry(ds[1], o), pairs)
	if err != nil {
		r.fail(c, peer, err)
		return
	}
	r.compareCost(c, peer, mine, theirs)
	if o.prepared && peer.name == plainSQL.name {
		f := sqlFigure{sqlCase: c.named(sqlAgain), Peer: peer.name}
		f.Ours, f.Peers = float64(ds[0].again.Load()), float64(ds[1].again.Load())
		f.verdict = judge(f.Ours < sqlAgainBelow, sqlAgainBelow, oursBelow)
		r.figures = append(r.figures, f)
	}
}

// compareCost applies the bounds, if it is them that c is about. As with the pool some
// thousandths of an allocation are nobody's.
func (r *sqlReport) compareCost(c sqlCase, peer sqlEntry, mine, theirs series) {
	ns := sqlFigure{sqlCase: c, Peer: peer.name}
	ns.Ours, ns.Peers = median(mine.nanos()), median(theirs.nanos())
	ns.ratio = ratioOf(oursToPeer, mine.nanos(), theirs.nanos())
	ns.Status = statusOK

	allocs := sqlFigure{sqlCase: c.named(sqlAllocs), Peer: peer.name}
	allocs.Ours, allocs.Peers = mine.allocs(), theirs.allocs()
	allocs.Status = statusOK
	if c.Operation == sqlExec.name && peer.name == plainSQL.name {
		ns.verdict = judge(ns.Ours-ns.Peers <= sqlNanosMore, sqlNanosMore, moreAtMost)
		allocs.verdict = judge(allocs.Ours-allocs.Peers < sqlAllocsMore+allocsLess, sqlAllocsMore, moreAtMost)
	}
	r.figures = append(r.figures, ns, allocs)
}

// measureWaits has goroutines share connections on which each statement takes a
// millisecond. The bounds are on the larger crowd.
func (r *sqlReport) measureWaits(c sqlCase, rounds int) {
	c.Bench, c.Figure, c.Operation = "sql", sqlWaitP99, "ExecContext of 1 ms"
	found, err := c.p99s(rounds)
	if err != nil {
		r.fail(c, plainSQL, err)
		return
	}
	r.compareWaits(c, found)
}

func (r *sqlReport) compareWaits(c sqlCase, found map[string][]float64) {
	beside := func(peer, is string) sqlFigure {
		f := sqlFigure{sqlCase: c, Peer: peer, Ours: median(found[oursSQL.name]), Peers: median(found[peer])}
		f.ratio = ratioOf(is, found[oursSQL.name], found[peer])
		f.Status = statusOK
		return f
	}
	ideal, plain := beside(idealName, oursToPeer), beside(plainSQL.name, peerToOurs)
	if c.Goroutines == 64 {
		ideal.verdict = ideal.atMost(sqlIdealMost)
		plain.verdict = judge(plain.Low >= sqlPlainLeast, sqlPlainLeast, ratioLowAtLeast)
	}
	r.figures = append(r.figures, ideal, plain)
}

// measureStarved counts what is dialed for an operation that finds two connections
// broken while others are good. No port is free, so that whoever dials is lost.
func (r *sqlReport) measureStarved() {
	c := sqlCase{"sql", sqlDials, "ExecContext after two broken connections", 1, 4}
	f := sqlFigure{sqlCase: c, Peer: plainSQL.name}
	mine, err := starved(oursSQL, c.Connections)
	if err != nil {
		r.fail(c, plainSQL, err)
		return
	}
	theirs, err := starved(plainSQL, c.Connections)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) { // which is how it is lost
		r.fail(c, plainSQL, err)
		return
	}
	f.Ours, f.Peers = float64(mine), float64(theirs)
	f.verdict = judge(f.Ours < sqlDialsBelow, sqlDialsBelow, oursBelow)
	r.figures = append(r.figures, f)
}

func (r *sqlReport) fail(c sqlCase, peer sqlEntry, err error) {
	r.figures = append(r.figures, sqlFigure{sqlCase: c, Peer: peer.name, verdict: failed(err)})
}

func (r *sqlReport) lines() []any {
	var all []any
	for _, f := range r.figures {
		all = append(all, f)
	}
	return all
}

func (r *sqlReport) kept() bool {
	return !slices.ContainsFunc(r.figures, func(f sqlFigure) bool { return f.Status != statusOK })
}

func (r *sqlReport) print(w io.Writer) {
	fmt.Fprintln(w, "sql: a *sql.DB on natwise's pool beside one on its own, over a driver in memory")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "operation\tgoroutines\tconnections\tfigure\tnatwise\tpeer\tpeer's\tratio of\tratio\tlow\thigh\t  ")
	for _, f := range r.figures {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%.2f\t%s\t%.2f\t%s\t  %v\n", f.Operation, f.Goroutines, f.Connections,
			f.Figure, f.Ours, f.Peer, f.Peers, f.columns(), f.verdict)
	}
	t.Flush()
}

// columns is the ratio's part of a row.
func (f sqlFigure) columns() string {
	if f.ratio == nil {
		return "\t\t\t"
	}
	return fmt.Sprintf("%s\t%.2f\t%.2f\t%.2f", f.RatioIs, f.Ratio, f.Low, f.High)
}

func ratioOf(is string, ours, peers []float64) *ratio {
	r := compare(is, ours, peers)
	return &r
}

// A sqlEntry is a way to have a *sql.DB of so many connections.
type sqlEntry struct {
	name string
	open func(d *memoryDriver, connections int) *sql.DB
}

// Who contends. Plain database/sql keeps two idle connections unless it is told to
// keep more. The least that a pool behind it can do is to keep what it closes: what that
// costs is database/sql's own.
var (
	oursSQL = sqlEntry{"natwise", func(d *memoryDriver, connections int) *sql.DB {
		return sqlx.OpenDB(d, sqlx.Config{Max: connections, Unbooked: true})
	}}
	plainSQL = sqlEntry{"database/sql", func(d *memoryDriver, connections int) *sql.DB {
		db := sql.OpenDB(d)
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		return db
	}}
	leastSQL = sqlEntry{"least connector", func(d *memoryDriver, connections int) *sql.DB {
		d.kept = make(chan *memoryConn, connections)
		db := sql.OpenDB(d)
		db.SetMaxIdleConns(-1)
		return db
	}}
)

// entry makes an entry of it for those who do an operation over d.
func (e sqlEntry) entry(d *memoryDriver, o sqlOperation) entry {
	return entry{e.name, func(connections int) (contender, error) {
		db := e.open(d, connections)
		do, err := o.begin(db)
		return sqlContender{db, do}, err
	}}
}

// A sqlOperation is what users do with a *sql.DB.
type sqlOperation struct {
	name     string
	prepared bool // over a driver that runs only what is prepared
	begin    func(db *sql.DB) (do func(ctx context.Context) error, err error)
}

var (
	sqlExec     = sqlOperation{name: "ExecContext", begin: beginExec}
	sqlQueryRow = sqlOperation{name: "QueryRowContext and Scan", begin: beginQueryRow}
	sqlPrepared = sqlOperation{name: "ExecContext of a prepared statement", prepared: true, begin: beginPrepared}

	sqlOperations = []sqlOperation{sqlExec, sqlQueryRow, sqlPrepared}
)

func beginExec(db *sql.DB) (func(context.Context) error, error) {
	return func(ctx context.Context) error {
		_, err := db.ExecContext(ctx, statement)
		return err
	}, nil
}

func beginQueryRow(db *sql.DB) (func(context.Context) error, error) {
	return func(ctx context.Context) error {
		var got int64
		if err := db.QueryRowContext(ctx, statement).Scan(&got); err != nil || got != theAnswer {
			return cmp.Or(err, fmt.Errorf("the answer is %d, want %d", got, theAnswer))
		}
		return nil
	}, nil
}

// beginPrepared leaves the statement to the end of its connections.
func beginPrepared(db *sql.DB) (func(context.Context) error, error) {
	s, err := db.Prepare(statement)
	return func(ctx context.Context) error {
		_, err := s.ExecContext(ctx)
		return err
	}, err
}

// A sqlContender is a *sql.DB with which one thing is done.
type sqlContender struct {
	db *sql.DB
	do func(ctx context.Context) error
}

func (c sqlContender) cycle(ctx context.Context, n int, hold func()) error {
	for range n {
		if err := c.do(ctx); err != nil {
			return err
		}
		if hold != nil {
			hold()
		}
	}
	return nil
}

// use has a connection to itself.
func (c sqlContender) use(ctx context.Context, work func(*conn)) error {
	held, err := c.db.Conn(ctx)
	if err != nil {
		return err
	}
	work(nil)
	return held.Close()
}

func (c sqlContender) close(context.Context) error { return c.db.Close() }

// p99s measures the 99th percentile of the waits of ours and of database/sql, in turns,
// and what it would have been in the ideal queue for the very work that ours has done.
func (c sqlCase) p99s(rounds int) (map[string][]float64, error) {
	l := c.load()
	l.hold = func() { time.Sleep(time.Millisecond) }
	both := []sqlEntry{oursSQL, plainSQL}
	dbs := make([]*sql.DB, len(both))
	for i, e := range both {
		c, err := l.open(e.entry(new(memoryDriver), sqlExec))
		if err != nil {
			return nil, err
		}
		dbs[i] = c.(sqlContender).db
		defer dbs[i].Close()
	}
	found := make(map[string][]float64)
	for round := range rounds {
		for turn := range both {
			i := (round + turn) % len(both)
			done, err := l.execute(dbs[i], 160*c.Connections/c.Goroutines)
			if err != nil {
				return nil, err
			}
			found[both[i].name] = append(found[both[i].name], p99(waitsOf(done)))
			if i == 0 {
				found[idealName] = append(found[idealName], p99(idealWaits(l.goroutines, l.values, worksOf(done))))
			}
		}
	}
	return found, nil
}

func p99(ds []time.Duration) float64 {
	return float64(work.Percentile(ds, 0.99)) / float64(time.Millisecond)
}

// An execution is one ExecContext.
type execution struct {
	begun  time.Time     // the driver, with its work
	worked time.Duration // the driver
	waited time.Duration // ExecContext, before the work and after it
}

// execute has each goroutine execute n statements, each of which holds its connection.
func (l load) execute(db *sql.DB, n int) ([]execution, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	defer cancel()

	var done sync.WaitGroup
	errs := make([]error, l.goroutines)
	all := make([]execution, l.goroutines*n)
	for i := range l.goroutines {
		mine := all[i*n : (i+1)*n]
		done.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			for k := range mine {
				if errs[i] = mine[k].run(ctx, db, l.hold); errs[i] != nil {
					return
				}
			}
		})
	}
	done.Wait()
	return all, errors.Join(errs...)
}

func (e *execution) run(ctx context.Context, db *sql.DB, hold func()) error {
	asked := time.Now()
	err := execWork(ctx, db, func() error {
		e.begun = time.Now()
		hold()
		e.worked = time.Since(e.begun)
		return nil
	})
	e.waited = time.Since(asked) - e.worked
	return err
}

func waitsOf(all []execution) (waits []time.Duration) {
	for _, e := range all {
		waits = append(waits, e.waited)
	}
	return waits
}

// worksOf returns for how long each worked, in the order in which they began to.
func worksOf(all []execution) (works []time.Duration) {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b execution) int { return a.begun.Compare(b.begun) })
	for _, e := range sorted {
		works = append(works, e.worked)
	}
	return works
}

// idealWaits returns how long each work would have waited for its connection if whoever
// asked first were served first, in no time, and asked again as soon as it was done.
func idealWaits(goroutines, connections int, works []time.Duration) (waits []time.Duration) {
	asked := make([]time.Duration, goroutines)
	free := make([]time.Duration, connections)
	for _, work := range works {
		g, c := earliest(asked), earliest(free)
		begin := max(asked[g], free[c])
		waits = append(waits, begin-asked[g])
		asked[g], free[c] = begin+work, begin+work
	}
	return waits
}

// earliest returns the place of the smallest.
func earliest(ts []time.Duration) int { return slices.Index(ts, slices.Min(ts)) }

// starved executes a statement that finds the first two connections broken while
// nothing more can be dialed, and returns how often that was tried.
func starved(e sqlEntry, connections int) (dials int64, err error) {
	d := new(memoryDriver)
	c, err := load{values: connections}.open(e.entry(d, sqlExec))
	if err != nil {
		return 0, err
	}
	db := c.(sqlContender).db
	defer db.Close()
	d.full.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	broken := 2
	err = execWork(ctx, db, func() error {
		if broken--; broken >= 0 {
			return driver.ErrBadConn
		}
		return nil
	})
	return d.dials.Load() - int64(connections), err
}

// A memoryDriver is a driver, and its connector, to a database that is not there. The
// zero memoryDriver is ready to use.
type memoryDriver struct {
	preparing bool             // its connections run only what is prepared
	kept      chan *memoryConn // closed connections, to be had again; nil: they are not kept
	full      atomic.Bool      // no port is free: who dials waits until the context ends

	dials, again atomic.Int64 // again: what was prepared on that connection before
}

const (
	statement = "nothing" // takes no time
	theAnswer = 42

	// working has the driver call the function that is in the context.
	working = "work"
)

type workKey struct{}

// execWork has the driver work.
func execWork(ctx context.Context, db *sql.DB, work func() error) error {
	_, err := db.ExecContext(context.WithValue(ctx, workKey{}, work), working)
	return err
}

func (d *memoryDriver) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := d.connect(ctx)
	if d.preparing || err != nil {
		return c, err
	}
	return memoryExecer{c}, nil
}

func (d *memoryDriver) connect(ctx context.Context) (*memoryConn, error) {
	select {
	case c := <-d.kept:
		return c, nil
	default:
	}
	d.dials.Add(1)
	if d.full.Load() {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return &memoryConn{of: d}, nil
}

func (d *memoryDriver) Driver() driver.Driver            { return d }
func (d *memoryDriver) Open(string) (driver.Conn, error) { return d.Connect(context.Background()) }

// A memoryConn runs only what is prepared.
type memoryConn struct {
	of       *memoryDriver
	rows     memoryRows // of the query under way
	prepared bool       // something was
}

func (c *memoryConn) Prepare(string) (driver.Stmt, error) {
	if c.prepared {
		c.of.again.Add(1)
	}
	c.prepared = true
	return memoryStmt{c}, nil
}

func (c *memoryConn) Begin() (driver.Tx, error) { return nil, errors.ErrUnsupported }

func (c *memoryConn) Close() error {
	select {
	case c.of.kept <- c:
	default:
	}
	return nil
}

// A memoryExecer runs statements as they are.
type memoryExecer struct{ *memoryConn }

var (
	_ driver.ExecerContext  = memoryExecer{}
	_ driver.QueryerContext = memoryExecer{}
)

func (c memoryExecer) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	if query == working {
		if err := ctx.Value(workKey{}).(func() error)(); err != nil {
			return nil, err
		}
	}
	return driver.RowsAffected(1), nil
}

func (c memoryExecer) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.rows.read = false
	return &c.rows, nil
}

// A memoryStmt is a prepared statement.
type memoryStmt struct{ conn *memoryConn }

func (memoryStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (memoryStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, errors.ErrUnsupported }
func (memoryStmt) NumInput() int                              { return 0 }
func (memoryStmt) Close() error                               { return nil }

// A memoryRows is one row.
type memoryRows struct{ read bool }

var memoryColumns = []string{"answer"}

func (*memoryRows) Columns() []string { return memoryColumns }
func (*memoryRows) Close() error      { return nil }

func (r *memoryRows) Next(row []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	row[0] = int64(theAnswer)
	return nil
}

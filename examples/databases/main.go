// Command databases shows how a database driver is made to dial by natwise: each file is
// one driver, in the few lines that it takes, and doors.go has the ways that there are
// from there. Given a server, it says what became of the ports.
//
//	go -C examples/databases run .
//	go -C examples/databases run . -driver pgx -dsn postgres://me:secret@db.example.com/app
//	go -C examples/databases run . -driver mysql -dsn 'me:secret@tcp(db.example.com:3306)/app' -door plain
package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"text/tabwriter"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// A kind is one of the drivers.
type kind struct {
	name      string
	connector func(dsn string, d *sqlx.Dialer) (driver.Connector, error) // nil: it has a pool of its own
	dsn       string                                                     // such as
}

const postgresDSN = "postgres://me:secret@db.example.com/app"

var kinds = []kind{
	{"pgx", pgxConnector, postgresDSN},
	{"pgxpool", nil, postgresDSN},
	{"pq", pqConnector, postgresDSN},
	{"mysql", mysqlConnector, "me:secret@tcp(db.example.com:3306)/app"},
	{"mssql", mssqlConnector, "sqlserver://me:secret@db.example.com?database=app"},
}

// run returns the exit status.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	w, err := parse(args, errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err == nil && w.dsn == "":
		printNeeds(out)
		return 0
	case err != nil:
		fmt.Fprintln(errs, "databases:", err)
		return 2
	}
	if err := w.do(ctx, out); err != nil {
		fmt.Fprintln(errs, "databases:", err)
		return 1
	}
	return 0
}

// work is what the flags ask for.
type work struct {
	kind          kind
	dsn, door     string
	path          netpath.Profile
	conns, rounds int
}

// parse returns what the flags ask for. An error names the flag and its value, unless
// that is a secret.
func parse(args []string, errs io.Writer) (w work, err error) {
	flags := flag.NewFlagSet("databases", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	name := flags.String("driver", "pgx", "pgx, pgxpool, pq, mysql or mssql")
	flags.StringVar(&w.dsn, "dsn", "", "`where` the server is, as the driver wants it")
	flags.StringVar(&w.door, "door", "open", "plain, tuned or open; pgxpool has its own")
	path := flags.String("path", "", "the `profile` of the way there, by its name in examples/paths; none: an unknown one")
	flags.IntVar(&w.conns, "conns", 4, "how many connections are used at once")
	flags.IntVar(&w.rounds, "rounds", 5, "how often")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(errs)
			flags.Usage()
		}
		return w, err
	}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == *name })
	switch {
	case flags.NArg() > 0:
		return w, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	case i < 0:
		return w, fmt.Errorf("-driver is %q: it is pgx, pgxpool, pq, mysql or mssql", *name)
	case doors[w.door] == nil:
		return w, fmt.Errorf("-door is %q: it is plain, tuned or open", w.door)
	case w.conns < 1 || w.rounds < 1:
		return w, fmt.Errorf("-conns is %d and -rounds is %d: each is 1 or more", w.conns, w.rounds)
	}
	w.kind = kinds[i]
	if *path != "" {
		w.path, err = netpath.Lookup(*path)
	}
	return w, err
}

// printNeeds says what each driver would need.
func printNeeds(out io.Writer) {
	fmt.Fprintln(out, "This needs a server, which it only asks whether it is there:")
	table := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	for _, k := range kinds {
		fmt.Fprintf(table, "\t-driver %s\t-dsn '%s'\n", k.name, k.dsn)
	}
	table.Flush()
}

// do borrows connections in rounds and prints what the ledger has of it.
func (w work) do(ctx context.Context, out io.Writer) error {
	path := w.path
	path.Exempt = netpath.NoExempt() // a server on this machine counts too
	d := &sqlx.Dialer{Dialer: &dialer.Dialer{Ledger: &dialer.Ledger{Path: path}}}
	p, err := w.open(ctx, d)
	if err != nil {
		return err
	}
	for range w.rounds {
		if err = p.together(ctx, w.conns); err != nil {
			break
		}
	}
	fmt.Fprintf(out, "%s: %d times %d connections at once\n", w.kind.name, w.rounds, w.conns)
	printAccounts(out, d, "before Close")
	p.close()
	printAccounts(out, d, "after it")
	return err
}

// open opens the pool that was asked for.
func (w work) open(ctx context.Context, d *sqlx.Dialer) (pool, error) {
	if w.kind.connector == nil {
		p, err := pgxPool(ctx, w.dsn, d)
		return fromPGX(p), err
	}
	c, err := w.kind.connector(w.dsn, d)
	if err != nil {
		return pool{}, err
	}
	return fromSQL(doors[w.door](c, d)), nil
}

func printAccounts(out io.Writer, d *sqlx.Dialer, when string) {
	fmt.Fprintf(out, "%s:\n", when)
	for _, a := range d.Dialer.Ledger.Accounts() {
		fmt.Fprintf(out, "  %v; %d opened, %d failed\n", a, a.Opened, a.Failed)
	}
}

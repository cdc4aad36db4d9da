package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
)

// unwrapped is the peer: the driver below database/sql, and nothing between them.
const unwrapped = "unwrapped"

// limit is how long one run of a suite may take.
const limit = 4 * time.Minute

// A suite is the tests of one package of a driver's.
type suite struct {
	name   string // of the driver, as package drivers calls it
	module string // its path
	folder string // the package's, within the module
	sites  []site

	// away matches tests that dial what is not on this machine.
	away string

	start   func(servers.T, ...string) *servers.Server
	prepare []string                        // statements that the tests expect somebody to have executed
	env     func(s drivers.Server) []string // where the server is, for the tests
}

var pgx = suite{
	name:   drivers.PGX,
	module: "github.com/jackc/pgx/v5",
	folder: "stdlib",
	sites:  []site{{files: "stdlib/*_test.go", pkg: "stdlib_test", also: pgxGlue}},
	start:  servers.Postgres,
	env: func(s drivers.Server) []string {
		host, port, _ := net.SplitHostPort(s.Addr)
		return []string{fmt.Sprintf("PGX_TEST_DATABASE=host=%s port=%s user=%s password=%s dbname=%s sslmode=disable", host, port, s.User, s.Password, s.Database)}
	},
}

var pq = suite{
	name:   drivers.PQ,
	module: "github.com/lib/pq",
	folder: ".",
	sites:  []site{{files: "*_test.go", pkg: "pq", also: pqGlue}, {files: "internal/pqtest/pqtest.go", pkg: "pqtest"}},
	start:  servers.Postgres,
	prepare: []string{
		"CREATE ROLE pqgo SUPERUSER LOGIN PASSWORD '" + servers.Password + "'",
		"CREATE DATABASE pqgo OWNER pqgo",
	},
	env: func(s drivers.Server) []string {
		host, port, _ := net.SplitHostPort(s.Addr)
		return []string{"PGHOST=" + host, "PGPORT=" + port, "PGUSER=pqgo", "PGDATABASE=pqgo", "PGPASSWORD=" + s.Password}
	},
}

var mysql = suite{
	name:   drivers.MySQL,
	module: "github.com/go-sql-driver/mysql",
	folder: ".",
	sites:  []site{{files: "*_test.go", pkg: "mysql", also: mysqlGlue}},
	away:   "^TestConnectorReturnsTimeout$",
	start:  servers.MariaDB,
	env: func(s drivers.Server) []string {
		return []string{"MYSQL_TEST_ADDR=" + s.Addr, "MYSQL_TEST_USER=" + s.User, "MYSQL_TEST_PASS=" + s.Password, "MYSQL_TEST_DBNAME=" + s.Database}
	},
}

// play is the scenario of one driver.
func (s suite) play(r *work.Report) error {
	return servers.Run(func(t servers.T) error {
		ctx := context.Background()
		server := s.start(t)
		at := drivers.Server{Addr: server.Addr(), User: servers.User, Password: servers.Password, Database: servers.Database}
		if err := s.ready(ctx, at); err != nil {
			return err
		}
		dir := t.TempDir()
		plain, ours, err := s.build(ctx, dir)
		if err != nil {
			return err
		}
		for _, p := range []*program{&plain, &ours} {
			p.env, p.away = append(os.Environ(), s.env(at)...), s.away
		}
		c, err := compare(ctx, plain, ours, differences[s.name])
		if err != nil {
			return err
		}
		if r.Full {
			broken := ours
			broken.args = []string{"-natwise.broken"}
			c.tell(ctx, broken)
		}
		c.note(r)
		return nil
	})
}

// ready does on the server what the tests expect to have been done.
func (s suite) ready(ctx context.Context, at drivers.Server) error {
	c, err := drivers.Connector(s.name, at, new(net.Dialer).DialContext)
	if err != nil {
		return err
	}
	db := sql.OpenDB(c)
	defer db.Close()
	for _, q := range s.prepare {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

// build makes a program of the tests as they are, and one of them over natwise.
func (s suite) build(ctx context.Context, dir string) (plain, ours program, err error) {
	modules, err := modulesOf(ctx, s.module, "github.com/natwise/natwise")
	if err != nil {
		return plain, ours, err
	}
	for _, p := range []*program{&plain, &ours} {
		copied, err := os.MkdirTemp(dir, s.name)
		if err == nil {
			err = os.CopyFS(copied, writable{os.DirFS(modules[s.module])})
		}
		if err != nil {
			return plain, ours, err
		}
		p.dir, p.path = filepath.Join(copied, s.folder), filepath.Join(copied, "natwise.test")
		workspace := "off"
		if p == &ours {
			if err := s.rewrite(copied); err != nil {
				return plain, ours, err
			}
			if workspace, err = writeWorkspace(dir, copied, modules["github.com/natwise/natwise"]); err != nil {
				return plain, ours, err
			}
		}
		if _, err := goCommand(ctx, p.dir, []string{"GOWORK=" + workspace}, "test", "-c", "-trimpath", "-o", p.path, "."); err != nil {
			return plain, ours, err
		}
	}
	return plain, ours, nil
}

// A comparison is what came of the tests, that of TestMain included. What was skipped
// unwrapped is not counted.
type comparison struct {
	tests          int
	passed         int               // unwrapped
	broken         []string          // unwrapped; it says nothing of natwise
	both           []string          // of those that passed
	flaky          map[string]string // of the others: what was said the first time
	meant          map[string]string // and why
	missed         map[string]string // and what was said
	outdated       []string          // they are listed, and pass
	telling        int               // of both: they fail without connections. Negative: nobody knows
	took, tookOver time.Duration     // unwrapped, and over natwise
}

func newComparison() *comparison {
	return &comparison{telling: -1, flaky: make(map[string]string), meant: make(map[string]string), missed: make(map[string]string)}
}

// A runner runs the tests whose names match.
type runner interface {
	run(ctx context.Context, match string) (map[string]result, error)
}

// compare runs the tests both ways. Where those over natwise fail, they have to be listed.
func compare(ctx context.Context, plain, ours runner, listed map[string]string) (*comparison, error) {
	begin := time.Now()
	a, err := plain.run(ctx, "^Test")
	if err != nil {
		return nil, err
	}
	middle := time.Now()
	b, err := ours.run(ctx, "^Test")
	if err != nil {
		return nil, err
	}
	c := newComparison()
	c.took, c.tookOver = middle.Sub(begin), time.Since(middle)
	for _, test := range slices.Sorted(maps.Keys(a)) {
		c.judge(ctx, test, a[test], b[test], ours, listed)
	}
	return c, nil
}

func (c *comparison) judge(ctx context.Context, test string, plain, over result, ours runner, listed map[string]string) {
	reason, meant := listed[test]
	switch plain.outcome {
	case skipped:
		return
	case failed:
		c.tests++
		c.broken = append(c.broken, test)
		return
	}
	c.tests++
	c.passed++
	switch {
	case over.outcome == passed:
		c.both = append(c.both, test)
		if meant {
			c.outdated = append(c.outdated, test)
		}
	case meant:
		c.meant[test] = reason
	case c.passesAlone(ctx, test, ours):
		c.flaky[test] = over.output
	case over.outcome == "":
		c.missed[test] = "it did not run: an earlier test has ended all"
	default:
		c.missed[test] = over.output
	}
}

// passesAlone runs a test once more, with no other beside.
func (c *comparison) passesAlone(ctx context.Context, test string, ours runner) bool {
	top, _, _ := strings.Cut(test, "/")
	again, err := ours.run(ctx, "^"+top+"$")
	return err == nil && again[test].outcome == passed
}

// tell counts those of both that are of any use: they fail where no connection comes to
// be. Each top-level test has a process of its own, as many of them end it then.
func (c *comparison) tell(ctx context.Context, broken runner) {
	c.telling = 0
	results := make(map[string]map[string]result)
	for _, test := range c.both {
		top, _, _ := strings.Cut(test, "/")
		if _, done := results[top]; !done {
			results[top], _ = broken.run(ctx, "^"+top+"$") // an error: it has not passed
		}
		if results[top][test].outcome != passed {
			c.telling++
		}
	}
}

// note tells what came of it.
func (c *comparison) note(r *work.Report) {
	r.Note(work.Told("tests", "", work.Number(c.tests)))
	r.Note(work.Told("passed", "", work.Number(len(c.both))).Beside(unwrapped, work.Number(c.passed)))
	if c.telling >= 0 {
		r.Note(work.Told("passed, and fail without connections", "", work.Number(c.telling)))
	}
	r.Note(work.Told("failed unwrapped too", "", work.Number(len(c.broken))).Said(nil, names(c.broken)))
	r.Note(work.Told("failed over natwise only, listed with a reason", "", work.Number(len(c.meant))))
	r.Note(work.Told("failed once, and not when alone", "", work.Number(len(c.flaky))))
	r.Note(work.Told("time", "s", work.Seconds(c.tookOver)).Beside(unwrapped, work.Seconds(c.took)))
	r.Note(work.Told("failed over natwise only, and not listed", "", work.Number(len(c.missed))).AtMost(0))
	for _, test := range slices.Sorted(maps.Keys(c.missed)) {
		m := work.Told("failed over natwise", "", work.Number(1)).At("", test)
		m.Miss("%s", c.missed[test])
		r.Note(m)
	}
	for _, test := range slices.Sorted(maps.Keys(c.meant)) {
		r.Note(work.Told("differs as meant", "", work.Number(1)).At("", test).Said(errors.New(c.meant[test]), nil))
	}
	for _, test := range slices.Sorted(maps.Keys(c.flaky)) {
		r.Note(work.Told("failed once", "", work.Number(1)).At("", test).Said(errors.New(c.flaky[test]), nil))
	}
	for _, test := range c.outdated {
		r.Note(work.Told("is listed, and passes", "", work.Number(1)).At("", test))
	}
}

// names is an error that tells tests.
func names(tests []string) error {
	if len(tests) == 0 {
		return nil
	}
	return errors.New(strings.Join(tests, ", "))
}

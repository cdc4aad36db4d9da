package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A site is where a driver's tests open DBs.
type site struct {
	files string // a pattern
	pkg   string // the files' package
	also  string // Go that this package needs besides
}

// edits are what is changed in the files of a site. Each line says what stands there as it
// was, and what for.
var edits = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`\bsql\.Open\(`), "natwiseOpen("},
	{regexp.MustCompile(`\bsql\.OpenDB\(`), "natwiseOpenDB("},
	{regexp.MustCompile(`\bstdlib\.OpenDB\(`), "natwiseOpenConfig("},
	{regexp.MustCompile(`\b(\w+)\.Raw\(func`), "natwiseRaw($1, func"},
}

// glue is in each package of a site. What it imports is said by %[1]s, the package, %[2]s,
// the driver's module, and %[3]s, what the driver needs besides.
const glue = `package %[1]s

import (
	"database/sql"
	"database/sql/driver"

	natwise "%[2]s/internal/natwise"
)

func natwiseOpen(name, dsn string) (*sql.DB, error)             { return natwise.Open(name, dsn) }
func natwiseOpenDB(c driver.Connector) *sql.DB                  { return natwise.OpenDB(c) }
func natwiseRaw(c *sql.Conn, f func(any) error) error           { return natwise.Raw(c, f) }
`

// What a driver needs besides, in a file of its own.
const (
	pgxGlue = `package stdlib_test

import (
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	natwise "github.com/jackc/pgx/v5/internal/natwise"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/natwise/natwise/sqlx"
)

func init() {
	natwise.Connector = func(name, dsn string) (driver.Connector, bool) {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			return nil, false // it was registered, and database/sql knows
		}
		config.DialFunc = sqlx.DefaultDialer.DialContext
		return stdlib.GetConnector(*config), true
	}
}

func natwiseOpenConfig(config pgx.ConnConfig, opts ...stdlib.OptionOpenDB) *sql.DB {
	config.DialFunc = sqlx.DefaultDialer.DialContext
	return natwise.OpenDB(stdlib.GetConnector(config, opts...))
}
`
	pqGlue = `package pq

import (
	"database/sql/driver"

	natwise "github.com/lib/pq/internal/natwise"
	"github.com/natwise/natwise/sqlx"
)

func init() {
	natwise.Connector = func(name, dsn string) (driver.Connector, bool) {
		c, err := NewConnector(dsn)
		if err != nil || name != "postgres" {
			return nil, false // database/sql is to say so
		}
		c.Dialer(sqlx.DefaultDialer)
		return c, true
	}
	natwise.Dial = func(c driver.Connector) {
		own, ok := c.(*Connector)
		if !ok {
			return
		}
		if _, ok := own.dialer.(defaultDialer); ok {
			own.Dialer(sqlx.DefaultDialer)
		}
	}
}
`
	mysqlGlue = `package mysql

import (
	"context"
	"net"

	"github.com/natwise/natwise/sqlx"
)

func init() {
	RegisterDialContext("tcp", func(ctx context.Context, addr string) (net.Conn, error) {
		return sqlx.DefaultDialer.DialContext(ctx, "tcp", addr)
	})
}
`
)

//go:embed adapter/adapter.go
var adapterSource []byte

// rewrite changes the copy of a module so that its tests run over natwise.
func (s suite) rewrite(dir string) error {
	adapter := filepath.Join(dir, "internal", "natwise")
	if err := os.MkdirAll(adapter, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(adapter, "adapter.go"), adapterSource, 0o600); err != nil {
		return err
	}
	for _, at := range s.sites {
		if err := at.rewrite(dir, s.module); err != nil {
			return err
		}
	}
	return nil
}

func (at site) rewrite(dir, module string) error {
	paths, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(at.files)))
	if err != nil {
		return err
	}
	found := 0
	for _, path := range paths {
		n, err := editFile(path, at.pkg)
		if err != nil {
			return err
		}
		found += n
	}
	if found == 0 {
		return fmt.Errorf("%s: nothing in %s opens a DB", module, at.files)
	}
	suffix := strings.TrimPrefix(filepath.Base(at.files), strings.TrimSuffix(filepath.Base(at.files), "_test.go"))
	if suffix == "" {
		suffix = ".go"
	}
	folder := filepath.Dir(filepath.Join(dir, filepath.FromSlash(at.files)))
	if err := os.WriteFile(filepath.Join(folder, "zz_natwise"+suffix), fmt.Appendf(nil, glue, at.pkg, module), 0o600); err != nil {
		return err
	}
	if at.also == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(folder, "zz_natwise_driver"+suffix), []byte(at.also), 0o600)
}

// editFile returns how many calls it has changed. It leaves examples alone, which are of
// another package.
func editFile(path, pkg string) (int, error) {
	source, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(source, []byte("\npackage "+pkg+"\n")) && !bytes.HasPrefix(source, []byte("package "+pkg+"\n")) {
		return 0, err
	}
	out, n := edit(source)
	if n == 0 {
		return 0, nil
	}
	return n, os.WriteFile(path, out, 0o600)
}

// edit makes the edits, and sees to it that what is imported is used.
func edit(source []byte) (out []byte, n int) {
	out = source
	for _, e := range edits {
		n += len(e.from.FindAll(out, -1))
		out = e.from.ReplaceAll(out, []byte(e.to))
	}
	if n > 0 && bytes.Contains(out, []byte(`"database/sql"`)) {
		out = append(out, "\nvar _ = sql.ErrNoRows\n"...)
	}
	return out, n
}

// writable is a module of the module cache, which lets nobody write.
type writable struct{ fs.FS }

func (w writable) Open(name string) (fs.File, error) {
	f, err := w.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return writableFile{f}, nil
}

type writableFile struct{ fs.File }

func (f writableFile) Stat() (fs.FileInfo, error) {
	i, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return writableInfo{i}, nil
}

// ReadDir is what fs.WalkDir looks for.
func (f writableFile) ReadDir(n int) ([]fs.DirEntry, error) {
	d, ok := f.File.(fs.ReadDirFile)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return d.ReadDir(n)
}

type writableInfo struct{ fs.FileInfo }

func (i writableInfo) Mode() fs.FileMode { return i.FileInfo.Mode() | 0o600 }

// writeWorkspace joins a driver's copy and natwise, so that the one may import the other
// without a change of its go.mod.
func writeWorkspace(dir, copied, natwise string) (path string, err error) {
	path = filepath.Join(dir, "go.work")
	return path, os.WriteFile(path, fmt.Appendf(nil, "go 1.26.0\n\nuse (\n\t%q\n\t%q\n)\n", copied, natwise), 0o600)
}

// modulesOf returns where modules stand of which this one depends.
func modulesOf(ctx context.Context, paths ...string) (map[string]string, error) {
	out, err := goCommand(ctx, "", []string{"GOWORK=off"}, append([]string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}, paths...)...)
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]string)
	for line := range strings.Lines(out) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		if dir == "" {
			return nil, fmt.Errorf("the source of %s is not here: go mod download", path)
		}
		dirs[path] = dir
	}
	return dirs, nil
}

// goCommand runs the go command in dir. What it says on standard error is part of the
// error.
func goCommand(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w\n%s%s", strings.Join(args, " "), err, out, &said)
	}
	return string(out), err
}

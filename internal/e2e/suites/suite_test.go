package main

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestCallsThatOpenADBAreChanged(t *testing.T) {
	for from, to := range map[string]string{
		"db, err := sql.Open(name, dsn)":           "db, err := natwiseOpen(name, dsn)",
		"db := sql.OpenDB(c)":                      "db := natwiseOpenDB(c)",
		"return stdlib.OpenDB(*config, opts...)":   "return natwiseOpenConfig(*config, opts...)",
		"err = conn.Raw(func(c any) error {":       "err = natwiseRaw(conn, func(c any) error {",
		"c := stdlib.GetConnector(config)":         "c := stdlib.GetConnector(config)",
		"var raw sql.RawBytes; db.OpenDB(); mysql": "var raw sql.RawBytes; db.OpenDB(); mysql",
	} {
		if out, _ := edit([]byte(from)); string(out) != to {
			t.Errorf("%s became %s, want %s", from, out, to)
		}
	}
}

func TestAFileThatUsesNothingElseOfDatabaseSQLStillCompiles(t *testing.T) {
	out, n := edit([]byte("package p\n\nimport \"database/sql\"\n\nvar db, err = sql.Open(\"\", \"\")\n"))
	if n != 1 || !strings.Contains(string(out), "var _ = sql.") {
		t.Errorf("%d changes:\n%s", n, out)
	}
}

func TestOnlyFilesOfTheSitesPackageAreChanged(t *testing.T) {
	dir := t.TempDir()
	opens := "\n\nimport \"database/sql\"\n\nfunc f() { sql.Open(\"\", \"\") }\n"
	in, out := filepath.Join(dir, "in_test.go"), filepath.Join(dir, "out_test.go")
	for path, source := range map[string]string{in: "package p" + opens, out: "package p_test" + opens} {
		if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := (site{files: "*_test.go", pkg: "p", also: "package p\n"}).rewrite(dir, "example.com/p"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{in: true, out: false} {
		if source, err := os.ReadFile(path); err != nil || strings.Contains(string(source), "natwiseOpen") != want {
			t.Errorf("%s (error %v)\n%s", path, err, source)
		}
	}
	written, err := filepath.Glob(filepath.Join(dir, "zz_*"))
	if err != nil || len(written) != 2 {
		t.Fatalf("%v besides (error %v)", written, err)
	}
	for _, path := range written {
		if !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s is part of the package", path)
		}
		if _, err := parser.ParseFile(token.NewFileSet(), path, nil, 0); err != nil {
			t.Error(err)
		}
	}
}

func TestASiteThatOpensNoDBIsAnError(t *testing.T) {
	if err := (site{files: "*_test.go", pkg: "p"}).rewrite(t.TempDir(), "example.com/p"); err == nil {
		t.Error("nothing was changed, and nobody would know")
	}
}

func TestACopyOfTheModuleCacheMayBeWritten(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, writable{fstest.MapFS{"a/b.go": {Data: []byte("x"), Mode: 0o444}, "a": {Mode: 0o555 | fs.ModeDir}}}); err != nil {
		t.Fatal(err)
	}
	i, err := os.Stat(filepath.Join(dir, "a", "b.go"))
	if err != nil || i.Mode()&0o200 == 0 {
		t.Errorf("%v (error %v)", i, err)
	}
}

// said is what test2json writes.
func said(events ...string) []byte { return []byte(strings.Join(events, "\n")) }

func TestTestsWithSubtestsAreNotCounted(t *testing.T) {
	r := parse(said(
		`{"Action":"run","Test":"TestA"}`, `{"Action":"run","Test":"TestA/one"}`, `{"Action":"run","Test":"TestA/two"}`,
		`{"Action":"output","Test":"TestA/two","Output":"no\n"}`, `{"Action":"pass","Test":"TestA/one"}`, `{"Action":"fail","Test":"TestA/two"}`,
		`{"Action":"fail","Test":"TestA"}`, `{"Action":"run","Test":"TestB"}`, `{"Action":"skip","Test":"TestB"}`, `{"Action":"fail"}`,
	))
	want := map[string]result{"TestA/one": {passed, ""}, "TestA/two": {failed, "no\n"}, "TestB": {skipped, ""}, whole: {passed, ""}}
	if !maps.Equal(r, want) {
		t.Errorf("%v, want %v", r, want)
	}
}

func TestATestThatNeverEndsHasFailed(t *testing.T) {
	r := parse(said(`{"Action":"run","Test":"TestA"}`, `{"Action":"output","Output":"panic: x\n"}`, `{"Action":"fail"}`))
	if r["TestA"].outcome != failed {
		t.Errorf("%v", r)
	}
}

func TestWhatTestMainFindsIsNoTests(t *testing.T) {
	r := parse(said(`{"Action":"run","Test":"TestA"}`, `{"Action":"pass","Test":"TestA"}`, `{"Action":"output","Output":"still active\n"}`, `{"Action":"fail"}`))
	if r["TestA"].outcome != passed || r[whole] != (result{failed, "still active\n"}) {
		t.Errorf("%v", r)
	}
}

// again is a program that is run for one test, and what comes of it.
type again map[string]outcome

func (a again) run(_ context.Context, match string) (map[string]result, error) {
	o, ok := a[match]
	if !ok {
		return nil, errors.New("no test has run")
	}
	return map[string]result{strings.Trim(match, "^$"): {outcome: o}}, nil
}

func TestOnlyWhatFailsOverNatwiseTwiceAndIsNotListedIsMissed(t *testing.T) {
	c := newComparison()
	plain := map[string]outcome{"Both": passed, "Skipped": skipped, "Broken": failed, "Listed": passed, "Outdated": passed, "Flaky": passed, "Ours": passed, "Gone": passed}
	over := map[string]outcome{"Both": passed, "Skipped": skipped, "Broken": failed, "Listed": failed, "Outdated": passed, "Flaky": failed, "Ours": failed}
	for test, o := range plain {
		c.judge(t.Context(), test, result{outcome: o}, result{outcome: over[test]}, again{"^Flaky$": passed, "^Ours$": failed}, map[string]string{"Listed": "why", "Outdated": "why"})
	}
	if c.tests != 7 || c.passed != 6 || len(c.both) != 2 || len(c.broken) != 1 || len(c.flaky) != 1 {
		t.Errorf("%+v", c)
	}
	if missed := slices.Sorted(maps.Keys(c.missed)); !slices.Equal(missed, []string{"Gone", "Ours"}) {
		t.Errorf("missed %v", missed)
	}
	if !maps.Equal(c.meant, map[string]string{"Listed": "why"}) || !slices.Equal(c.outdated, []string{"Outdated"}) {
		t.Errorf("meant %v, outdated %v", c.meant, c.outdated)
	}
}

func TestATestThatPassesWithoutConnectionsTellsNothing(t *testing.T) {
	c := comparison{both: []string{"Parses", "Queries", "Panics"}}
	c.tell(t.Context(), again{"^Parses$": passed, "^Queries$": failed})
	if c.telling != 2 {
		t.Errorf("%d tell something, want 2", c.telling)
	}
}

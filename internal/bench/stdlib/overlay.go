package stdlib

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
)

// adapterSource becomes a file of net/http's tests.
//
//go:embed adapter/adapter.go
var adapterSource []byte

const adapterFile = "zz_natwise_test.go"

// The tests' own package, of whose files an overlay is made.
const testPackage = "http_test"

// An overlay is what go test's -overlay reads: paths of files that are to be seen
// with the contents of others.
type overlay struct{ Replace map[string]string }

// writeOverlay writes into dir the tests of net/http that stand in tests as they look
// over natwise, and returns the path of the file for -overlay.
func writeOverlay(tests, dir string) (string, error) {
	changed, err := rewriteAll(tests)
	if err != nil {
		return "", err
	}
	changed[adapterFile] = asTest(adapterSource)
	o := overlay{make(map[string]string)}
	for name, source := range changed {
		o.Replace[filepath.Join(tests, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), source, 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

// rewriteAll returns those files of the tests that look otherwise over natwise.
func rewriteAll(tests string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(tests, "*_test.go"))
	if err != nil {
		return nil, err
	}
	changed := make(map[string][]byte)
	found := make(map[rule]int)
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(path)
		out, rules, err := rewrite(name, source)
		if err != nil {
			return nil, err
		}
		for r, n := range rules {
			found[r] += n
			changed[name] = out
		}
	}
	return changed, expected(found)
}

// asTest puts a file of a package of ours into the tests' package.
func asTest(source []byte) []byte {
	return bytes.Replace(source, []byte("\npackage adapter\n"), []byte("\npackage "+testPackage+"\n"), 1)
}

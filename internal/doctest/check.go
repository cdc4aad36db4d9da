package doctest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Check fails t for each block of Go that the module of t is to compile and that does not
// compile, by file and line. Blocks of other modules are theirs to check.
func Check(t *testing.T) {
	t.Helper()
	root, module, err := here()
	if err != nil {
		t.Fatal(err)
	}
	n, wrong, err := check(root, module)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
	if n == 0 {
		t.Error("no block of Go was found")
	}
	t.Logf("%d blocks of Go were compiled", n)
}

// here returns the repository's root, which is the outermost module, and the present module
// relative to it.
func here() (root, module string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	own := ""
	for up := ""; up != dir; up, dir = dir, filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			own, root = cmp.Or(own, dir), dir
		}
	}
	module, err = filepath.Rel(root, own)
	return root, module, err
}

// check returns how many blocks a module has, and what is wrong with them.
func check(root, module string) (n int, wrong []string, err error) {
	blocks, err := find(root)
	if err != nil {
		return 0, nil, err
	}
	blocks = slices.DeleteFunc(blocks, func(b block) bool { return b.module != module })
	if len(blocks) == 0 {
		return 0, nil, nil
	}
	wrong, err = compile(root, module, blocks)
	return len(blocks), wrong, err
}

// compile has the go command compile each block as a package of the module. The packages
// exist in an overlay only.
func compile(root, module string, blocks []block) (wrong []string, err error) {
	dir := filepath.Join(root, module)
	imports, err := packages(dir)
	if err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp("", "doctest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	const place = "blocks_of_documentation"
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for i, b := range blocks {
		name := fmt.Sprintf("block%d", i)
		file := filepath.Join(temp, name+".go")
		if err := os.WriteFile(file, b.source(root, imports), 0o600); err != nil {
			return nil, err
		}
		overlay.Replace[filepath.Join(dir, place, name, "block.go")] = file
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return nil, err
	}
	listed := filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(listed, list, 0o600); err != nil {
		return nil, err
	}
	said, err := run(dir, "build", "-gcflags=-e", "-overlay", listed, "./"+place+"/...")
	if err == nil {
		return nil, nil
	}
	for line := range strings.Lines(said) {
		if position.MatchString(line) && !strings.HasPrefix(line, temp) {
			wrong = append(wrong, strings.TrimSpace(line))
		}
	}
	if wrong == nil {
		return nil, err
	}
	return wrong, nil
}

var position = regexp.MustCompile(`^\S+:\d+(:\d+)?: `)

// run returns what the go command prints, with its errors if it fails.
func run(dir string, args ...string) (said string, err error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		said = string(out) + errs.String()
		return said, fmt.Errorf("%v: %w\n%s", cmd, err, said)
	}
	return string(out), nil
}

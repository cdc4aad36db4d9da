package stdlib

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A toolchain is a Go, whose tests can be seen through an overlay.
type toolchain struct {
	root string
	env  []string // of all commands
}

// thisGo returns the Go of the process, which must be that of the go command too. The
// go command lays nothing over a toolchain that it has downloaded as a module: that
// one is reached by another path, in dir.
func thisGo(ctx context.Context, dir string) (toolchain, error) {
	g := toolchain{env: os.Environ()}
	out, err := g.run(ctx, "go", "env", "GOVERSION", "GOROOT", "GOMODCACHE")
	if err != nil {
		return toolchain{}, err
	}
	said := strings.Split(out, "\n")
	if len(said) != 3 || said[0] != runtime.Version() {
		return toolchain{}, fmt.Errorf("this is a program of %s and the go command is of %s", runtime.Version(), said[0])
	}
	g.root = said[1]
	if inside, err := filepath.Rel(said[2], g.root); err != nil || !filepath.IsLocal(inside) {
		return g, nil
	}
	link := filepath.Join(dir, "goroot")
	if err := os.Symlink(g.root, link); err != nil {
		return toolchain{}, err
	}
	path := filepath.Join(link, "bin") + string(filepath.ListSeparator) + os.Getenv("PATH")
	return toolchain{link, append(g.env, "GOROOT="+link, "GOTOOLCHAIN=local", "PATH="+path)}, nil
}

// tests is where those of net/http stand.
func (g toolchain) tests() string { return filepath.Join(g.root, "src", "net", "http") }

// goCommand runs the go command of g.
func (g toolchain) goCommand(ctx context.Context, args ...string) (string, error) {
	return g.run(ctx, filepath.Join(g.root, "bin", "go"), args...)
}

// run runs a program. What that says on standard error is part of the error.
func (g toolchain) run(ctx context.Context, program string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.Env = g.env
	out, err := c.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, failed.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

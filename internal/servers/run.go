package servers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// ErrUnavailable says that this machine or this user cannot have a server.
var ErrUnavailable = errors.New("servers: not here")

// A T is what servers need of a test: every testing.TB is one.
type T interface {
	Helper()
	TempDir() string
	Cleanup(f func())
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Skip(args ...any)
}

// Run calls f with a T, for programs that are not tests. When it returns, the
// servers of f are gone and their files are removed. What went wrong with a
// server is in the error, beside what f returns; a server that cannot start ends
// f. Where there can be none, the error is ErrUnavailable and says what it takes.
func Run(f func(t T) error) (err error) {
	r := new(run)
	defer func() {
		ended := recover()
		r.cleanUp()
		if _, known := ended.(endOfRun); ended != nil && !known {
			panic(ended)
		}
		err = errors.Join(append(r.errs, err)...)
	}()
	return f(r)
}

// A run is the T of Run. As in a test, other goroutines than the first may call
// Errorf and Logf only.
type run struct {
	cleanups []func()

	mu   sync.Mutex // guards the field below
	errs []error
}

// endOfRun is the panic that ends the function of a run, which knows why.
type endOfRun struct{}

func (r *run) Helper() {}

func (r *run) TempDir() string {
	dir, err := os.MkdirTemp("", "natwise-servers-")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			r.add(err)
		}
	})
	return dir
}

func (r *run) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *run) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.errs) > 0
}

func (r *run) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (r *run) Errorf(format string, args ...any) { r.add(fmt.Errorf(format, args...)) }

func (r *run) Fatal(args ...any) {
	r.add(errors.New(sprint(args)))
	panic(endOfRun{})
}

func (r *run) Skip(args ...any) {
	r.add(fmt.Errorf("%w: %s", ErrUnavailable, sprint(args)))
	panic(endOfRun{})
}

func (r *run) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// cleanUp calls what was left for the end, the last first.
func (r *run) cleanUp() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

// sprint puts spaces where package testing puts them.
func sprint(args []any) string { return strings.TrimSuffix(fmt.Sprintln(args...), "\n") }

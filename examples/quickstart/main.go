// Command quickstart sends the same work through several HTTP clients, each
// behind a NAT of its own on which something goes wrong, and shows what becomes of
// it. Everything runs in this process, on loopback; nothing needs root.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -scenario blackhole
//	go run ./examples/quickstart -json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/natwise/natwise/internal/terminal"
)

func main() {
	ctx, stop := untilTold(context.Background())
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr, terminal.Of(os.Stdout))
	stop()
	os.Exit(status)
}

// untilTold is done when somebody ends the program, or closes its window: a terminal wants its
// cursor back.
func untilTold(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// run returns the exit status. term is what out can do.
func run(ctx context.Context, args []string, out, errs io.Writer, term terminal.Terminal) int {
	complain := func(err error, status int) int {
		fmt.Fprintln(errs, "quickstart:", err)
		return status
	}
	o, err := parse(args, errs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return complain(err, 2)
	}
	page, err := newKeepsake(o.html)
	if err != nil {
		return complain(err, 2)
	}
	defer page.drop()
	s := newScreen(out, term)
	if o.json {
		s = newScreen(io.Discard, terminal.Terminal{})
	}
	v, err := perform(ctx, o.scene, loopback(), s, page)
	if err == nil && o.json {
		err = json.NewEncoder(out).Encode(v)
	}
	if err != nil {
		return complain(err, 1)
	}
	if v.Status != "ok" {
		return 1
	}
	return 0
}

// perform plays a scene, shows it on s and keeps the page.
func perform(ctx context.Context, sc *scene, on network, s *screen, page *keepsake) (verdict, error) {
	s.opening(sc)
	lanes, err := race(ctx, sc, on, func(lanes []*lane) {
		page.follow(lanes)
		s.progress(sc, lanes)
	})
	s.settle()
	if err != nil {
		return verdict{}, err
	}
	v := newVerdict(sc, lanes)
	if err := s.closing(sc, v, lanes); err != nil {
		return v, err
	}
	said, err := page.keep()
	if said != "" {
		s.printf("%s\n\n", said)
	}
	return v, errors.Join(err, s.err)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const patience = 10 * time.Second // with a browser, on a busy machine

// errNoChromium says that there is no browser on this machine.
var errNoChromium = errors.New("needs chromium: apt-get install chromium")

// A tab is one page in a browser of its own. It is for one goroutine. Whoever opens it
// closes it; the kernel ends the browser if the process dies before.
type tab struct {
	ctx context.Context
	end context.CancelFunc

	mu     sync.Mutex // guards the fields below
	errors []string   // what the page did wrong, in the browser's words
	asked  []string   // URLs
}

// open starts a browser with the given flags, beside those that all have.
func open(flags ...chromedp.ExecAllocatorOption) (*tab, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, errNoChromium
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("hide-scrollbars", false)) // they take up room, as they do for people
	allocator, release := chromedp.NewExecAllocator(context.Background(), append(options, flags...)...)
	t := new(tab)
	t.ctx, t.end = chromedp.NewContext(allocator, chromedp.WithListener(t.hear))
	if err := t.do(chromedp.Func(prepare)); err != nil {
		release()
		return nil, fmt.Errorf("chromium: %w", err)
	}
	return t, nil
}

// prepare has the page tell what its policy has stopped. It starts the browser, too.
func prepare(ctx context.Context, _ *chromedp.Target) error {
	_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `addEventListener("securitypolicyviolation", e =>
			console.error("policy: " + e.effectiveDirective + " " + e.blockedURI + " " + e.sample))`,
	})
	return err
}

// close ends the browser, and returns when its process has ended.
func (t *tab) close() error {
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	defer t.end()
	return chromedp.Cancel(ctx)
}

// hear notes what the browser tells of the page. It must not block.
func (t *tab) hear(event any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		t.asked = append(t.asked, e.Request.URL)
	case *page.EventJavascriptDialogOpening:
		t.errors = append(t.errors, "dialog: "+e.Message)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError {
			t.errors = append(t.errors, e.Entry.Text+" "+e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError {
			t.errors = append(t.errors, words(e.Args))
		}
	case *runtime.EventExceptionThrown:
		t.errors = append(t.errors, e.ExceptionDetails.Text+" "+words([]*runtime.RemoteObject{e.ExceptionDetails.Exception}))
	}
}

func words(args []*runtime.RemoteObject) string {
	var all []string
	for _, a := range args {
		if a == nil {
			continue
		}
		all = append(all, a.Description+string(a.Value))
	}
	return strings.Join(all, " ")
}

// wrong returns what the page did wrong since it was last asked.
func (t *tab) wrong() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := t.errors
	t.errors = nil
	return errs
}

// requests returns the URLs that were asked for.
func (t *tab) requests() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.asked...)
}

func (t *tab) do(steps ...chromedp.Action[chromedp.Void]) error {
	return within(t, func(ctx context.Context) error { return chromedp.Do(ctx, steps...) })
}

// within bounds what is asked of a browser that is there.
func within(t *tab, ask func(context.Context) error) error {
	if chromedp.FromContext(t.ctx).Browser == nil {
		return ask(t.ctx) // its context is that of the browser's life
	}
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	return ask(ctx)
}

// eval returns what a JavaScript expression, or the promise that it is, comes to. What
// the page's policy forbids scripts does not concern it.
func eval[T any](t *tab, expression string) (value T, err error) {
	err = within(t, func(ctx context.Context) error {
		value, err = chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
		return err
	})
	return value, err
}

// await returns when an expression has become true. It is looked at once a frame.
func (t *tab) await(expression string) error {
	_, err := eval[bool](t, fmt.Sprintf(`new Promise(done => {
		const look = () => (%s) ? done(true) : requestAnimationFrame(look);
		look();
	})`, expression))
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", expression, err)
	}
	return nil
}

// A look is how somebody sees a page.
type look struct {
	width  int64 // CSS pixels
	height int64
	dark   bool
	still  bool // prefers less motion
}

func (l look) String() string {
	theme := "light"
	if l.dark {
		theme = "dark"
	}
	return fmt.Sprint(theme, " at ", l.width, " px")
}

// wear has the browser look at pages like that.
func (t *tab) wear(l look) error {
	scheme, motion := "light", "no-preference"
	if l.dark {
		scheme = "dark"
	}
	if l.still {
		motion = "reduce"
	}
	return t.do(chromedp.EmulateViewport(l.width, l.height), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: scheme},
				{Name: "prefers-reduced-motion", Value: motion},
			},
		})
		return err
	}))
}

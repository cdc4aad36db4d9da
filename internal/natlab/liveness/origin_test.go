package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

const aLittle = 20 * time.Millisecond

// onLoopback calls f with a line over each to an origin on loopback.
func onLoopback(t *testing.T, f func(ctx context.Context, t *testing.T, o *origin, l line)) {
	for _, over := range []string{plain, overTLS, http1, https1, http2} {
		t.Run(over, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			cert, root, err := certify()
			if err != nil {
				t.Fatal(err)
			}
			o := newOrigin(cert)
			o.delay, o.window = aLittle, windowSize
			addresses := make(map[string]string)
			err = o.listen(func(address string) (net.Listener, error) {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err == nil {
					addresses[address] = ln.Addr().String()
				}
				return ln, err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer o.close()
			itself := func(tr *http.Transport) http.RoundTripper { return tr }
			l, err := dialLine(ctx, new(net.Dialer).DialContext, itself, clientTLS(root), over, addresses[fmt.Sprint(":", ports[over])])
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if err := l.ask(ctx); err != nil {
				t.Fatal(err)
			}
			f(ctx, t, o, l)
		})
	}
}

func TestAnAnswerComesWhenItIsDue(t *testing.T) {
	onLoopback(t, func(ctx context.Context, t *testing.T, _ *origin, l line) {
		begin := time.Now()
		if err := l.wait(ctx, aLittle); err != nil || time.Since(begin) < aLittle {
			t.Errorf("%v, after %v", err, time.Since(begin))
		}
		if err := l.hang(); err != nil {
			t.Error(err)
		}
		select {
		case <-l.end().over:
			t.Errorf("what gets no answer has ended: %v", l.end().err)
		case <-time.After(aLittle):
		}
	})
}

func TestANamedConnectionCanBeReset(t *testing.T) {
	onLoopback(t, func(ctx context.Context, t *testing.T, o *origin, l line) {
		if err := l.name(ctx, "this one"); err != nil {
			t.Fatal(err)
		}
		began, err := o.reset("this one")
		if err != nil {
			t.Fatal(err)
		}
		if took, why := l.end().after(ctx, began); took.More || why == nil {
			t.Errorf("%v, %v", took, why)
		}
		if _, err := o.reset("this one"); err == nil {
			t.Error("it was reset twice")
		}
	})
}

func TestAnUploadIsTakenLateAndCounted(t *testing.T) {
	const size = 1 << 20
	onLoopback(t, func(ctx context.Context, t *testing.T, _ *origin, l line) {
		begin := time.Now()
		came, written, err := l.upload(ctx, size)
		if err != nil || came != size || written.Before(begin) || time.Since(begin) < aLittle {
			t.Errorf("%d bytes came, %v, written %v after the beginning", came, err, written.Sub(begin))
		}
	})
}

func TestWritesGoOnUntilTheConnectionEnds(t *testing.T) {
	onLoopback(t, func(ctx context.Context, t *testing.T, o *origin, l line) {
		if err := l.name(ctx, "written to"); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := l.write(); err != nil {
				t.Fatal(err)
			}
		}
		began, err := o.reset("written to")
		if err != nil {
			t.Fatal(err)
		}
		if took, why := l.end().after(ctx, began); took.More || why == nil {
			t.Errorf("%v, %v", took, why)
		}
	})
}

func TestAllConnectionsOfACrowdAreUsedAtOnce(t *testing.T) {
	lab(t)
	st, err := open(natlab.Config{Servers: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	const n = 10
	for _, w := range newRows(st.dialer, st.dialAsGo, st.tls, st.servers(4)) {
		defer w.close()
		if err := w.open(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		w.use(t.Context(), n, answerDue)
		for s, before := range w.before {
			if len(before.locals) != n || len(before.took) != n || w.after[s].failed > 0 || again(before, w.after[s]) != n {
				t.Errorf("%s, %d: %+v, then %+v", w.over, s, before, w.after[s])
			}
		}
	}
	if n := len(st.heard.events); n != 2*10 {
		t.Errorf("the dialer told %d events", n)
	}
}

// lab skips the test where there can be none.
func lab(t *testing.T) { natlab.Need(t, natlab.Config{Path: work.Path()}) }

func TestDeadlinesEndWhatIsLiedTo(t *testing.T) {
	lab(t)
	st, err := open(natlab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	c := pooled(st.dialer, config(plain, nil), st.Server(0), plain)
	defer c.close()
	liar, err := st.Proxy(at(st.Server(0), plain))
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	if err := c.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	liar.Lie(true)
	short, cancel := context.WithTimeout(t.Context(), 10*aLittle)
	defer cancel()
	var late net.Error
	if err := c.once(short); !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("through a liar: %v", err)
	}
	liar.Lie(false)
	if took, failed, why := untilAnswered(t.Context(), c); took.More || failed > 0 {
		t.Errorf("after %v, %d failed: %v", took, failed, why)
	}
}

func TestPacketsAreCountedAsTheyComeAndAsTheyPass(t *testing.T) {
	lab(t)
	st, err := open(natlab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	l, err := st.line(t.Context(), peer, plain, 0)
	if err != nil {
		t.Fatal(err)
	}
	settle()
	if err := errors.Join(st.count("some", "ip daddr "+st.Server(0).String()), st.DropNext(l.remote(), 1)); err != nil {
		t.Fatal(err)
	}
	if err := l.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	counts, err := st.counted()
	if came, passed := counts["some"], counts["some_passed"]; err != nil || passed == 0 || came != passed+1 {
		t.Errorf("%d came, %d passed, %v", came, passed, err)
	}
}

func TestAFlowGoesDarkAlone(t *testing.T) {
	lab(t)
	st, err := open(natlab.Config{Servers: 2 * len(three)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	pairs, err := st.pairs(t.Context(), three, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.darken([]trial{{pair: pairs[0]}}); err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		for _, l := range []line{p.ours, p.peer} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*aLittle)
			defer cancel()
			if err := l.ask(ctx); (err == nil) == (p == pairs[0]) {
				t.Errorf("%s to %v: %v", p.over, l.remote(), err)
			}
		}
	}
	beside, err := st.lineTo(t.Context(), ours, plain, pairs[0].ours.remote().Addr())
	if err != nil || beside.ask(t.Context()) != nil {
		t.Errorf("another to the same address: %v", err)
	}
	if err := st.Blackhole(netip.AddrPort{}, false); err != nil { // for the FINs
		t.Error(err)
	}
}

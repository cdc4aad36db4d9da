package withsdk_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/pool/conns"
	"github.com/natwise/natwise/sqlx"
)

// A logbook is what a logger was told, a line each, without the time of day.
type logbook struct{ bytes.Buffer }

func (b *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// take returns the lines so far, once.
func (b *logbook) take() string {
	defer b.Reset()
	return strings.TrimSuffix(b.String(), "\n")
}

// warned has a town whose ledger tells a logger.
func warned(t *testing.T, ports int, f func(c *town, log *logbook)) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), ports)
		var log logbook
		c.ledger.Logger, c.ledger.Name = log.logger(), "east"
		f(c, &log)
	})
}

// wantLine fails the test unless there is one line, which matches.
func (c *town) wantLine(log *logbook, pattern string) {
	c.Helper()
	synctest.Wait()
	if line := log.take(); !regexp.MustCompile("^" + pattern + "$").MatchString(line) {
		c.Errorf("the log has\n%s\nwant\n%s", line, pattern)
	}
}

func (c *town) wantSilence(log *logbook) {
	c.Helper()
	synctest.Wait()
	if lines := log.take(); lines != "" {
		c.Errorf("the log has\n%s", lines)
	}
}

func (c *town) open(ctx context.Context, address string) (net.Conn, error) {
	conn, err := c.dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		c.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func TestFourFifthsOfABudgetAreWarnedOfOnceAMinute(t *testing.T) {
	warned(t, 10, func(c *town, log *logbook) {
		dial := func() {
			c.Helper()
			_, err := c.open(c.Context(), "lines.example.com:7000")
			c.must(err)
		}
		for range 7 {
			dial()
		}
		c.wantSilence(log)
		dial()
		c.wantLine(log, `level=WARN msg="natwise: four fifths of the ports to one destination are taken" `+
			`address=lines.example.com:7000 account="tcp 20.1.2.6:7000: 8 of 10 ports taken [^"]*" ledger=east`)
		dial()
		c.wantSilence(log)
		time.Sleep(time.Minute)
		dial()
		c.wantLine(log, `level=WARN msg="natwise: four fifths .*: 10 of 10 ports taken [^"]*" ledger=east times=2`)
	})
}

func TestARefusalIsWarnedOfOnceAMinuteForEachDestination(t *testing.T) {
	warned(t, 2, func(c *town, log *logbook) {
		for range 2 {
			for _, address := range []string{lines, plain} {
				_, err := c.open(c.Context(), address)
				c.must(err)
			}
		}
		log.take()
		_, client := c.web()
		refused := func(do func(ctx context.Context) error) {
			c.Helper()
			ctx, cancel := context.WithTimeout(c.Context(), time.Second)
			defer cancel()
			if err := do(ctx); !errors.Is(err, dialer.ErrBudget) {
				c.Errorf("refused: %v", err)
			}
		}
		request := func(url string) func(context.Context) error {
			return func(ctx context.Context) error { return get(ctx, client, url) }
		}
		refused(request("http://lines.example.com:7000/"))
		c.wantLine(log, `level=WARN msg="natwise: no port came free in time" address=lines.example.com:7000 `+
			`account="tcp 20.1.2.6:7000: 2 of 2 ports taken [^"]*" ledger=east`)
		refused(request("http://lines.example.com:7000/"))
		refused(func(ctx context.Context) error {
			_, err := c.open(ctx, "lines.example.com:7000")
			return err
		})
		c.wantSilence(log)
		refused(request("http://example.com/"))
		c.wantLine(log, `level=WARN msg="natwise: no port came free in time" address=example.com:80 .*`)
		time.Sleep(time.Minute)
		refused(request("http://lines.example.com:7000/"))
		c.wantLine(log, `.* address=lines.example.com:7000 .* ledger=east times=3`)
	})
}

// However its pool is called: who looks for an address in a log finds all of it.
func TestARefusalOfADatabaseIsWarnedOfByItsAddress(t *testing.T) {
	warned(t, 2, func(c *town, log *logbook) {
		d := &sqlx.Dialer{Dialer: c.dialer}
		db := sqlx.OpenDB(toy{d.DialContext, "lines.example.com:7000"}, sqlx.Config{Name: "orders", Dialer: d})
		defer db.Close()
		for range 2 {
			held, err := db.Conn(c.Context())
			c.must(err)
			defer held.Close()
		}
		log.take()
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		defer cancel()
		if err := db.PingContext(ctx); !errors.Is(err, dialer.ErrBudget) {
			c.Errorf("refused: %v", err)
		}
		c.wantLine(log, `level=WARN msg="natwise: no port came free in time" address=lines.example.com:7000 .*`)
	})
}

func TestABlackHoleIsWarnedOf(t *testing.T) {
	warned(t, 10, func(c *town, log *logbook) {
		c.dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := c.net.DialContext(ctx, network, address)
			return givenUp{conn}, err
		}
		for range 2 {
			conn, err := c.open(c.Context(), "lines.example.com:7000")
			c.must(err)
			conn.Read(make([]byte, 1))
			conn.Close()
		}
		c.wantLine(log, `level=WARN msg="natwise: a connection was found dead, its packets vanish" `+
			`address=lines.example.com:7000 remote=20.1.2.6:7000 local=127.0.0.1:\d+ silence=0s ledger=east`)
		r := c.read()
		r.want(2, "natwise.blackhole.detections", at(lines)...)
		r.want(2, closed, at(lines, reason("blackhole"))...)
	})
}

func TestALeaseThatIsOutForLongIsWarnedOf(t *testing.T) {
	warned(t, 10, func(c *town, log *logbook) {
		p := c.conns(conns.Config{LeakAfter: time.Minute})
		conn := c.lend(p, "")
		time.Sleep(time.Minute + time.Second)
		c.wantLine(log, `level=WARN msg="natwise: a connection was not put back for long" address=lines.example.com:7000 `+
			`took="[^"]*town_test.go:\d+[^"]*" for=1m\S* ledger=east`)
		conn.Put()
	})
}

func TestAConnectionThatNobodyClosesIsWarnedOf(t *testing.T) {
	l := newLens(t)
	lines := make(chan string, 1)
	_, d, at := l.loopback()
	d.Ledger.Logger = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) { lines <- string(b) }), nil))
	func() {
		if _, err := d.DialContext(t.Context(), "tcp", at.String()); err != nil {
			t.Fatal(err)
		}
	}()
	collected(t, "a connection", func() bool { return len(lines) > 0 })
	if line := <-lines; !strings.Contains(line, `msg="natwise: a connection was dropped without Close" address=`+at.String()) {
		t.Error(line)
	}
}

type writerFunc func(b []byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestWithoutALoggerNothingIsSaid(t *testing.T) {
	defer slog.SetDefault(slog.Default())
	var log logbook
	slog.SetDefault(log.logger())
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 1)
		_, err := c.open(c.Context(), lines)
		c.must(err)
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		defer cancel()
		if _, err := c.open(ctx, lines); !errors.Is(err, dialer.ErrBudget) {
			t.Errorf("refused: %v", err)
		}
		c.wantSilence(&log)
		if n := len(c.ledger.Telemetry().Records()); n != 2 { // but it is there for the page
			t.Errorf("%d warnings are kept, want that of the budget and that of the refusal", n)
		}
	})
}

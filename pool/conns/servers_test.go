package conns_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

// A siege is a server that is ended and started again while workers use it
// through a pool.
type siege struct {
	*testing.T
	ctx    context.Context // of all that waits
	server *servers.Server
	talk   siegeTalk
	ledger dialer.Ledger
	dialer dialer.Dialer
	pool   *conns.Pool

	over   atomic.Bool  // no further operation is to begin
	gate   sync.RWMutex // held for reading during an operation
	closed bool         // the gate is, by the test
	work   sync.WaitGroup

	// An outage counts as begun before the server is told to end, and as gone
	// after it has ended.
	begun, gone atomic.Int64
	dialed      sync.Map // of net.Conn to int64: what gone was before its SYN

	flows sync.Map // of *dialer.Conn to siegeFlow; all are kept, so that no address comes twice

	exchanging                        atomic.Int64 // operations that have their connection
	answered, inFlight, late, crossed atomic.Int64 // operations that are over: see failed
	opened, ended, refused            atomic.Int64 // connections, and openings in vain
	most                              int64        // connections that the server had at a time
}

// A siegeTalk is how a server is spoken to.
type siegeTalk struct {
	// exchange sends token and wants it back. It is last if the server says that
	// it will hang up.
	exchange func(c net.Conn, worker, token string) (last bool, err error)

	// census counts the server's connections, besides its own.
	census func(address string) (int64, error)

	idle   time.Duration // after which the server hangs up; 0: never
	config conns.Config
}

// A siegeFlow is what became of a flow: lent, rested since its last answer, or
// not to be lent again.
type siegeFlow struct {
	lent, done bool
	rested     time.Time
}

const (
	siegePorts   = 16
	siegeWorkers = 32 // who share them
	siegeLimit   = 30 * time.Second
)

// errSiegeMixed says that an answer was to another question.
var errSiegeMixed = errors.New("not what was asked for")

// besiege starts the workers. Loopback counts, and ports are held for a moment.
func besiege(t *testing.T, server *servers.Server, talk siegeTalk) *siege {
	ctx, cancel := context.WithTimeout(t.Context(), siegeLimit)
	s := &siege{T: t, ctx: ctx, server: server, talk: talk}
	t.Cleanup(func() { // where the test was given up
		s.over.Store(true)
		cancel()
		s.open()
		s.work.Wait()
		s.pool.Close(ctx)
	})
	s.ledger.Ramp = -1
	const brief = 50 * time.Millisecond
	s.ledger.Path = netpath.Profile{
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: siegePorts}},
		Idle:   netpath.None,
		Hold:   netpath.Hold{FIN: brief, RST: brief / 2, SYN: brief, Idle: brief},
		Exempt: netpath.NoExempt(),
	}
	s.dialer.Ledger, s.dialer.Dial, s.dialer.Observe = &s.ledger, s.dial, s.observeFlow
	talk.config.Patience = 20 * time.Second // longer than any outage
	talk.config.Observe = s.observePool
	s.pool = conns.New(&s.dialer, talk.config)
	for w := range siegeWorkers {
		s.work.Go(func() {
			for n := 0; !s.over.Load() && s.operate(w, n); n++ {
			}
		})
	}
	s.work.Go(s.count)
	return s
}

func (s *siege) dial(ctx context.Context, network, address string) (net.Conn, error) {
	gone := s.gone.Load()
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, address)
	if err == nil {
		s.dialed.Store(c, gone)
	}
	return c, err
}

func (s *siege) observeFlow(e dialer.Event) {
	switch e.Kind {
	case dialer.Opened:
		s.opened.Add(1)
	case dialer.Ended:
		s.ended.Add(1)
	}
}

func (s *siege) observePool(_ string, e pool.Event) {
	if e.Kind == pool.OpenFailed {
		s.refused.Add(1)
	}
}

// A siegeOperation is one Get, and one exchange over what it returned.
type siegeOperation struct {
	flow   *dialer.Conn
	rested time.Time // since the last answer before; zero: it is fresh
	asked  time.Time // before Get
	alive  bool      // after Get: nothing was to be seen against it

	impatient bool // it gives up when it has asked

	// What siege.gone was: before Get, after it, and before the connection's SYN.
	goneBefore, goneAfter, goneAtSYN int64
}

// operate does one operation, and reports whether there may be others.
func (s *siege) operate(worker, n int) bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	c, o, err := s.get()
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			s.Error(err)
		}
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if o.impatient = n%64 == 63; o.impatient {
		c.SetReadDeadline(time.Unix(1, 0)) // the answer comes when nobody waits for it
	}
	s.exchanging.Add(1)
	last, err := s.talk.exchange(c, fmt.Sprint("worker", worker), fmt.Sprint(worker, "x", n))
	s.exchanging.Add(-1)
	now := siegeFlow{rested: time.Now(), done: last || err != nil}
	s.flows.Store(o.flow, now)
	if err != nil {
		if worker%2 == 0 && !errors.Is(err, errSiegeMixed) {
			c.Put() // a lie, which must not help
		}
		return s.failed(o, err)
	}
	s.answered.Add(1)
	if !last {
		c.Put()
	}
	return true
}

// get is Get. It sees to it that nothing is lent that is lent or done with.
func (s *siege) get() (c *conns.Conn, o siegeOperation, err error) {
	o.asked, o.goneBefore = time.Now(), s.gone.Load()
	c, err = s.pool.Get(s.ctx, "tcp", s.server.Addr())
	o.goneAfter = s.gone.Load()
	if err != nil {
		return nil, o, fmt.Errorf("a Get failed after %v: %w", time.Since(o.asked), err)
	}
	o.flow, _ = dialer.Unwrap(c)
	_, dead := o.flow.Peek()
	o.alive = dead == nil
	gone, _ := s.dialed.Load(o.flow.NetConn())
	o.goneAtSYN = gone.(int64)
	if was, again := s.flows.Swap(o.flow, siegeFlow{lent: true}); again {
		was := was.(siegeFlow)
		if was.lent || was.done {
			c.Close()
			return nil, o, fmt.Errorf("what was lent is lent already: %t; was not to be lent again: %t", was.lent, was.done)
		}
		o.rested = was.rested
	}
	return c, o, nil
}

// failed judges a failure.
func (s *siege) failed(o siegeOperation, err error) (mayGoOn bool) {
	begun := s.begun.Load()
	idle := s.talk.idle > 0 && !o.rested.IsZero() && time.Since(o.rested) > s.talk.idle/2
	switch {
	case errors.Is(err, errSiegeMixed):
		s.Error(err)
		return false
	case o.impatient && errors.Is(err, os.ErrDeadlineExceeded):
	case begun > o.goneAfter:
		// In flight: before it failed, an outage had begun that was not over when
		// Get returned.
		s.inFlight.Add(1)
	case begun > max(o.goneBefore, o.goneAtSYN):
		// The outage was not over when Get was called, and its connection had been
		// dialed: Get was stopped for so long after it had looked.
		s.late.Add(1)
	case idle && o.alive:
		// The server's FIN, due around now, came after the look, and crossed the
		// request.
		s.crossed.Add(1)
	case idle && o.asked.Sub(o.rested) < s.talk.idle+100*time.Millisecond:
		// It may have come between Get's look and ours.
		s.late.Add(1)
	default:
		s.Errorf("an operation that was not in flight failed, %v after the last answer (fresh: %t, alive when lent: %t): %v",
			time.Since(o.rested), o.rested.IsZero(), o.alive, err)
		return false
	}
	return true
}

// count takes a census again and again.
func (s *siege) count() {
	for !s.over.Load() && s.ctx.Err() == nil {
		if n, err := s.talk.census(s.server.Addr()); err == nil {
			s.most = max(s.most, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// await ends the test if something does not come about.
func (s *siege) await(what string, met func() bool) {
	s.Helper()
	for !met() {
		if s.ctx.Err() != nil || s.Failed() {
			s.Fatalf("while waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// close ends all operations and lets none begin until open.
func (s *siege) close() {
	s.gate.Lock()
	s.closed = true
}

func (s *siege) open() {
	if s.closed {
		s.closed = false
		s.gate.Unlock()
	}
}

// served waits until each worker can have had its turn, some times over.
func (s *siege) served() {
	s.Helper()
	want := s.answered.Load() + 5*siegeWorkers
	s.await("answers", func() bool { return s.answered.Load() >= want })
}

// outage ends the server, and starts it again when a dial was refused. Meanwhile
// f happens.
func (s *siege) outage(end, f func()) {
	s.Helper()
	refused := s.refused.Load()
	s.begun.Add(1)
	end()
	s.gone.Add(1)
	f()
	s.await("a refused dial", func() bool { return s.refused.Load() > refused })
	s.server.Start()
	s.served()
}

// underLoad is an outage in the midst of operations.
func (s *siege) underLoad(end func()) {
	s.Helper()
	s.await("an operation", func() bool { return s.exchanging.Load() > 0 })
	s.outage(end, func() {})
}

// harmless wants an outage to do no harm, because nothing is in flight.
func (s *siege) harmless(outage func()) {
	s.Helper()
	before := s.inFlight.Load() + s.late.Load()
	outage()
	if harmed := s.inFlight.Load() + s.late.Load() - before; harmed > 0 {
		s.Errorf("%d operations failed, none of which was in flight", harmed)
	}
}

// whileIdle is an outage while all connections are idle.
func (s *siege) whileIdle(end func()) {
	s.Helper()
	s.harmless(func() {
		s.close()
		s.await("the last opening", func() bool { return s.stats().Connecting == 0 })
		s.outage(end, s.open)
	})
}

// whileLent is an outage while all connections are lent, but not in use. They
// are put back, broken, while everybody waits for one.
func (s *siege) whileLent(end func()) {
	s.Helper()
	s.harmless(func() {
		s.close()
		lent := make([]*conns.Conn, s.dialer.MaxConns())
		flows := make([]*dialer.Conn, len(lent))
		for i := range lent {
			c, o, err := s.get()
			if err != nil {
				s.Fatal(err)
			}
			lent[i], flows[i] = c, o.flow
		}
		s.open()
		s.await("everybody to wait", func() bool { return s.stats().Waiting == siegeWorkers })
		s.outage(end, func() {
			for i, c := range lent {
				s.flows.Store(flows[i], siegeFlow{done: true})
				c.Put()
			}
		})
	})
}

func (s *siege) stats() (stats pool.Stats) {
	for _, stats = range s.pool.Stats() {
	}
	return stats
}

// end wants nothing to be left.
func (s *siege) end() {
	s.Helper()
	s.over.Store(true)
	s.work.Wait()
	if err := s.pool.Close(s.ctx); err != nil {
		s.Errorf("Close: %v", err)
	}
	s.await("the end of each connection", func() bool { return s.opened.Load() == s.ended.Load() })
	s.await("an empty ledger", func() bool { return len(s.ledger.Accounts()) == 0 })
	if s.most > siegePorts {
		s.Errorf("the server had %d connections, where there are %d ports", s.most, siegePorts)
	}
	s.Logf("%d outages: %d operations answered; failed: %d in flight, %d that Get returned late, %d crossed by a FIN; %d connections, at most %d at a time",
		s.gone.Load(), s.answered.Load(), s.inFlight.Load(), s.late.Load(), s.crossed.Load(), s.opened.Load(), s.most)
}

// all is every kind of outage.
func (s *siege) all() {
	s.Helper()
	s.served()
	for range 5 {
		s.underLoad(s.server.Kill)
	}
	for range 2 {
		s.underLoad(s.server.Stop)
		s.whileIdle(s.server.Kill)
		s.whileLent(s.server.Kill)
		s.whileIdle(s.server.Stop)
		s.whileLent(s.server.Stop)
	}
	if s.inFlight.Load() == 0 {
		s.Error("nothing was in flight in any outage: there was no load")
	}
	s.end()
}

func TestOutagesOfRedisCostOnlyWhatWasInFlight(t *testing.T) {
	besiege(t, servers.Redis(t), siegeTalk{
		exchange: setAndGet,
		census:   redisClients,
		config: conns.Config{
			Hello: func(_ context.Context, c net.Conn) (net.Conn, error) { return c, redisPing(c) },
			Beat:  func(_ context.Context, c net.Conn) error { return redisPing(c) }, BeatEvery: 50 * time.Millisecond,
		},
	}).all()
}

// resp is one command in Redis' protocol.
func resp(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

func setAndGet(c net.Conn, worker, token string) (last bool, err error) {
	return false, redisAsk(c, resp("SET", worker, token)+resp("GET", worker), fmt.Sprintf("+OK\r\n$%d\r\n%s\r\n", len(token), token))
}

func redisPing(c net.Conn) error { return redisAsk(c, resp("PING"), "+PONG\r\n") }

func redisAsk(c net.Conn, question, answer string) error {
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	got := make([]byte, len(answer))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("after %q: %w", got[:n], err)
	}
	if string(got) != answer {
		return fmt.Errorf("%q: %w, %q", got, errSiegeMixed, answer)
	}
	return nil
}

// interview says something to a server that hangs up when it has answered.
func interview(address, question string) (answer string, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(c, question); err != nil {
		return "", err
	}
	said, err := io.ReadAll(c)
	return string(said), err
}

func redisClients(address string) (n int64, err error) {
	said, err := interview(address, resp("INFO", "clients")+resp("QUIT"))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(said, "connected_clients:")
	count, _, _ := strings.Cut(after, "\r\n")
	n, err = strconv.ParseInt(count, 10, 64)
	return n - 1, err
}

func TestOutagesOfNginxCostOnlyWhatWasInFlight(t *testing.T) {
	besiege(t, besiegedNginx(t, "keepalive_timeout 1s;", "keepalive_requests 10;"), siegeTalk{
		exchange: getPage,
		census:   nginxClients,
		idle:     time.Second,
	}).all()
}

// A server hangs up when it likes; Get must see it. What it cannot see is a FIN
// that is still on its way when the request leaves.
func TestWhatNginxHungUpOnIsNotLent(t *testing.T) {
	const idle = 50 * time.Millisecond
	s := besiege(t, besiegedNginx(t, "keepalive_timeout 50ms;"), siegeTalk{
		exchange: getPage,
		census:   nginxClients,
		idle:     idle,
	})
	for range 20 {
		s.served()
		s.close()
		time.Sleep(rand.N(4 * idle))
		s.open()
	}
	s.served()
	if s.opened.Load() < 3*siegePorts {
		t.Errorf("only %d connections: nginx did not hang up", s.opened.Load())
	}
	s.end()
}

// besiegedNginx returns an nginx that sends the token back and counts its
// connections.
func besiegedNginx(t *testing.T, config ...string) *servers.Server {
	t.Helper()
	return servers.Nginx(t, append(config, "add_header Token $arg_token;",
		`location = /connections { return 200 "$connections_active"; }`)...)
}

func getPage(c net.Conn, _, token string) (last bool, err error) {
	if _, err := fmt.Fprintf(c, "GET /?token=%s HTTP/1.1\r\nHost: nginx\r\n\r\n", token); err != nil {
		return false, err
	}
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		return false, err
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil {
		return false, err
	}
	if got := r.Header.Get("Token"); got != token || string(page) != servers.Page || in.Buffered() > 0 {
		return false, fmt.Errorf("%s, token %q, %q: %w, %s", r.Status, got, page, errSiegeMixed, token)
	}
	return r.Close, nil
}

func nginxClients(address string) (n int64, err error) {
	said, err := interview(address, "GET /connections HTTP/1.0\r\n\r\n")
	if err != nil {
		return 0, err
	}
	_, count, _ := strings.Cut(said, "\r\n\r\n")
	n, err = strconv.ParseInt(count, 10, 64)
	return n - 1, err
}

// BenchmarkRedis compares the pool with a connection that each worker has to
// itself.
func BenchmarkRedis(b *testing.B) {
	s := servers.Redis(b)
	for _, workers := range []int{1, 16} {
		var raw float64
		b.Run(fmt.Sprintf("raw/%d", workers), func(b *testing.B) {
			raw = benchmarkSetAndGet(b, workers, func(worker string) (use func(token string) error, end func() error) {
				c, err := net.Dial("tcp", s.Addr())
				if err != nil {
					b.Fatal(err)
				}
				return func(token string) error {
					_, err := setAndGet(c, worker, token)
					return err
				}, c.Close
			})
		})
		b.Run(fmt.Sprintf("pool/%d", workers), func(b *testing.B) {
			p := conns.New(&dialer.Dialer{Ledger: new(dialer.Ledger)}, conns.Config{})
			pooled := benchmarkSetAndGet(b, workers, func(worker string) (use func(token string) error, end func() error) {
				return func(token string) error {
					c, err := p.Get(b.Context(), "tcp", s.Addr())
					if err != nil {
						return err
					}
					defer c.Close()
					if _, err := setAndGet(c, worker, token); err != nil {
						return err
					}
					c.Put()
					return nil
				}, func() error { return nil }
			})
			if raw > 0 {
				b.ReportMetric(pooled/raw, "of-raw")
			}
			if err := p.Close(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}

// benchmarkSetAndGet returns how many operations a second there were.
func benchmarkSetAndGet(b *testing.B, workers int, begin func(worker string) (use func(token string) error, end func() error)) float64 {
	var left atomic.Int64
	left.Store(int64(b.N))
	uses := make([]func(string) error, workers)
	for w := range uses {
		use, end := begin(fmt.Sprint("worker", w))
		defer end()
		uses[w] = use
		if err := use("first"); err != nil {
			b.Fatal(err)
		}
	}
	var all sync.WaitGroup
	b.ResetTimer()
	for _, use := range uses {
		all.Go(func() {
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				if err := use(strconv.FormatInt(n, 10)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "ops/s")
	return rate
}

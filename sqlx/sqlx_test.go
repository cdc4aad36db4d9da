package sqlx_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/sqlx"
)

func TestOneConnectionServesOneAfterTheOther(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		for range 100 {
			s.must("insert")
			time.Sleep(time.Second)
		}
		if n := s.runs("insert"); n != 100 || s.flows() != 1 {
			t.Errorf("%d statements ran on %d connections, want 100 on one", n, s.flows())
		}
	})
}

func TestWhoWaitsLongestIsServedFirst(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{Max: 1})
		var all sync.WaitGroup
		var want []string
		for i := range 20 {
			query := fmt.Sprintf("sleep 10ms %d", i)
			want = append(want, query)
			all.Go(func() { s.must(query) })
			synctest.Wait()
		}
		all.Wait()
		if got := s.order[1:]; !slices.Equal(got, want) { // hello came first
			t.Errorf("the order was %q", got)
		}
	})
}

func TestHeartbeatsKeepWhatProbesDoNot(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.path.Counts = netpath.Bytes
		s.nat.Path, s.ledger.Path = s.path, s.path
		s.open(sqlx.Config{})
		s.atOnce(5)
		time.Sleep(45 * time.Minute)
		s.atOnce(5)
		if s.flows() != 5 {
			t.Errorf("%d connections were dialed for five", s.flows())
		}
		if n := s.runs("ping"); n < 5*45*60/s.seconds(s.path.Idle) {
			t.Errorf("only %d heartbeats in 45 minutes", n)
		}
	})
}

func (s *stage) seconds(d time.Duration) int { return int(d / time.Second) }

// atOnce runs n statements at a time.
func (s *stage) atOnce(n int) {
	s.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() { s.must("sleep 10ms") })
	}
	all.Wait()
}

func TestWithoutHeartbeatsOnSuchAPathConnectionsAreClosedInTime(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.path.Counts = netpath.Bytes
		s.nat.Path, s.ledger.Path = s.path, s.path
		s.open(sqlx.Config{Heartbeat: -1})
		s.must("insert")
		time.Sleep(s.path.Idle)
		if st := s.of.Stats(); st.Idle != 0 {
			t.Errorf("%d connections are idle that the path has forgotten", st.Idle)
		}
		s.must("insert")
	})
}

func TestAConnectionThatHasEndedIsReplacedBeforeAByteIsSent(t *testing.T) {
	for _, liar := range []bool{false, true} {
		onStage(t, 8, func(t *testing.T, s *stage) {
			s.liar = liar
			s.open(sqlx.Config{})
			s.must("insert a")
			s.far(0).Close()
			s.must("insert b")
			if n := s.runs("insert b"); n != 1 || s.flows() != 2 {
				t.Errorf("it ran %d times, with %d connections", n, s.flows())
			}
		})
	}
}

// What lib/pq does: it says ErrBadConn of a statement that was sent.
func TestWhatWasSentIsNotSentAgain(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.liar = true
		s.open(sqlx.Config{})
		s.must("insert")
		_, err := s.db.Exec("die")
		var lost *sqlx.LostError
		if !errors.As(err, &lost) || !lost.Sent || errors.Is(err, driver.ErrBadConn) || dialer.SafeToRetry(err) {
			t.Errorf("got %v, want that it may have run", err)
		}
		if n := s.runs("die"); n != 1 {
			t.Errorf("it ran %d times", n)
		}
		s.must("insert")

		plain := sql.OpenDB(toy{s})
		defer plain.Close()
		plain.Exec("die plainly")
		if n := s.runs("die plainly"); n != 3 {
			t.Errorf("by plain database/sql it ran %d times: this test proves nothing", n)
		}
	})
}

func TestWhatIsIdempotentIsSentAgain(t *testing.T) {
	for _, liar := range []bool{false, true} {
		onStage(t, 8, func(t *testing.T, s *stage) {
			s.liar = liar
			s.seen = func(c net.Conn, line string) bool {
				if line == "select" && s.runs("select") == 1 {
					c.Close()
					return true
				}
				return false
			}
			s.open(sqlx.Config{})
			if _, err := s.db.ExecContext(sqlx.Idempotent(t.Context()), "select"); err != nil || s.runs("select") != 2 {
				t.Errorf("%v, after %d times", err, s.runs("select"))
			}
		})
	}
}

func TestWhatHappensInATransactionIsNotRepeatedByItself(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		tx, err := s.db.BeginTx(sqlx.Idempotent(t.Context()), nil)
		if err != nil {
			t.Fatal(err)
		}
		var lost *sqlx.LostError
		if _, err := tx.ExecContext(sqlx.Idempotent(t.Context()), "die"); !errors.As(err, &lost) || !lost.Sent {
			t.Errorf("got %v", err)
		}
		if err := tx.Commit(); !dialer.SafeToRetry(err) && !errors.Is(err, driver.ErrBadConn) {
			t.Errorf("COMMIT was not sent, and the error is %v", err)
		}
		if s.runs("die") != 1 || s.runs("commit") != 0 {
			t.Errorf("ran: %v", s.ran)
		}
	})
}

func TestAnAnswerThatSaysNoCostsNoConnection(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		for range 10 {
			if _, err := s.db.Exec("fail 23505"); err != toyError("23505") {
				t.Fatalf("got %v", err)
			}
		}
		if s.flows() != 1 {
			t.Errorf("%d connections were dialed", s.flows())
		}
	})
}

func TestACanceledOperationSaysSo(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.db.ExecContext(ctx, "hang"); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		s.must("insert")
		if n := s.runs("hang"); n != 1 || s.flows() != 2 {
			t.Errorf("it ran %d times, with %d connections", n, s.flows())
		}
	})
}

func TestAHeartbeatWithoutAnswerEndsTheConnection(t *testing.T) {
	onStage(t, 16, func(t *testing.T, s *stage) {
		s.seen = func(_ net.Conn, line string) bool { return line == "ping" && s.ledger.Path.Name != "" }
		s.open(sqlx.Config{Heartbeat: time.Minute})
		s.atOnce(8)
		time.Sleep(2 * time.Minute)
		if st := s.of.Stats(); st.Idle != 0 || st.Closed[pool.Failed] == 0 {
			t.Errorf("%d idle, closed: %v", st.Idle, st.Closed)
		}
		s.must("insert")
	})
}

// A middlebox that swallows what is said on old connections only.
func TestTwoHeartbeatsWithoutAnswerPurgeWhatIsOlder(t *testing.T) {
	onStage(t, 64, func(t *testing.T, s *stage) {
		old := make(map[net.Conn]bool)
		s.seen = func(c net.Conn, line string) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return old[c]
		}
		s.open(sqlx.Config{Heartbeat: time.Minute})
		s.atOnce(50)
		s.mu.Lock()
		for _, c := range s.fars {
			old[c] = true
		}
		s.mu.Unlock()
		for s.of.Stats().Closed[pool.Failed] == 0 {
			time.Sleep(time.Second)
		}
		start := time.Now()
		s.must("insert")
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("50 connections were found dead one after the other, in %v", took)
		}
	})
}

func TestAnAnswerThatDoesNotComeThrowsDoubtOnTheOthers(t *testing.T) {
	onStage(t, 16, func(t *testing.T, s *stage) {
		var lying atomic.Bool
		s.seen = func(net.Conn, string) bool { return lying.Load() }
		s.open(sqlx.Config{})
		s.atOnce(4)
		lying.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.db.ExecContext(ctx, "insert a"); err != context.DeadlineExceeded {
			t.Fatalf("got %v", err)
		}
		asked := s.runs("ping")
		time.Sleep(time.Millisecond)
		if n := s.runs("ping") - asked; n == 0 {
			t.Error("nobody asked the other connections")
		}
		time.Sleep(10 * time.Second)
		lying.Store(false)
		s.must("insert b")
		if n := s.runs("insert b"); n != 1 {
			t.Errorf("it ran %d times", n)
		}
	})
}

// database/sql tries three times, and a NAT that has forgotten answers all with a RST.
func TestMoreDeadConnectionsThanTriesAreNoFailure(t *testing.T) {
	for _, heartbeat := range []time.Duration{0, -1} {
		onStage(t, 64, func(t *testing.T, s *stage) {
			s.liar = true
			forgotten := make(map[net.Conn]bool)
			s.seen = func(c net.Conn, _ string) bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				if forgotten[c] {
					c.(interface{ SetLinger(int) error }).SetLinger(0)
					c.Close()
				}
				return forgotten[c]
			}
			s.open(sqlx.Config{Heartbeat: heartbeat})
			s.atOnce(10)
			s.mu.Lock()
			for _, c := range s.fars {
				forgotten[c] = true
			}
			s.mu.Unlock()
			if _, err := s.db.ExecContext(sqlx.Idempotent(t.Context()), "select"); err != nil {
				t.Error(err)
			}
			if n := s.runs("select"); n != 2 {
				t.Errorf("it was sent %d times, want once before the others were asked and once after", n)
			}
		})
	}
}

func TestAfterALossOneConnectionIsTriedBeforeTheOthers(t *testing.T) {
	onStage(t, 64, func(t *testing.T, s *stage) {
		s.net.Latency = time.Millisecond
		s.open(sqlx.Config{Patience: time.Minute})
		s.atOnce(20)
		var down atomic.Bool
		var dials atomic.Int32
		dial := s.dialer.Dialer.Dial
		s.dialer.Dialer.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			if down.Load() {
				time.Sleep(2 * time.Millisecond)
				return nil, errors.New("refused")
			}
			return dial(ctx, network, address)
		}
		down.Store(true)
		for i := range 20 {
			s.far(i).Close()
		}
		time.Sleep(5 * time.Millisecond)
		time.AfterFunc(50*time.Millisecond, func() { down.Store(false) })
		s.atOnce(20)
		if n := dials.Load(); n > 20+4 {
			t.Errorf("%d dials to replace 20 connections", n)
		}
	})
}

func TestAStrangerGetsThePortOfAnIdleConnection(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var reclaimed atomic.Int32
		s.open(sqlx.Config{Observe: func(e pool.Event) {
			if e.Kind == pool.Closed && errors.Is(e.Err, keepalive.ErrRetired) {
				reclaimed.Add(1)
			}
		}})
		s.atOnce(3)
		stranger := &dialer.Dialer{Ledger: s.ledger, Dial: s.nat.DialContext}
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			c, err := stranger.DialContext(ctx, "tcp", here)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		s.must("insert")
		synctest.Wait() // until those that are closed are told
		if reclaimed.Load() == 0 {
			t.Errorf("nothing was reclaimed: %v", s.of.Stats().Closed)
		}
	})
}

func TestWithoutAPortOneWaitsForAConnection(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{Max: 100})
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() { s.must("sleep 10ms") })
		}
		all.Wait()
		if n := s.flows(); n > 4 || s.nat.Stats().RefusedSYNs > 0 {
			t.Errorf("%d connections, %d SYNs refused", n, s.nat.Stats().RefusedSYNs)
		}
		if n := s.runs("sleep 10ms"); n != 30 {
			t.Errorf("%d statements ran", n)
		}
	})
}

func TestWhoWaitsInVainIsToldWhoHasThePorts(t *testing.T) {
	onStage(t, 2, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{MaxWait: time.Second})
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { s.must("sleep 5s") })
		}
		synctest.Wait()
		_, err := s.db.Exec("insert")
		if !errors.Is(err, pool.ErrWait) || !errors.Is(err, dialer.ErrBudget) || !dialer.SafeToRetry(err) || errors.Is(err, driver.ErrBadConn) {
			t.Errorf("got %v", err)
		}
		all.Wait()
		if n := s.of.Stats().Timeouts; n != 1 {
			t.Errorf("%d timeouts were counted", n)
		}
	})
}

func TestAServerThatRefusesIsNamed(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.dialer.Dialer.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
		s.open(sqlx.Config{})
		_, err := s.db.Exec("insert")
		var dial *dialer.DialError
		if !errors.As(err, &dial) || dial.Address != here || errors.Is(err, driver.ErrBadConn) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAHandshakeThatHangsIsCutOff(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var deaf atomic.Bool
		deaf.Store(true)
		s.seen = func(_ net.Conn, line string) bool { return deaf.Load() && line == "hello" }
		s.open(sqlx.Config{OpenTimeout: 3 * time.Second})
		start := time.Now()
		_, err := s.db.Exec("insert")
		if took := time.Since(start); err == nil || took != 3*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		deaf.Store(false)
		s.must("insert")
	})
}

func TestACloseThatHangsHoldsUpNobody(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		release := make(chan struct{})
		s.hook = func(op string) error {
			if op == "close" {
				<-release
			}
			return nil
		}
		s.open(sqlx.Config{MaxIdle: time.Minute})
		s.must("insert")
		time.Sleep(2 * time.Minute)
		if st := s.of.Stats(); st.Closing != 1 {
			t.Fatalf("%d connections are being closed", st.Closing)
		}
		s.must("insert")
		close(release)
	})
}

func TestADriverThatPanicsEndsNothingElse(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var broken atomic.Value
		broken.Store("connect")
		s.hook = func(op string) error {
			if op == broken.Load() {
				panic("oops")
			}
			return nil
		}
		s.open(sqlx.Config{Heartbeat: time.Minute})
		if _, err := s.db.Exec("insert"); err == nil || !strings.Contains(err.Error(), "panicked in Connect: oops") {
			t.Errorf("got %v", err)
		}
		broken.Store("insert")
		func() {
			defer func() {
				if v := recover(); v != "oops" {
					t.Errorf("recovered %v", v)
				}
			}()
			s.db.Exec("insert")
		}()
		broken.Store("")
		s.must("insert")
		if s.flows() != 2 {
			t.Errorf("%d connections: the one whose driver has panicked is used again", s.flows())
		}
		broken.Store("ping")
		time.Sleep(90 * time.Second)
		broken.Store("close")
		s.must("insert")
	})
}

func TestAResetThatPanicsCostsOneConnection(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		var broken atomic.Bool
		s.hook = func(op string) error {
			if op == "reset" && broken.Load() {
				panic("oops")
			}
			return nil
		}
		s.open(sqlx.Config{Max: 1})
		s.must("insert")
		broken.Store(true)
		func() {
			defer func() { recover() }()
			s.db.Exec("insert")
		}()
		broken.Store(false)
		s.must("insert")
		if st := s.of.Stats(); st.InUse != 0 {
			t.Errorf("%d connections are in use", st.InUse)
		}
	})
}

func TestAConnectThatNeverReturnsHoldsUpNoOther(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		release := make(chan struct{})
		var hangs atomic.Bool
		s.hook = func(op string) error {
			if op == "connect" && hangs.CompareAndSwap(true, false) {
				<-release
			}
			return nil
		}
		s.open(sqlx.Config{OpenTimeout: time.Second})
		s.must("insert")
		s.far(0).Close() // from here on, one is tried before the others
		hangs.Store(true)
		if _, err := s.db.Exec("insert"); err == nil {
			t.Error("no error of a Connect that hangs")
		}
		time.Sleep(5 * time.Second)
		s.must("insert")
		close(release)
	})
}

// pgx closes it in the background, and has no Validator.
func TestWhatAContextHasEndedIsNotLentAgainIfTheDriverCannotSayWhatItIsWorth(t *testing.T) {
	onStage(t, 8, func(t *testing.T, s *stage) {
		s.mute = true
		s.open(sqlx.Config{})
		s.must("insert")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.db.ExecContext(ctx, "hang"); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if st := s.of.Stats(); st.Idle != 0 {
			t.Errorf("%d connections are idle", st.Idle)
		}
		s.must("insert")
	})
}

func TestASlowQueryIsNoLoss(t *testing.T) {
	onStage(t, 64, func(t *testing.T, s *stage) {
		s.net.Latency = 100 * time.Millisecond
		s.open(sqlx.Config{Heartbeat: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.db.ExecContext(ctx, "hang"); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		start := time.Now()
		s.atOnce(10)
		if took := time.Since(start); took > time.Second {
			t.Errorf("ten connections were opened one after the other, in %v", took)
		}
	})
}

func TestADriverThatDialsByOtherMeansIsToldSo(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{Dialer: new(sqlx.Dialer)})
		if _, err := s.db.Exec("insert"); err == nil || !strings.Contains(err.Error(), "another Dialer") {
			t.Errorf("got %v", err)
		}
		unbooked := sqlx.OpenDB(silent{}, sqlx.Config{Dialer: s.dialer})
		defer unbooked.Close()
		if err := unbooked.Ping(); err == nil || !strings.Contains(err.Error(), "Config.Unbooked") {
			t.Errorf("got %v", err)
		}
	})
}

// silent is a driver without a network.
type silent struct{}

func (silent) Connect(context.Context) (driver.Conn, error) { return silentConn{}, nil }
func (silent) Driver() driver.Driver                        { return toyDriver{} }

type silentConn struct{}

func (silentConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (silentConn) Close() error                        { return nil }
func (silentConn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }
func (silentConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, nil
}

func TestAStatementIsPreparedOnceAConnection(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{Max: 2})
		stmt, err := s.db.Prepare("sleep 10ms")
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if _, err := stmt.Exec(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		stmt.Close()
		if n := s.runs("prepare sleep 10ms"); n != 2 {
			t.Errorf("it was prepared %d times on two connections", n)
		}
	})
}

func TestAStatementThatFailsIsPreparedAnew(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		stmt, err := s.db.Prepare("fail 0A000")
		if err != nil {
			t.Fatal(err)
		}
		defer stmt.Close()
		for range 2 {
			if _, err := stmt.Exec(); err != toyError("0A000") {
				t.Fatalf("got %v", err)
			}
		}
		if n := s.runs("prepare fail 0A000"); n != 2 {
			t.Errorf("it was prepared %d times", n)
		}
	})
}

// Behind PgBouncer each transaction may be another server's.
func TestAStatementOfATransactionIsNotKept(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{Max: 1})
		for range 2 {
			tx, err := s.db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			stmt, err := tx.Prepare("insert")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stmt.Exec(); err != nil {
				t.Error(err)
			}
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
		}
		if n := s.runs("prepare insert"); n != 2 {
			t.Errorf("it was prepared %d times", n)
		}
	})
}

// prepare prepares n statements and closes them, and returns how many of all the driver
// has closed.
func (s *stage) prepare(n int) (closed *int) {
	closed = new(int)
	s.hook = func(op string) error {
		if op == "close-stmt" {
			*closed++
		}
		return nil
	}
	for i := range n {
		stmt, err := s.db.Prepare(fmt.Sprint("insert ", i))
		if err != nil {
			s.Fatal(err)
		}
		stmt.Close()
	}
	return closed
}

// MySQL has room for so many on all connections together.
func TestStatementsMakeRoomWhenOneCannotBePrepared(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.seen = func(c net.Conn, line string) bool {
			if line == "prepare one too many" {
				io.WriteString(c, "error 42000\n")
				return true
			}
			return false
		}
		s.open(sqlx.Config{Max: 1})
		closed := s.prepare(3)
		if _, err := s.db.Prepare("one too many"); err != toyError("42000") || *closed != 3 {
			t.Errorf("%v, and %d of three were closed", err, *closed)
		}
	})
}

func TestOnlySoManyStatementsAreKept(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{Statements: 2})
		closed := s.prepare(5)
		if *closed != 3 {
			t.Errorf("%d of 5 statements were closed, want all but two", *closed)
		}
	})
}

func TestConnectionsDoNotEndTogether(t *testing.T) {
	onStage(t, 32, func(t *testing.T, s *stage) {
		var ends []time.Duration
		var mu sync.Mutex
		start := time.Now()
		s.open(sqlx.Config{Observe: func(e pool.Event) {
			if e.Kind == pool.Closed && e.Reason == pool.Aged {
				mu.Lock()
				defer mu.Unlock()
				ends = append(ends, time.Since(start))
			}
		}})
		s.atOnce(20)
		time.Sleep(time.Hour + time.Minute)
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(ends)
		if len(ends) != 20 || ends[0] < 45*time.Minute || ends[19]-ends[0] < 5*time.Minute {
			t.Errorf("they ended at %v", ends)
		}
	})
}

func TestCloseWaitsForWhatIsInUse(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		go s.must("sleep 2s")
		synctest.Wait()
		start := time.Now()
		if err := s.db.Close(); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestCloseSaysWhatIsLeft(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{Drain: time.Second})
		go s.must("sleep 10s")
		synctest.Wait()
		err := s.db.Close()
		if err == nil || !strings.Contains(err.Error(), "1 leases are out") {
			t.Errorf("got %v", err)
		}
		s.db = nil
		time.Sleep(time.Minute)
	})
}

func TestTheDriversOwnIsReached(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.open(sqlx.Config{})
		if _, ok := s.db.Driver().(toyDriver); !ok {
			t.Errorf("the driver is a %T", s.db.Driver())
		}
		conn, err := s.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := sqlx.Raw(conn, func(c any) error {
			if _, ok := c.(*toyConn); !ok {
				t.Errorf("the connection is a %T", c)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		sqlx.Raw(conn, func(any) error { return driver.ErrBadConn })
		conn.Close()
		s.must("insert")
		if s.flows() != 2 {
			t.Errorf("%d connections: the one that Raw gave up is used again", s.flows())
		}
	})
}

func TestStatsAddUp(t *testing.T) {
	onStage(t, 4, func(t *testing.T, s *stage) {
		s.net.Latency = 5 * time.Millisecond
		s.open(sqlx.Config{Max: 2, MinIdle: 1})
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { s.must("sleep 1s") })
		}
		all.Wait()
		st := s.of.Stats()
		if st.Max != 2 || st.MinIdle != 1 || st.Used != 4 || st.InUse != 0 || st.Opened != 2 || st.Waited != 4 {
			t.Errorf("%+v", st)
		}
		if st.UseTime < 4*time.Second || st.UseTime > 5*time.Second || st.CreateTime < 20*time.Millisecond || st.CreateTime > time.Second {
			t.Errorf("in use for %v, created in %v", st.UseTime, st.CreateTime)
		}
	})
}

func TestBadConfigsNameTheField(t *testing.T) {
	for want, cfg := range map[string]sqlx.Config{
		"Config.Max is -1":                   {Max: -1},
		"Config.MinIdle is -1":               {MinIdle: -1},
		"Config.MinIdle is 3, more than Max": {Max: 2, MinIdle: 3},
		"Config.MaxIdle is -1s":              {MaxIdle: -time.Second},
		"Config.OpenTimeout is -1s":          {OpenTimeout: -time.Second},
		"Config.Patience is -1s":             {Patience: -time.Second},
		"Config.LeakAfter is -1s":            {LeakAfter: -time.Second},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	defer func() {
		if v := recover(); v == nil {
			t.Error("NewConnector takes a bad Config")
		}
	}()
	sqlx.NewConnector(silent{}, sqlx.Config{Max: -1})
}

func TestTuneFitsThePath(t *testing.T) {
	db := sql.OpenDB(silent{})
	defer db.Close()
	sqlx.Tune(db, netpath.AzureAppService())
	if n := db.Stats().MaxOpenConnections; n < 100 || n > 127 {
		t.Errorf("MaxOpenConns is %d behind 128 ports", n)
	}
	sqlx.Tune(db, netpath.Profile{})
	if n := db.Stats().MaxOpenConnections; n != 0 {
		t.Errorf("MaxOpenConns is %d where there is no limit", n)
	}
}

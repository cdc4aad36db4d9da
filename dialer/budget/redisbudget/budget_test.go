package redisbudget

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/budgettest"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/keepalive/netpath"
)

// learnedServer returns a server whose learning is over.
func learnedServer() *modelServer {
	s := &modelServer{run: "a"}
	s.model.state = &fleet{born: 1, run: "a", members: map[string]member{}, accounts: map[string]map[string]record{}}
	return s
}

// instance returns a budget of 100 ports for two instances: floors of 12, and 52 to lease.
// What it leaves running fails its bubble.
func instance(t *testing.T, s *modelServer, change ...func(*Config)) (*Budget, *modelRedis) {
	t.Helper()
	c := &modelRedis{server: s}
	cfg := Config{Client: c, Ports: 100, Instances: 2}
	for _, f := range change {
		f(&cfg)
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b, c
}

// takeAll takes whatever there is within three seconds, enough for what can be leased.
func takeAll(b *Budget, key netpath.Key) []budget.Grant {
	return takeAllFor(b, key, 3*time.Second)
}

// takeAllFor takes whatever it can for as long.
func takeAllFor(b *Budget, key netpath.Key, d time.Duration) (grants []budget.Grant) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(minPause) {
		grants = append(grants, takeNow(b, key)...)
	}
	return grants
}

// takeNow takes until it is refused.
func takeNow(b *Budget, key netpath.Key) (grants []budget.Grant) {
	for {
		g, ok := b.Take(key)
		if !ok {
			return grants
		}
		grants = append(grants, g)
	}
}

func release(grants []budget.Grant) {
	for _, g := range grants {
		g.Release()
	}
}

func closed(t *testing.T, b *Budget) {
	t.Helper()
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// report returns how b stands with one account, or with all.
func report(b *Budget, key netpath.Key) budget.Report { return b.Reports(key)[0] }

func TestFloorsNeedNoRedis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		b, _ := instance(t, s)
		for key := range 5 {
			for range 12 {
				if _, ok := b.Take(budgettest.Key(key)); !ok {
					t.Fatal("refused below the floor")
				}
			}
		}
		time.Sleep(time.Hour)
		want(t, "calls", s.asked(), 0)
	})
}

func TestARefusalBringsABlockThenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		b, _ := instance(t, s, func(c *Config) { c.Block = 4 })
		told := make(chan struct{}, 1)
		b.Notify(told)
		var got []int
		for range 5 {
			got = append(got, len(takeNow(b, budgettest.Key(1))))
			<-told
		}
		if fmt.Sprint(got) != "[12 4 8 16 24]" { // and the last is all that is left
			t.Errorf("%v granted at a time", got)
		}
		r := report(b, budgettest.Key(1))
		if r.Held != 64 || r.Room != 0 || r.Leased != 52 || r.Floor != 12 || r.Limit != 100 || r.Degraded != "" {
			t.Errorf("report %+v", r)
		}
		closed(t, b)
	})
}

func TestMoreIsAskedForAheadOfNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := instance(t, learnedServer())
		takeNow(b, budgettest.Key(1))
		synctest.Wait()
		for range 40 { // 12 of the floor are taken: to 52 of 64
			if _, ok := b.Take(budgettest.Key(1)); !ok {
				t.Fatalf("refused: %+v", report(b, budgettest.Key(1)))
			}
			time.Sleep(minPause)
			synctest.Wait()
		}
		closed(t, b)
	})
}

func TestWhatIsNotUsedGoesBackAndNothingRunsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		b, _ := instance(t, s)
		grants := takeAll(b, budgettest.Key(1))
		want(t, "granted", len(grants), 64)
		release(grants)
		time.Sleep(2 * defaultTTL)
		if r := report(b, budgettest.Key(1)); r.Leased != 0 || r.Held != 0 {
			t.Errorf("report %+v", r)
		}
		synctest.Wait()
		for account, records := range s.model.state.accounts {
			want(t, "leases of "+account, len(records), 0)
		}
		want(t, "accounts", len(b.accounts), 0)
		// No Close: the bubble fails if the goroutine runs on.
	})
}

func TestALeaseIsRenewedThreeTimesInItsLife(t *testing.T) {
	for accounts, perRenewal := range map[int]int{1: 1, 20: 1, 100: 4} { // 32 in a call
		t.Run(fmt.Sprint(accounts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := learnedServer()
				b, _ := instance(t, s)
				for range 2 {
					for key := range accounts {
						takeNow(b, budgettest.Key(key)) // the floor, and a block
					}
					time.Sleep(time.Second)
				}
				time.Sleep(time.Minute) // whatever more is asked for has come by now
				before, renewals := s.asked(), report(b, netpath.Key{}).Renewals
				time.Sleep(1000 * defaultTTL)
				synctest.Wait()
				r, calls := report(b, netpath.Key{}), s.asked()-before
				if want := 3000 * perRenewal; calls < want-want/10 || calls > want+want/10 {
					t.Errorf("%d calls in 1000 TTL, want %d, a tenth more or less", calls, want)
				}
				if r.Renewals-renewals != uint64(calls) || r.Age > defaultTTL/2 || r.Leased < 16*accounts {
					t.Errorf("report %+v after %d calls", r, calls)
				}
				closed(t, b)
			})
		})
	}
}

func TestWhoIsRefusedAsksLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		holder, _ := instance(t, s)
		takeAll(holder, budgettest.Key(1)) // and gives nothing back
		// Pauses of 0.1, 0.2 ... 3.3 s, and then of 3.3 s: about 6 and 16.
		hungry(t, s, 20, 25)
		closed(t, holder)
	})
}

func TestWhoIsRefusedWhileAllIsLearnedWaitsForTheRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hungry(t, &modelServer{run: "a"}, 17, 20)
	})
}

// hungry is an instance that is refused for a minute. Some calls are allowed.
func hungry(t *testing.T, s *modelServer, least, most uint64) {
	t.Helper()
	b, _ := instance(t, s)
	told := make(chan struct{}, 1)
	b.Notify(told)
	for begin := time.Now(); time.Since(begin) < time.Minute; <-told {
		takeNow(b, budgettest.Key(1))
	}
	if calls := report(b, budgettest.Key(1)).Renewals; calls < least || calls > most {
		t.Errorf("%d calls in a minute, want %d to %d", calls, least, most)
	}
	closed(t, b)
}

var errRefused = fmt.Errorf("dial tcp 192.0.2.1:6379: %w", syscall.ECONNREFUSED)

func TestALeaseOutlivesRedisUntilItsDeadline(t *testing.T) {
	for fail, granted := range map[Fail]int{FailFloor: 12, FailOpen: 100, FailClosed: 0} {
		t.Run(fmt.Sprint(fail), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, c := instance(t, learnedServer(), func(c *Config) { c.Fail = fail })
				grants := takeAll(b, budgettest.Key(1))
				want(t, "granted", len(grants), 64)
				time.Sleep(time.Minute) // no call is on its way, and the last one was 3.7 s ago at most
				c.set(func(n *network) { n.down = errRefused })
				time.Sleep(5 * time.Second)
				release(grants[:10])
				if want, got := 10, len(takeNow(b, budgettest.Key(1))); got < want {
					t.Errorf("%d granted before the deadline, want %d", got, want)
				}

				time.Sleep(5 * time.Second)
				if r := report(b, budgettest.Key(1)); r.Degraded != "Redis refuses connections" || r.Leased != 0 || r.Failures == 0 {
					t.Errorf("report %+v", r)
				}
				recalled := 0
				for _, g := range grants[10:] {
					if g.Revoked() {
						recalled++
					}
				}
				if open := fail == FailOpen; open != (recalled == 0) {
					t.Errorf("%d called back", recalled)
				}
				want(t, "granted to another account without Redis", len(takeAllFor(b, budgettest.Key(2), time.Minute)), granted)
				want(t, "and more of it later", len(takeNow(b, budgettest.Key(2))), 0)

				c.set(func(n *network) { n.down = nil })
				time.Sleep(5 * time.Second)
				if r := report(b, budgettest.Key(1)); r.Degraded != "" || r.Leased == 0 {
					t.Errorf("report %+v with Redis again", r)
				}
				closed(t, b)
			})
		})
	}
}

func TestFailClosedRefusesTheFloorToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c := instance(t, learnedServer(), func(c *Config) { c.Fail = FailClosed })
		c.set(func(n *network) { n.down = errRefused })
		release(takeNow(b, budgettest.Key(1)))
		time.Sleep(defaultTTL)
		want(t, "granted", len(takeNow(b, budgettest.Key(1))), 0)
		c.set(func(n *network) { n.down = nil })
		time.Sleep(defaultTTL / 3)
		if got := len(takeNow(b, budgettest.Key(1))); got < 12 {
			t.Errorf("%d granted with Redis again", got)
		}
		closed(t, b)
	})
}

// A process that was stopped runs its Takes before its goroutine knows what has happened.
// Here the goroutine hangs in a call instead.
func TestAStoppedProcessAsksBeforeItUsesItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c := instance(t, learnedServer())
		grants := takeAll(b, budgettest.Key(1))
		stuck := make(chan struct{})
		c.set(func(n *network) { n.stuck = stuck })
		time.Sleep(time.Hour)
		release(grants[40:])
		want(t, "granted beyond the floor", len(takeNow(b, budgettest.Key(1))), 0)
		c.set(func(n *network) { n.stuck = nil })
		close(stuck)
		synctest.Wait()
		if got := len(takeAllFor(b, budgettest.Key(1), 5*time.Second)); got != 24 {
			t.Errorf("%d granted after the renewal, want 24", got)
		}
		closed(t, b)
	})
}

func TestADeadlineHasPassedWhenEitherClockSaysSo(t *testing.T) {
	now := time.Now()
	d := deadlineAt(now.Add(time.Second))
	suspended := deadline{monotonic: d.monotonic, wall: now.Round(0).Add(-time.Hour)}
	setBack := deadline{monotonic: now.Add(-time.Second), wall: now.Round(0).Add(time.Hour)}
	for _, c := range []struct {
		name string
		deadline
		at   time.Time
		want bool
	}{
		{"before", d, now, false},
		{"after", d, now.Add(time.Second), true},
		{"the machine was suspended", suspended, now, true},
		{"the wall's clock was set back", setBack, now, true},
		{"there is none", deadline{}, now, true},
	} {
		if got := c.passed(c.at); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestThoseAskedFirstAreCalledBackAndStaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		one, _ := instance(t, s)
		grants := takeAll(one, budgettest.Key(1))
		told := make(chan struct{}, 1)
		one.Notify(told)
		other, _ := instance(t, s)
		takeNow(other, budgettest.Key(1)) // wants a block of 16 of the 52
		for report(one, budgettest.Key(1)).Leased == 52 {
			<-told
		}
		want(t, "leased", report(one, budgettest.Key(1)).Leased, 36)
		for i := 63; i >= 0; i-- {
			if got, want := grants[i].Revoked(), i >= 48; got != want {
				t.Fatalf("grant %d revoked: %v, want %v", i, got, want)
			}
		}
		grants[0].Release() // one that is not called back: one fewer has to be
		if !grants[63].Revoked() {
			t.Error("a grant that was called back does not stay so")
		}
		release(grants[48:])
		if grants[1].Revoked() {
			t.Error("more is called back than is wanted")
		}
		closed(t, one)
		closed(t, other)
	})
}

func TestTwoInstancesShareFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		one, _ := instance(t, s)
		grants := takeAll(one, budgettest.Key(1))
		other, _ := instance(t, s)
		told := make(chan struct{}, 1)
		one.Notify(told)
		held := 0
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(minPause) {
			takeNow(one, budgettest.Key(1)) // never satisfied
			held += len(takeNow(other, budgettest.Key(1)))
			for _, g := range grants {
				if g.Revoked() {
					g.Release()
				}
			}
		}
		want(t, "the newcomer's", held, 12+26)
		want(t, "the holder's", report(one, budgettest.Key(1)).Held, 12+26)
		want(t, "sharers", report(one, netpath.Key{}).Sharers, 2)
		closed(t, one)
		closed(t, other)
	})
}

// What is leased and not in use may be in use before the answer comes, or without one.
func TestAnAnswerThatIsLostGivesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		one, c := instance(t, s)
		release(takeAll(one, budgettest.Key(1)))
		other, _ := instance(t, s)
		takeNow(other, budgettest.Key(1)) // from now on it wants a part
		synctest.Wait()
		c.set(func(n *network) { n.mute = true })
		theirs := 12 + len(takeAllFor(other, budgettest.Key(1), defaultTTL/2))
		if mine := len(takeNow(one, budgettest.Key(1))); mine+theirs > 100 || mine < 64 {
			t.Errorf("%d and %d of 100 ports, want 64 of the lease that still counts", mine, theirs)
		}
		closed(t, other)
		c.set(func(n *network) { n.mute = false })
		closed(t, one)
	})
}

func TestCloseGivesBackAllButWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		one, _ := instance(t, s)
		grants := takeAll(one, budgettest.Key(1))
		release(grants[32:]) // 20 beyond the floor stay
		closed(t, one)
		if _, ok := one.Take(budgettest.Key(2)); ok {
			t.Error("a grant of a closed budget")
		}
		if err := one.Close(t.Context()); err == nil {
			t.Error("closed twice")
		}
		want(t, "degraded", strings.Compare(report(one, netpath.Key{}).Degraded, "closed"), 0)

		other, _ := instance(t, s)
		want(t, "granted to another", len(takeAllFor(other, budgettest.Key(1), time.Minute)), 12+32)
		want(t, "quarantined", report(other, budgettest.Key(1)).Quarantined, 20)
		want(t, "granted after the hold", len(takeAllFor(other, budgettest.Key(1), 5*time.Minute)), 20)
		closed(t, other)
	})
}

func TestCloseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, c := instance(t, learnedServer())
		takeAll(b, budgettest.Key(1))
		stuck := make(chan struct{})
		c.set(func(n *network) { n.stuck = stuck })
		time.Sleep(defaultTTL)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(stuck)
	})
}

func TestCloseBeforeAnyCallAsksNobody(t *testing.T) {
	s := learnedServer()
	b, _ := instance(t, s)
	b.Take(budgettest.Key(1))
	closed(t, b)
	want(t, "calls", s.asked(), 0)
}

func TestAFreshFleetSaysThatItLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := instance(t, &modelServer{run: "a"})
		begin := time.Now()
		told := make(chan struct{}, 1)
		b.Notify(told)
		takeNow(b, budgettest.Key(1))
		<-told
		if r := report(b, netpath.Key{}); !strings.HasPrefix(r.Degraded, "learning: ") || r.Remembers {
			t.Errorf("report %+v", r)
		}
		for len(takeNow(b, budgettest.Key(1))) == 0 {
			<-told
		}
		least := defaultTTL + defaultHold + defaultDrain
		if passed := time.Since(begin); passed < least || passed > least+defaultTTL {
			t.Errorf("the first grant beyond the floor after %v, want %v", passed, least)
		}
		if r := report(b, netpath.Key{}); r.Degraded != "" || !r.Remembers {
			t.Errorf("report %+v", r)
		}
		closed(t, b)
	})
}

// Bursts of which none is as long as the learning.
func TestLearningGoesOnWhileNobodyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := instance(t, &modelServer{run: "a"})
		release(takeAll(b, budgettest.Key(1)))
		time.Sleep(time.Hour)
		grants := takeAll(b, budgettest.Key(1))
		want(t, "granted in the second burst", len(grants), 64)
		closed(t, b)
	})
}

func TestMoreInstancesThanPlannedLowerTheFloors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := learnedServer()
		var all []*Budget
		for range 10 {
			b, _ := instance(t, s)
			takeNow(b, budgettest.Key(1))
			all = append(all, b)
		}
		time.Sleep(defaultTTL)
		r := report(all[0], budgettest.Key(1))
		if r.Floor != 5 || r.Degraded != "10 instances share, half of 4 were planned for" {
			t.Errorf("report %+v", r)
		}
		for _, b := range all {
			closed(t, b)
		}
	})
}

func TestTheLongestHoldCountsIfTheConfigSaysNone(t *testing.T) {
	b, _ := instance(t, learnedServer())
	if got := b.quarantineLocked(); got != defaultHold+defaultDrain {
		t.Errorf("%v", got)
	}
	b.SetHold(30 * time.Second)
	b.SetHold(65 * time.Second)
	b.SetHold(15 * time.Second)
	if got := b.quarantineLocked(); got != 65*time.Second+defaultDrain {
		t.Errorf("%v", got)
	}
	b, _ = instance(t, learnedServer(), func(c *Config) { c.Hold, c.Drain = time.Minute, -1 })
	b.SetHold(time.Hour)
	if got := b.quarantineLocked(); got != time.Minute {
		t.Errorf("%v", got)
	}
}

// floors returns a budget of n ports that has no surplus, and so no Redis.
func floors(t *testing.T, n int) *Budget {
	b, err := New(Config{Client: &modelRedis{}, Ports: 2 * max(1, n), Instances: 1, Surplus: -1})
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		b.Take(budgettest.Key(1)) // the only port of the floor
	}
	return b
}

func TestFloorsKeepTheContract(t *testing.T) {
	budgettest.Test(t, func(n int) budget.Budget { return floors(t, n) })
}

func TestLeasesOfARealRedisKeepTheContract(t *testing.T) {
	server := servers.Redis(t)
	made := 0
	budgettest.Test(t, func(n int) budget.Budget {
		if n < 2 {
			return floors(t, n) // one port is a floor already
		}
		made++
		return leased(t, server, fmt.Sprint("nat ", made), n)
	})
}

// leased returns a budget that has all leases of its NAT: n ports, of which one is the floor.
func leased(t *testing.T, server *servers.Server, nat string, n int) *Budget {
	t.Helper()
	b, err := New(Config{
		Client: client(t, server), NAT: nat, Ports: n + 1, Instances: 1,
		Surplus: 1 - 2/float64(n+1), TTL: time.Minute, Hold: time.Millisecond, Drain: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := script{t: t, client: client(t, server), run: "", calls: map[string]uint64{}}
	s.forgive(nat)
	told := make(chan struct{}, 1)
	b.Notify(told)
	for key := range 3 {
		var grants []budget.Grant
		for len(grants) < n {
			grants = append(grants, takeNow(b, budgettest.Key(key))...)
			if len(grants) < n {
				<-told
			}
		}
		release(grants)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestRedisMayGoAndComeBackEmpty(t *testing.T) {
	server := servers.Redis(t)
	b, err := New(Config{
		Client: client(t, server), Ports: 8, Instances: 1,
		TTL: 300 * time.Millisecond, Hold: time.Millisecond, Drain: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 1)
	b.Notify(told)
	var grants []budget.Grant
	all := func() { // of the 8, without those that a predecessor may have left
		for grants = append(grants, takeNow(b, budgettest.Key(1))...); len(grants) < 6; grants = append(grants, takeNow(b, budgettest.Key(1))...) {
			<-told
		}
	}
	all()
	server.Kill()
	for report(b, netpath.Key{}).Degraded == "" || strings.HasPrefix(report(b, netpath.Key{}).Degraded, "learning") {
		<-told
	}
	release(grants)
	grants = takeNow(b, budgettest.Key(1))
	want(t, "granted without Redis", len(grants), 2)
	server.Start()
	all()
	closed(t, b)
}

func TestAReasonNamesTheKindAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errRefused, "Redis refuses connections"},
		{context.DeadlineExceeded, "Redis does not answer in time"},
		{replied("NOAUTH Authentication required."), "Redis says NOAUTH"},
		{replied("ERR unknown command secret"), "Redis says ERR"},
		{replied("password123 is wrong"), "Redis says ERR"},
		{errors.New("secret"), "no connection to Redis"},
	} {
		if got := reason(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// replied is an error that Redis has answered.
type replied string

func (e replied) Error() string { return string(e) }
func (replied) RedisError()     {}

func TestNewNamesTheFieldThatCannotBe(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"Client is nil":           func(c *Config) { c.Client = nil },
		"Client is a *redis.Ring": func(c *Config) { c.Client = new(redis.Ring) },
		"Ports is 0":              func(c *Config) { c.Ports = 0 },
		"Instances is -1":         func(c *Config) { c.Instances = -1 },
		"Surplus is 1":            func(c *Config) { c.Surplus = 1 },
		"Surplus is NaN":          func(c *Config) { c.Surplus = math.NaN() },
		"Block is -1":             func(c *Config) { c.Block = -1 },
		"TTL is 99ms":             func(c *Config) { c.TTL = 99 * time.Millisecond },
		"Hold is -1s":             func(c *Config) { c.Hold = -time.Second },
		"Fail is 3":               func(c *Config) { c.Fail = 3 },
		"each of 51 Instances":    func(c *Config) { c.Instances = 26; c.Instances = 51; c.Surplus = -1 },
		"each of 26 Instances":    func(c *Config) { c.Instances = 26 },
		"Ports is 100 and Surpl":  func(c *Config) { c.Instances = 26 },
	} {
		cfg := Config{Client: &modelRedis{}, Ports: 100, Instances: 2}
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("error %v, want one that says %q", err, field)
		}
	}
}

func TestFloorsAndPoolAreNeverMoreThanThePorts(t *testing.T) {
	for ports := 1; ports < 2000; ports += 7 {
		for instances := 1; instances < 40; instances += 3 {
			for _, surplus := range []float64{-1, 0.1, 0, 0.9} {
				cfg, err := Config{Client: &modelRedis{}, Ports: ports, Instances: instances, Surplus: surplus}.withDefaults()
				if err != nil {
					continue
				}
				for n := 2 * instances; n < 6*instances; n++ { // more than were planned
					if sum := n*cfg.floor(n) + cfg.pool(n); sum > ports || cfg.pool(n) < 0 {
						t.Fatalf("%+v: floors of %d and the pool are %d", cfg, n, sum)
					}
				}
			}
		}
	}
}

var sink budget.Grant

func BenchmarkGrant(b *testing.B) {
	key := netpath.Key{Dest: netip.MustParseAddrPort("192.0.2.1:443"), Network: "tcp"}
	s := learnedServer()
	mine, err := New(Config{Client: &modelRedis{server: s}, Ports: 1000, Instances: 2})
	if err != nil {
		b.Fatal(err)
	}
	told := make(chan struct{}, 1)
	mine.Notify(told)
	held := takeNow(mine, key)
	for len(held) <= mine.floor { // beyond it: the clock is read
		<-told
		held = append(held, takeNow(mine, key)...)
	}
	release(held[mine.floor+1:])
	for _, c := range []struct {
		name   string
		budget budget.Budget
		key    netpath.Key
	}{
		{"PerKey", budget.PerKey(1000), key},
		{"floor", mine, budgettest.Key(9)},
		{"lease", mine, key},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.budget.Take(c.key) // its account is there
			b.ReportAllocs()
			for b.Loop() {
				sink, _ = c.budget.Take(c.key)
				sink.Release()
			}
		})
	}
	if err := mine.Close(context.Background()); err != nil {
		b.Error(err)
	}
}

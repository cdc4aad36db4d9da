package withsdk_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

const (
	leases   = "natwise.budget.lease.port"
	renewals = "natwise.budget.lease.renewals"
	leaseAge = "natwise.budget.lease.age"
	degraded = "natwise.budget.degraded"
	sharers  = "natwise.budget.sharers"
)

// A lent budget is one of this process, and says that it is shared.
type lent struct {
	*budget.Limit

	mu     sync.Mutex // guards the fields below
	says   budget.Report
	asked  []netpath.Key
	notify []chan<- struct{}
}

var _ budget.Engine = (*lent)(nil)

func (b *lent) Reports(key netpath.Key) []budget.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, key)
	return []budget.Report{b.says}
}

func (*lent) SetHold(time.Duration) {}

func (b *lent) Notify(c chan<- struct{}) {
	b.Limit.Notify(c)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notify = append(b.notify, c)
}

// say has b say r from now on, and signals.
func (b *lent) say(r budget.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.says = r
	for _, c := range b.notify {
		select {
		case c <- struct{}{}:
		default: // told already
		}
	}
}

// shared has the ledger of a town share its ports by two engines.
func (c *town) shared() (host, redis *lent) {
	host = &lent{Limit: budget.PerKey(64), says: budget.Report{Engine: "host", Sharers: 3, Limit: 64, Floor: 20, Held: 1, Room: 19, Quarantined: 5}}
	redis = &lent{Limit: budget.PerKey(64), says: budget.Report{Engine: "redis", Sharers: 20, Limit: 1000, Floor: 25, Leased: 16, Held: 1, Room: 40, Age: 1200 * time.Millisecond, Renewals: 7, Failures: 2}}
	c.ledger.Budget = budget.All(host, redis)
	return host, redis
}

// allThatIsShared is one connection of each kind of pool, by leave of two engines.
func (c *town) allThatIsShared(look func()) {
	c.shared()
	_, client := c.web()
	c.must(get(c.Context(), client, "http://example.com/"))
	_, err := c.open(c.Context(), "lines.example.com:7000")
	c.must(err)
	d := &sqlx.Dialer{Dialer: c.dialer}
	db := sqlx.OpenDB(toy{d.DialContext, "lines.example.com:7000"}, sqlx.Config{Name: "orders", Dialer: d})
	c.must(db.PingContext(c.Context()))
	look()
	c.must(db.Close())
}

func engine(name string) string { return "natwise.budget.engine=" + name }
func lease(state string) string { return "natwise.budget.lease.state=" + state }
func renewed(how string) string { return "natwise.budget.lease.outcome=" + how }

func TestASharedBudgetIsSeenByItsEngines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 64)
		host, redis := c.shared()
		_, err := c.open(c.Context(), lines)
		c.must(err)
		host.asked = nil
		r := c.read()
		r.sane()
		for state, n := range map[string][2]float64{"floor": {20, 25}, "leased": {0, 16}, "quarantined": {5, 0}} {
			r.want(n[0], leases, engine("host"), lease(state))
			r.want(n[1], leases, engine("redis"), lease(state))
		}
		r.want(3, sharers, engine("host"))
		r.want(20, sharers, engine("redis"))
		r.want(0, degraded, engine("host"))
		r.want(0, degraded, engine("redis"))
		r.want(0, renewals, engine("host"), renewed("failed")) // from zero on
		r.want(7, renewals, engine("redis"), renewed("ok"))
		r.want(2, renewals, engine("redis"), renewed("failed"))
		r.want(1.2, leaseAge, engine("redis"))
		r.absent(leaseAge, engine("host"))          // which has no server to ask
		r.want(1+19, limit, at("20.1.2.6:7000")...) // of 64 by the path
		r.want(1./20, utilization)
		if len(host.asked) != 2 || !slices.Contains(host.asked, netpath.Key{}) {
			t.Errorf("for one look it was asked for %v, want all accounts, and each", host.asked)
		}

		redis.say(budget.Report{Engine: "redis", Sharers: 20, Floor: 25, Age: 12 * time.Second, Degraded: "no answer for 12s", Renewals: 7, Failures: 6})
		r = c.read()
		r.want(0, leases, engine("redis"), lease("leased"))
		r.want(1, degraded, engine("redis"))
		r.want(0, degraded, engine("host"))
		r.want(6, renewals, engine("redis"), renewed("failed"))
	})
}

func TestOfABudgetThatNobodySharesNothingIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 64)
		c.ledger.Budget = budget.All(budget.PerKey(64))
		_, err := c.open(c.Context(), lines)
		c.must(err)
		r := c.read()
		r.want(1, usage, at(lines, state("active"))...)
		for _, name := range []string{leases, renewals, leaseAge, degraded, sharers} {
			r.absent(name)
		}
		if _, said := byKey(c.forest().named("connection_setup " + lines).Attributes())["natwise.budget.engine"]; said {
			t.Error("a setup names an engine")
		}
	})
}

func TestASetupSaysWhichEnginesHaveAllowedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 64)
		c.shared()
		_, err := c.open(c.Context(), lines)
		c.must(err)
		if got := byKey(c.forest().named("connection_setup " + lines).Attributes())["natwise.budget.engine"]; got != "host,redis" {
			t.Errorf("it says %q", got)
		}
	})
}

// What an account has is for whoever asks, and for errors; a scrape asks for all at once.
func TestAnAccountSaysHowItIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 64)
		host, _ := c.shared()
		_, err := c.open(c.Context(), lines)
		c.must(err)
		host.asked = nil
		accounts := c.ledger.Accounts()
		if len(accounts) != 1 || len(accounts[0].Shared) != 2 || accounts[0].Shared[0].Engine != "host" || accounts[0].Shared[1].Engine != "redis" {
			t.Fatalf("%+v", accounts)
		}
		if len(host.asked) != 1 || host.asked[0] != accounts[0].Key {
			t.Errorf("it was asked for %v", host.asked)
		}
	})
}

func TestALeaseThatIsLostIsWarnedOf(t *testing.T) {
	warned(t, 64, func(c *town, log *logbook) {
		_, redis := c.shared()
		_, err := c.open(c.Context(), lines)
		c.must(err)
		redis.say(budget.Report{Engine: "redis", Floor: 25, Degraded: "Redis does not answer in time"})
		c.wantLine(log, `level=WARN msg="natwise: the budget that is shared with others is degraded" engine=redis why="Redis does not answer in time" floor=25 leased=0 ledger=east`)
		redis.say(budget.Report{Engine: "redis", Floor: 25, Degraded: "Redis refuses connections"})
		c.wantSilence(log)
		time.Sleep(10 * time.Second)
		redis.say(budget.Report{Engine: "redis", Floor: 25, Leased: 16})
		c.wantLine(log, `level=INFO msg="natwise: the budget that is shared with others is as it should be again" engine=redis after=10s floor=25 leased=16 ledger=east`)
	})
}

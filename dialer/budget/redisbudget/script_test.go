package redisbudget

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/servers"
	"github.com/redis/go-redis/v9"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

const (
	ttl  = 10 * time.Second
	hold = 270 * time.Second // and drain
)

// A script is share.lua on a real Redis, in a time of its own.
type script struct {
	t      testing.TB
	client redis.UniversalClient
	now    time.Duration // the server's clock
	run    string
	pool   int
	calls  map[string]uint64
	seen   map[string]int64
}

// client returns a client of a server of t's.
func client(t testing.TB, s *servers.Server) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), ContextTimeoutEnabled: true, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { c.Close() })
	return c
}

// learned returns a script whose learning is over, for a pool of so many ports.
func learned(t *testing.T, pool int) *script {
	s := &script{
		t: t, client: client(t, servers.Redis(t)), now: time.Hour, run: "a", pool: pool,
		calls: map[string]uint64{}, seen: map[string]int64{},
	}
	s.learn()
	return s
}

// learn has somebody call who wants nothing, until learning is over.
func (s *script) learn() {
	for s.ask("nobody").learning > 0 {
		s.now += ttl
	}
}

// forgive tells the state of a NAT that learning is over: in its time of a moment ago, by
// which nothing is lost. The server's own time goes on from there.
func (s *script) forgive(nat string) {
	s.t.Helper()
	r := request{id: "nobody", ttl: time.Millisecond, hold: time.Millisecond}
	for said := (answer{learning: 1}); said.learning > 0; {
		var err error
		r.call++
		if said, err = ask(s.t.Context(), s.client, nat, r); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *script) request(id string, claims ...claim) request {
	s.calls[id]++
	return request{
		id: id, call: s.calls[id], seen: s.seen[id], ttl: ttl, hold: hold, pool: s.pool, claims: claims,
		now: strconv.FormatInt(s.now.Milliseconds(), 10), run: s.run,
	}
}

func (s *script) send(r request) answer {
	s.t.Helper()
	said, err := ask(s.t.Context(), s.client, "test", r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.seen[r.id] = said.version
	return said
}

func (s *script) ask(id string, claims ...claim) answer {
	s.t.Helper()
	return s.send(s.request(id, claims...))
}

// one asks for the only account of most tests.
func (s *script) one(id string, wants, has int) (grant int) {
	s.t.Helper()
	return s.ask(id, claim{"tcp 192.0.2.1:443", wants, has}).parts[0].grant
}

// quarantined is what an onlooker sees.
func (s *script) quarantined() int {
	s.t.Helper()
	return s.ask("nobody", claim{"tcp 192.0.2.1:443", 0, 0}).parts[0].quarantined
}

func want(t *testing.T, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

func TestWhoWantsLittleHasItAndTheOthersHaveEqualParts(t *testing.T) {
	s := learned(t, 1000)
	has := make([]int, 20)
	for range 3 {
		total := 0
		for i := range has {
			wants := 1000
			if i == 7 {
				wants = 10
			}
			has[i] = s.one(fmt.Sprint("instance ", i), wants, has[i])
			total += has[i]
		}
		if total > 1000 {
			t.Fatalf("%d ports leased of 1000: %v", total, has)
		}
	}
	for i, n := range has { // 990 for 19: 52 each, and two have one more
		if i == 7 {
			want(t, "who wants 10", n, 10)
		} else if n != 52 && n != 53 {
			t.Errorf("instance %d has %d of %v, want 52 or 53", i, n, has)
		}
	}
}

func TestNewcomersGetTheirPartAsHoldersGiveBack(t *testing.T) {
	s := learned(t, 1000)
	want(t, "who is alone", s.one("old", 1000, 0), 1000)
	for i := 1; i < 5; i++ {
		want(t, "a newcomer", s.one(fmt.Sprint("new ", i), 1000, 0), 0)
	}
	want(t, "the holder's part", s.one("old", 1000, 1000), 200)
	for i := 1; i < 5; i++ {
		want(t, "nothing is free yet", s.one(fmt.Sprint("new ", i), 1000, 0), 0)
	}
	want(t, "the holder's part, while flows end", s.one("old", 1000, 500), 200)
	want(t, "what has come free, up to the part", s.one("new 1", 1000, 0), 200)
	want(t, "the same", s.one("new 2", 1000, 0), 200)
	want(t, "the last of it", s.one("new 3", 1000, 0), 100)
	want(t, "none left", s.one("new 4", 1000, 0), 0)
	want(t, "the holder", s.one("old", 1000, 200), 200)
	want(t, "the last one's part", s.one("new 4", 1000, 0), 200)
}

func TestACrashedLeaseComesBackAfterItsTTLAndTheHold(t *testing.T) {
	s := learned(t, 100)
	want(t, "grant", s.one("crashes", 60, 0), 60)
	died := s.now
	for s.now < died+ttl+hold-time.Second {
		s.now += time.Second
		if got := s.one("lives", 100, 0); got != 40 && s.now > died+ttl || got > 50 {
			t.Fatalf("%d granted %v after the crash", got, s.now-died)
		}
		if q := s.quarantined(); s.now >= died+ttl && q != 60 {
			t.Fatalf("%d in quarantine %v after the crash", q, s.now-died)
		}
	}
	s.now += time.Second
	want(t, "grant after ttl and hold", s.one("lives", 100, 40), 100)
	want(t, "quarantine then", s.quarantined(), 0)
}

func TestAnInstanceThatComesBackFindsItsLease(t *testing.T) {
	s := learned(t, 100)
	s.one("a", 60, 0)
	s.now += ttl
	want(t, "quarantine", s.quarantined(), 60)
	want(t, "b's, beside the quarantine", s.one("b", 100, 0), 40)
	want(t, "a's again", s.one("a", 60, 60), 50)
	want(t, "quarantine then", s.quarantined(), 0)
}

func TestWhoLeavesGivesBackWhatItDoesNotHold(t *testing.T) {
	s := learned(t, 100)
	s.one("a", 60, 0)
	r := s.request("a", claim{"tcp 192.0.2.1:443", 0, 25})
	r.leaves = true
	if said := s.send(r); said.counted != 2 || said.living != 1 {
		t.Errorf("%d living of %d counted, want the onlooker, and a counted", said.living, said.counted)
	}
	want(t, "quarantine", s.quarantined(), 25)
	want(t, "the rest", s.one("b", 100, 0), 75)
	s.now += ttl
	for range hold / ttl {
		s.one("b", 100, 75)
		s.now += ttl
	}
	want(t, "all, after the hold", s.one("b", 100, 75), 100)
}

func TestALostStateGrantsNobodyMoreThanItHas(t *testing.T) {
	losses := map[string]func(s *script){
		"flushed":           func(s *script) { s.client.FlushAll(s.t.Context()) },
		"another server":    func(s *script) { s.run = "b" },
		"an older version":  func(s *script) { s.seen["a"] += 100 },
		"only its key gone": func(s *script) { s.client.Del(s.t.Context(), key("test")) },
	}
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			s := learned(t, 100)
			s.one("a", 60, 0)
			s.one("crashes", 40, 0)
			lose(s)
			lost := s.now
			for s.now < lost+ttl+hold {
				want(t, "a's, while it is learned", s.one("a", 100, 60), 60)
				want(t, "a newcomer's", s.one("b", 100, 0), 0)
				s.now += ttl / 2
			}
			want(t, "a's afterwards", s.one("a", 100, 60), 50)
			want(t, "b's afterwards", s.one("b", 100, 0), 40)
		})
	}
}

func TestTheFirstStartIsLearning(t *testing.T) {
	s := &script{t: t, client: client(t, servers.Redis(t)), run: "a", pool: 100, calls: map[string]uint64{}, seen: map[string]int64{}}
	said := s.ask("a", claim{"tcp 192.0.2.1:443", 16, 0})
	if said.learning != ttl+hold || said.parts[0].grant != 0 {
		t.Errorf("%d granted, %v of learning left, want 0 and %v", said.parts[0].grant, said.learning, ttl+hold)
	}
}

func TestANewAccountNeedsNoLearning(t *testing.T) {
	s := learned(t, 100)
	if got := s.ask("a", claim{"tcp 192.0.2.9:443", 16, 0}).parts[0].grant; got != 16 {
		t.Errorf("%d granted, want 16", got)
	}
}

func TestAClockThatJumpsExpiresNothingBeforeItsTime(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, time.Hour, 10000 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			s := learned(t, 100)
			s.now += 20000 * time.Hour // so that there is room for all jumps
			s.learn()
			s.one("a", 60, 0)
			s.one("crashes", 40, 0)
			s.now += jump
			want(t, "quarantine", s.one("b", 100, 0), 0)
			passed := time.Duration(0)
			for s.one("a", 100, 60) <= 60 {
				s.now += time.Second
				passed += time.Second
			}
			if passed < hold-ttl || passed > ttl+hold {
				t.Errorf("the crashed lease came back after %v, want %v, or a TTL less", passed, ttl+hold)
			}
		})
	}
}

func TestAnInstanceVouchesForTheTimeInWhichNobodyCalledWhileAllIsLearned(t *testing.T) {
	s := &script{t: t, client: client(t, servers.Redis(t)), run: "a", pool: 100, calls: map[string]uint64{}, seen: map[string]int64{}}
	told := s.ask("a", claim{"tcp 192.0.2.1:443", 100, 0})
	s.now += time.Hour
	r := s.request("a", claim{"tcp 192.0.2.1:443", 100, 0})
	r.born, r.clock = told.born, told.clock+time.Hour
	want(t, "an hour after the first call", s.send(r).parts[0].grant, 100)
}

// All were cut off for an hour, and whoever comes back first does not take what the others
// still have.
func TestNobodyVouchesForTimeInWhichLeasesWereOut(t *testing.T) {
	s := learned(t, 100)
	s.one("b", 40, 0)
	told := s.ask("a", claim{"tcp 192.0.2.1:443", 60, 0})
	s.now += time.Hour
	r := s.request("a", claim{"tcp 192.0.2.1:443", 100, 60})
	r.born, r.clock = told.born, told.clock+time.Hour
	want(t, "whoever comes back first", s.send(r).parts[0].grant, 60)
	want(t, "the next", s.one("b", 40, 40), 40)
}

func TestALateCallUndoesNothing(t *testing.T) {
	s := learned(t, 100)
	late := s.request("a", claim{"tcp 192.0.2.1:443", 0, 0})
	want(t, "the later call", s.one("a", 60, 0), 60)
	_, err := ask(t.Context(), s.client, "test", late)
	if err == nil || !strings.HasPrefix(err.Error(), "STALE") {
		t.Errorf("the late call: error %v", err)
	}
	want(t, "what others get", s.one("b", 100, 0), 40)
}

func TestACallThatIsRepeatedKeepsTheLargerOfItsGrants(t *testing.T) {
	s := learned(t, 100)
	r := s.request("a", claim{"tcp 192.0.2.1:443", 60, 0})
	want(t, "once", s.send(r).parts[0].grant, 60)
	s.one("b", 100, 0)
	s.send(r) // granted less, but the first answer may be the one that arrives
	want(t, "what others get", s.one("c", 100, 0), 0)
}

func TestAnOvercommittedPoolIsRecordedAndShrinks(t *testing.T) {
	s := learned(t, 100)
	s.one("a", 100, 0)
	want(t, "who has more than there is", s.one("b", 80, 80), 50)
	want(t, "the other", s.one("a", 100, 100), 50)
	want(t, "while nothing was given back", s.one("c", 100, 0), 0)
	s.one("a", 100, 50)
	s.one("b", 50, 50)
	want(t, "when it is in bounds, and full", s.one("c", 100, 0), 0)
	s.one("b", 20, 20)
	want(t, "when there is room", s.one("c", 100, 0), 30)
}

func TestWhatLostInstancesLeaveIsSweptAway(t *testing.T) {
	s := learned(t, 100)
	for i := range 50 {
		s.ask("crashes", claim{fmt.Sprintf("tcp 192.0.2.%d:443", i), 10, 0})
	}
	for range 500 {
		s.now += ttl
		s.ask("nobody")
	}
	fields, err := s.client.HKeys(t.Context(), key("test")).Result()
	if err != nil || len(fields) != 2 {
		t.Errorf("fields %q, error %v, want only fleet and members", fields, err)
	}
}

func TestTheStateIsDeletedAfterAWeek(t *testing.T) {
	s := learned(t, 100)
	if got := s.client.PTTL(t.Context(), key("test")).Val(); got.Round(time.Minute) != 7*24*time.Hour {
		t.Errorf("it expires in %v", got)
	}
}

// The server's own clock and run are used when nobody says otherwise.
func TestTheServerKnowsItsTimeAndRun(t *testing.T) {
	server := servers.Redis(t)
	c := client(t, server)
	call := func(n uint64) answer {
		t.Helper()
		said, err := ask(t.Context(), c, "test", request{id: "a", call: n, ttl: time.Hour, hold: time.Hour, pool: 10})
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	first := call(1)
	for n := uint64(2); ; n++ { // until a millisecond of the server's time has passed
		if said := call(n); said.learning < first.learning {
			break
		} else if said.learning > first.learning {
			t.Fatalf("learning grew from %v to %v", first.learning, said.learning)
		}
	}
	if now := call(1 << 40); now.learning < 2*time.Hour-time.Minute {
		t.Errorf("%v of learning left, want nearly 2h", now.learning)
	}
}

func TestAReplicaThatWasPromotedLearns(t *testing.T) {
	master, replica := client(t, servers.Redis(t, "repl-diskless-sync-delay 0")), client(t, servers.Redis(t))
	s := &script{t: t, client: master, pool: 100, calls: map[string]uint64{}, seen: map[string]int64{}}
	s.forgive("test")
	call := func(c redis.Scripter, n uint64) answer {
		t.Helper()
		r := request{id: "a", call: n, ttl: time.Hour, hold: time.Hour, pool: 100, claims: []claim{{"tcp 192.0.2.1:443", 60, 0}}}
		said, err := ask(t.Context(), c, "test", r)
		if err != nil {
			t.Fatal(err)
		}
		return said
	}
	want(t, "the master's grant", call(master, 1).parts[0].grant, 60)

	host, port, _ := net.SplitHostPort(master.Options().Addr)
	if err := replica.ReplicaOf(t.Context(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
	for replica.Exists(t.Context(), key("test")).Val() == 0 {
		// The first copy of everything takes a moment. Nobody tells of its end.
		if err := master.Do(t.Context(), "WAIT", 1, 100).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r := request{id: "a", call: 2, ttl: time.Hour, hold: time.Hour}
	if _, err := ask(t.Context(), replica, "test", r); err == nil || reason(err) != "Redis says READONLY" {
		t.Errorf("a replica says %v", err)
	}
	if err := replica.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	said := call(replica, 3)
	want(t, "the replica's grant", said.parts[0].grant, 0)
	if said.learning != 2*time.Hour || said.version < 2 {
		t.Errorf("answer %+v, want all of learning, and a state that goes on", said)
	}
}

func TestAClusterKeepsItToo(t *testing.T) {
	bus := 10_000 + rand.IntN(20_000) // below the ports that the kernel gives away
	server := servers.Redis(t, "cluster-enabled yes", fmt.Sprint("cluster-port ", bus))
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}})
	t.Cleanup(func() { c.Close() })
	if err := client(t, server).ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, client: c, run: "a", pool: 100, calls: map[string]uint64{}, seen: map[string]int64{}}
	for s.client.ClusterInfo(t.Context()).Val() == "" || !strings.Contains(s.client.ClusterInfo(t.Context()).Val(), "cluster_state:ok") {
		if t.Context().Err() != nil {
			t.Fatal("no cluster")
		}
	}
	s.learn()
	want(t, "grant", s.one("a", 60, 0), 60)
}

func TestWithoutINFONothingIsLost(t *testing.T) {
	server := servers.Redis(t, `rename-command INFO ""`)
	c := client(t, server)
	r := request{id: "a", call: 1, ttl: ttl, hold: hold, pool: 10}
	said, err := ask(t.Context(), c, "test", r)
	if err != nil || said.version != 1 {
		t.Errorf("answer %+v, error %v", said, err)
	}
}

func TestTheModelIsTheScript(t *testing.T) {
	c := client(t, servers.Redis(t))
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		var m model
		c.FlushAll(t.Context())
		now, run := int64(1_000_000), "a"
		calls, seen, told := map[string]uint64{}, map[string]int64{}, map[string]answer{}
		for step := range 150 {
			switch random.IntN(60) {
			case 0:
				c.FlushAll(t.Context())
				m = model{}
			case 1:
				run = fmt.Sprint("run ", step)
			case 2:
				now += random.Int64N(4_000_000) - 2_000_000
			case 3:
				for range 30 { // long enough for what was lost to be over
					now += ttl.Milliseconds()
					r := request{id: "nobody", call: 1 << 40, ttl: ttl, hold: hold, pool: 100, now: fmt.Sprint(now), run: run}
					same(t, &m, c, r)
				}
			default:
				now += random.Int64N(ttl.Milliseconds() / 2)
			}
			id := fmt.Sprint("instance ", random.IntN(6))
			if random.IntN(10) > 0 { // else it is a repetition
				calls[id]++
			}
			r := request{
				id: id, call: calls[id], seen: seen[id], ttl: ttl, hold: hold, pool: 100,
				leaves: random.IntN(20) == 0, now: fmt.Sprint(now), run: run,
			}
			if told := told[id]; random.IntN(10) == 0 {
				r.born, r.clock = told.born, told.clock+time.Duration(random.IntN(60))*time.Second
			}
			for i := range random.IntN(3) {
				wants := random.IntN(120)
				r.claims = append(r.claims, claim{fmt.Sprint("tcp 192.0.2.", i), wants, random.IntN(wants + 1)})
			}
			if random.IntN(20) == 0 {
				r.call -= min(r.call, 2)
			}
			if said, ok := same(t, &m, c, r); ok {
				seen[id], told[id] = said.version, said
			}
			if t.Failed() {
				t.Fatalf("in step %d of history %d", step, seed)
			}
		}
	}
}

// BenchmarkScript is a renewal of 20 accounts that so many instances share.
func BenchmarkScript(b *testing.B) {
	for _, n := range []int{1, 20, 200} {
		b.Run(fmt.Sprint(n, " instances"), func(b *testing.B) {
			s := &script{t: b, client: client(b, servers.Redis(b)), run: "", pool: 10000, calls: map[string]uint64{}, seen: map[string]int64{}}
			s.forgive("test")
			turn := 0
			call := func() {
				var claims []claim
				for i := range 20 {
					claims = append(claims, claim{fmt.Sprintf("tcp 192.0.2.%d:443", i), 100 + turn%7, 30})
				}
				r := s.request(fmt.Sprintf("%026d", turn%n), claims...)
				r.now, r.seen = "", 0
				s.send(r)
				turn++
			}
			for range n {
				call()
			}
			b.ResetTimer()
			for b.Loop() {
				call()
			}
		})
	}
}

// same makes one call of the script and one of the model.
func same(t *testing.T, m *model, c redis.Scripter, r request) (answer, bool) {
	t.Helper()
	said, err := ask(t.Context(), c, "test", r)
	modelled, modelErr := m.share(r)
	if errors.Is(modelErr, errStale) {
		if err == nil || !strings.HasPrefix(err.Error(), "STALE") {
			t.Errorf("%+v\nscript: %+v, %v\nmodel: stale", r, said, err)
		}
		return said, false
	}
	if len(said.parts) == 0 {
		said.parts = nil
	}
	if err != nil || !reflect.DeepEqual(said, modelled) {
		t.Errorf("%+v\nscript: %+v, %v\nmodel:  %+v", r, said, err, modelled)
	}
	return said, err == nil
}

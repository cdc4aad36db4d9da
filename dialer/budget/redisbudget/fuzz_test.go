package redisbudget

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/budgettest"
)

// A world is a gateway of 60 ports, three instances behind it, and their Redis. The
// instances have floors of 5, and 30 ports to lease.
type world struct {
	t         *testing.T
	server    *modelServer
	instances [3]*process
	ghosts    []ghost     // what those that are gone have left in the NAT
	saved     *fleet      // what a replica has
	jumps     []time.Time // of the server's clock
}

type process struct {
	budget *Budget
	redis  *modelRedis
	born   time.Time

	wants int           // flows
	slow  time.Duration // how long a flow goes on that was called back
	flows []flow
}

type flow struct {
	budget.Grant
	ends time.Time // zero: it was not called back
}

type ghost struct {
	ports int
	until time.Time
}

const (
	worldPorts = 60
	worldHold  = time.Minute
	worldDrain = 40 * time.Second
)

func (w *world) start() *process {
	p := &process{redis: &modelRedis{server: w.server}, born: time.Now()}
	var err error
	p.budget, err = New(Config{
		Client: p.redis, Ports: worldPorts, Instances: len(w.instances), Block: 4,
		Hold: worldHold, Drain: worldDrain,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// play reads a program, two bytes an action.
func (w *world) play(program []byte) {
	for ; len(program) >= 2; program = program[2:] {
		op, arg := program[0], int(program[1])
		i := arg % len(w.instances)
		p := w.instances[i]
		switch op % 32 {
		case 0, 1, 2, 3, 4, 5, 6, 7:
			p.wants = arg / 4
		case 8:
			p.slow = time.Duration(arg/3) * time.Second / 5 // 17 s at most: a Drain is 40, and the clock may jump twice
		case 9, 10:
			w.crash(i)
		case 11, 12:
			p.redis.set(func(n *network) {
				if n.down = errRefused; arg%2 == 0 {
					n.down = nil
				}
			})
		case 13:
			w.restart(nil, w.server.run)
		case 14:
			w.save()
		case 15:
			w.restart(w.saved.copy(), fmt.Sprint("since ", time.Now()))
		case 16:
			w.jump(time.Duration(arg-128) * time.Minute)
		case 17:
			w.pass(time.Duration(arg) * time.Second / 2)
		case 18:
			p.redis.set(func(n *network) { n.mute = arg%2 != 0 })
		case 19:
			p.redis.set(func(n *network) { n.lag = time.Duration(arg) * 20 * time.Millisecond })
		default:
			w.pass(time.Duration(arg) * 20 * time.Millisecond)
		}
		synctest.Wait()
		w.check()
	}
}

// crash kills an instance and starts its successor. Floors are counted for one restart
// within a hold.
func (w *world) crash(i int) {
	p := w.instances[i]
	if time.Since(p.born) < worldHold {
		return
	}
	w.ghosts = append(w.ghosts, ghost{len(p.flows), time.Now().Add(worldHold)})
	p.kill()
	w.instances[i] = w.start()
}

// kill ends the goroutine, and no call is made.
func (p *process) kill() {
	p.budget.mu.Lock()
	defer p.budget.mu.Unlock()
	p.budget.closed = true
	if p.budget.stop != nil {
		p.budget.stop()
	}
}

func (w *world) save() {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	w.saved = w.server.model.state.copy()
}

// restart gives the server another state, and another name.
func (w *world) restart(state *fleet, run string) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	w.server.model.state, w.server.run = state, run
}

// jump sets the server's clock. Each may cost a quarantine one TTL, and a Drain is four.
func (w *world) jump(d time.Duration) {
	now := time.Now()
	if n := len(w.jumps); n >= 2 && now.Sub(w.jumps[n-2]) < defaultTTL+worldHold+worldDrain {
		return
	}
	w.jumps = append(w.jumps, now)
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	w.server.ahead += d
}

// pass lets time pass. Each second flows begin and end.
func (w *world) pass(d time.Duration) {
	for d > 0 {
		step := min(d, time.Second)
		d -= step
		time.Sleep(step)
		synctest.Wait()
		for _, p := range w.instances {
			p.turn()
		}
		synctest.Wait()
		w.check()
	}
}

func (p *process) turn() {
	now := time.Now()
	kept := p.flows[:0]
	for i, f := range p.flows {
		if f.ends.IsZero() && f.Revoked() {
			f.ends = now.Add(p.slow)
		}
		if i >= p.wants || !f.ends.IsZero() && !now.Before(f.ends) {
			f.Release()
		} else {
			kept = append(kept, f)
		}
	}
	p.flows = kept
	for len(p.flows) < p.wants {
		g, ok := p.budget.Take(budgettest.Key(1))
		if !ok {
			return
		}
		p.flows = append(p.flows, flow{Grant: g})
	}
}

// check adds up what the instances hold, or may take without asking, and what is in the NAT
// of those that are gone.
func (w *world) check() {
	now := time.Now()
	sum := 0
	said := ""
	for _, p := range w.instances {
		sum += p.may(now)
		said += fmt.Sprintf(" %d (holds %d)", p.may(now), len(p.flows))
	}
	for _, g := range w.ghosts {
		if now.Before(g.until) {
			sum += g.ports
			said += fmt.Sprintf(" %d (gone)", g.ports)
		}
	}
	if sum > worldPorts {
		w.t.Fatalf("%d of %d ports:%s", sum, worldPorts, said)
	}
}

// may is the most that p can hold by now.
func (p *process) may(now time.Time) int {
	b := p.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.floor
	if a := b.accounts[budgettest.Key(1)]; a != nil && !a.deadline.passed(now) {
		n += a.leased
	}
	return max(n, len(p.flows))
}

// recover ends all that went wrong: after a hold, one instance can have everything.
func (w *world) recover() {
	for _, p := range w.instances {
		p.redis.set(func(n *network) { *n = network{} })
		p.wants = 0
	}
	w.instances[0].wants = worldPorts
	w.pass(2*(defaultTTL+worldHold+worldDrain) + time.Minute)
	if got := len(w.instances[0].flows); got != 35 {
		w.t.Errorf("%d ports for the only one that wants any, in the end, want 35: %v", got, w.instances[0].budget.Reports(budgettest.Key(1)))
	}
}

// history plays a program in virtual time.
func history(t *testing.T, program []byte) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, server: learnedServer()}
		for i := range w.instances {
			w.instances[i] = w.start()
		}
		defer func() {
			for _, p := range w.instances {
				p.kill()
			}
		}()
		w.play(program)
		w.recover()
	})
}

func TestPortsAreNeverGivenTwiceWhateverHappens(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 9))
		program := make([]byte, 200)
		for i := range program {
			program[i] = byte(random.Uint32())
		}
		history(t, program)
		if t.Failed() {
			t.Fatalf("history %d", seed)
		}
	}
}

func FuzzPortsAreNeverGivenTwice(f *testing.F) {
	f.Add([]byte{0, 255, 28, 200, 0, 100, 28, 200, 9, 0, 1, 254, 17, 20, 13, 0, 17, 255, 11, 1, 14, 0, 17, 60, 15, 0, 17, 255})
	f.Fuzz(func(t *testing.T, program []byte) {
		history(t, program[:min(len(program), 300)])
	})
}

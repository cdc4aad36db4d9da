package budget_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/dialer/budget/budgettest"
	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	churners = 8 // a byte of book.lines each
	torment  = time.Second
)

// A book is memory of all processes in which they count apart from the budget, and never too
// much: a process notes a port after it was granted and strikes it out before it is given
// back. It fits into the counter's page.
type book struct {
	lines atomic.Uint64 // a byte for each process that lives: one word, so that a sum is of one moment
	most  atomic.Uint64 // the largest sum that anybody has seen
	takes atomic.Uint64

	falls  atomic.Uint64
	fallen [500]atomic.Uint64 // what each had that was killed, and until when the NAT holds it: ms<<8 | ports
}

var _ [4096 - unsafe.Sizeof(book{})]byte

// openBook returns the book of the budget in dir, which is to be closed.
func openBook(dir string) (b *book, close func()) {
	mem := counter(dir)
	return (*book)(unsafe.Pointer(&mem[0])), func() { unix.Munmap(mem) }
}

func (b *book) take(s *budget.Shared, line int) (budget.Grant, bool) {
	falls := b.falls.Load() // first: who falls later still has its line in what is added up
	g, ok := s.Take(budgettest.Key(1))
	if !ok {
		return nil, false
	}
	sum := uint64(0)
	for lines := b.lines.Add(1 << (8 * line)); lines > 0; lines >>= 8 {
		sum += lines & 0xff
	}
	now := bootTime() // last: what the NAT still holds now, it held when the port was granted
	for i := range b.fallen[:falls] {
		if f := b.fallen[i].Load(); f>>8 > now {
			sum += f & 0xff
		}
	}
	for most := b.most.Load(); sum > most && !b.most.CompareAndSwap(most, sum); {
		most = b.most.Load()
	}
	b.takes.Add(1)
	return g, true
}

func (b *book) release(g budget.Grant, line int) {
	b.lines.Add(-(uint64(1) << (8 * line)))
	g.Release()
}

// fall kills the process of that line, and has what it held count until its hold is over. For
// a moment the ports are in neither place: too little is counted, never too much.
func (b *book) fall(p *peer, line int) {
	until := bootTime() + uint64(shortHold/time.Millisecond) // before: it dies no earlier
	p.kill()
	held := b.lines.Load() >> (8 * line) & 0xff
	b.lines.Add(-(held << (8 * line)))
	falls := b.falls.Load()
	b.fallen[falls].Store(until<<8 | held)
	b.falls.Store(falls + 1)
}

// bootTime is in ms, by the clock of Host.
func bootTime() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return uint64(t.Nano()) / uint64(time.Millisecond)
}

// churn goes on until the process ends: it takes some ports of n, as many as it can get, and
// gives some back. The answer comes when the account is there.
func churn(s *budget.Shared, dir string, n int, line string) string {
	i, err := strconv.Atoi(line)
	if err != nil {
		return err.Error()
	}
	b, _ := openBook(dir) // until the process ends
	told := make(chan struct{}, 1)
	s.Notify(told)
	if g, ok := b.take(s, i); ok {
		b.release(g, i)
	}
	go func() {
		var held []budget.Grant
		for {
			for want := 1 + rand.IntN(n); len(held) < want; {
				g, ok := b.take(s, i)
				if !ok {
					break
				}
				held = append(held, g)
			}
			if len(held) == 0 {
				<-told
				continue
			}
			for keep := rand.IntN(len(held)); len(held) > keep; held = held[:len(held)-1] {
				b.release(held[len(held)-1], i)
			}
		}
	}()
	return "churns"
}

// churnerIn starts a process that churns.
func churnerIn(t *testing.T, dir string, line int) *peer {
	t.Helper()
	p := peerIn(t, dir)
	if said := p.ask(fmt.Sprint("churn ", line)); said != "churns" {
		t.Fatalf("process %d: %q", line, said)
	}
	return p
}

func TestProcessesThatAreKilledAndStoppedNeverHoldMoreThanTheLimit(t *testing.T) {
	for _, n := range []int{8, 64} {
		t.Run(fmt.Sprint(n, " ports"), func(t *testing.T) {
			t.Setenv(limitOf, strconv.Itoa(n))
			dir := t.TempDir()
			b, closeBook := openBook(dir)
			defer closeBook()
			tormentIn(t, dir, b)
			took := takeAgain(t, dir, b, n)
			if took > shortHold+time.Second {
				t.Errorf("it took %v until all ports could be had again", took)
			}
			if most := b.most.Load(); most > uint64(n) {
				t.Errorf("%d ports of %d", most, n)
			}
			t.Logf("%d processes were killed, %d ports granted, at most %d at once, all to be had again after %v",
				b.falls.Load(), b.takes.Load(), b.most.Load(), took)
		})
	}
}

// tormentIn has eight processes churn, kills one after the other at whatever it does, and
// starts it again at once, while another one is stopped: for a second at least, and until each
// may have been killed. In the end all are killed. What paces it is how long a process takes
// to start.
func tormentIn(t *testing.T, dir string, b *book) {
	var ps [churners]*peer
	for i := range ps {
		ps[i] = churnerIn(t, dir, i)
	}
	most := uint64(len(b.fallen) - churners)
	for begin := time.Now(); b.falls.Load() < churners || time.Since(begin) < torment && b.falls.Load() < most; {
		victim := rand.IntN(churners)
		stopped := ps[rand.IntN(churners)] // perhaps the victim: also the stopped die
		stopped.signal(syscall.SIGSTOP)
		b.fall(ps[victim], victim)
		ps[victim] = churnerIn(t, dir, victim)
		stopped.signal(syscall.SIGCONT)
	}
	for i, p := range ps {
		b.fall(p, i)
	}
}

// takeAgain returns how long it takes until all ports can be had, but the twentieth that is
// kept for those who come.
func takeAgain(t *testing.T, dir string, b *book, n int) time.Duration {
	begin := time.Now()
	late := time.After(time.Minute)
	s := host(t, dir, n)
	s.SetHold(shortHold)
	told := make(chan struct{}, 1)
	s.Notify(told)
	for got := 0; ; {
		for {
			if _, ok := b.take(s, 0); !ok {
				break
			}
			got++
		}
		if got >= n-n/20 {
			return time.Since(begin)
		}
		select {
		case <-told:
		case <-late:
			t.Fatalf("%d ports of %d can be had again: %+v", got, n, s.Reports(netpath.Key{}))
		}
	}
}

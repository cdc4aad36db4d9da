package budget

import (
	"sync"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// Part is what a member may hold that wants all it can get.
func Part(n int, content []int, hungry, before int) int { return part(n, content, hungry, before) }

// A Machine is a table in the memory of one process, whose members can die, in virtual time.
type Machine struct {
	mem   []byte
	began time.Time

	mu    sync.Mutex // guards alive
	alive [maxMembers]bool
}

// NewMachine returns a machine with a table of its own, for limits of n.
func NewMachine(n int) *Machine {
	m := &Machine{began: time.Now()}
	accounts, slots := shape(n)
	m.mem = make([]byte, sizeOf(accounts, slots))
	format(m.mem, accounts, slots, [2]uint64{1, 2}, m.now())
	return m
}

// It has run for an hour.
func (m *Machine) now() uint64 { return ms(time.Hour + time.Since(m.began)) }

// Memory is the table, for whoever wants to damage it.
func (m *Machine) Memory() []byte { return m.mem }

// Accounts is how many there is room for.
func (m *Machine) Accounts() int { return over(m.mem).accounts }

// Header is how much of the memory is not about members and accounts.
const Header = headSize

// Join returns what a process has that calls Host.
func (m *Machine) Join(n int) *Shared {
	s := &Shared{n: n, hold: unknownHold, now: m.now, accounts: make(map[netpath.Key]*share)}
	s.open = func() (*place, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i := range m.alive {
			if !m.alive[i] {
				m.alive[i] = true
				return over(m.mem).join(i, m.now(), &line{m, i}), nil
			}
		}
		panic("the machine is full")
	}
	s.place, _ = s.open()
	s.begin()
	return s
}

// Kill ends the process of s without a word.
func (m *Machine) Kill(s *Shared) {
	s.ticking.Lock()
	defer s.ticking.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.closed = true
	m.set(s.place.member, false)
	s.place = nil
}

// Stop keeps the process of s from doing anything but what its caller does.
func (m *Machine) Stop(s *Shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
}

// Continue ends Stop.
func (m *Machine) Continue(s *Shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Reset(0)
}

// StopInDirectory stops s where it changes the directory. The function it returns lets it go
// on.
func (m *Machine) StopInDirectory(s *Shared) (resume func()) {
	lock := &over(m.mem).head.lock
	lock.Store(s.mineLocked())
	return func() { lock.Store(0) }
}

// BuryLate has somebody who found the predecessor of s dead a while ago bury it now.
func (m *Machine) BuryLate(s *Shared) {
	over(m.mem).bury(s.place.member, s.place.turn-1, m.now())
}

func (m *Machine) set(member int, alive bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alive[member] = alive
}

// A line is a member's place on a Machine.
type line struct {
	machine *Machine
	member  int
}

func (l *line) Alive(member int) bool {
	l.machine.mu.Lock()
	defer l.machine.mu.Unlock()
	return l.machine.alive[member]
}

func (l *line) Moved() string { return "" }
func (l *line) Close()        { l.machine.set(l.member, false) }

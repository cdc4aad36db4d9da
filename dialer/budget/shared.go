package budget

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

const (
	// unknownHold is for processes of whose path we know nothing: longer than any profile's
	// hold, and as long as AWS's NAT gateway keeps a flow of whose end it has not heard
	// (netpath.AWSNATGateway says where that is from).
	unknownHold = 350 * time.Second

	eager    = 10 * time.Millisecond  // between two looks of a process that was refused
	watchful = 250 * time.Millisecond // between two looks of one that holds something
	patience = 250 * time.Millisecond // after which who was called, and did not ask, wants no more
	reminder = time.Second            // between two calls of those who wait, though there seems to be no room
	settling = time.Second            // after which all that was held outside of the table is in it
	absence  = 2 * time.Second        // after which a member that does not look wants nothing
	disuse   = time.Minute            // after which an account is not looked at any more
)

// A Shared is a Budget that all processes of one machine share. Host makes it. It may be
// used by many goroutines, and by several Ledgers; whoever made it closes it.
type Shared struct {
	n    int
	open func() (*place, error)
	now  func() uint64 // ms since the machine was started, in all its processes

	ticking sync.Mutex // held by look, which makes system calls, and by Close; taken before mu
	looked  uint64     // guarded by ticking: when, at the other members

	mu       sync.Mutex // guards the fields below; held for no system call but the clock, and to let go of the file
	closed   bool
	place    *place // nil: closed, or broken
	broken   string // why the table cannot be used, or ""
	crowded  string // why some accounts are not in it, or ""
	retry    uint64 // when to try again whether there is room for them
	shut     uint64 // since when nobody can be entered; zero: that is not so
	settled  uint64 // from when on the table says all
	since    uint64 // when now was last asked
	hold     time.Duration
	told     bool // the hold, by SetHold
	accounts map[netpath.Key]*share
	notify   []chan<- struct{}
	denied   bool // some account was, since the last signal
	slab     []portion
	timer    *time.Timer
	pace     time.Duration // between two looks; zero: none is due
	others   int           // members beside this one, when somebody looked last
}

var _ Engine = (*Shared)(nil)

// A place is a table that this process is a member of.
type place struct {
	*table
	member int
	turn   uint64
	file   placeFile
}

// placeFile is what the table is kept in.
type placeFile interface {
	Alive(member int) bool // some process has that member's line
	Moved() string         // why the next process would find another file, or ""
	Close()                // leaves the line to others, and the memory
}

// A share is what this process has of one account.
type share struct {
	tag  uint64
	cell *cell    // nil: there is no room in the table, or none at all
	mine []uint32 // slots, interchangeable
	from int      // where to look for the next

	held   int // grants: more than slots where the table was lost, or is full
	recall int // grants that are wanted back, and about which nobody has asked yet
	marked int // those about which somebody has

	denied bool   // refused, and may still want more
	asked  uint64 // when: the last Take
	called uint64 // when: the first call since; zero: there was none
	callAt uint64 // when: the next call, though there seems to be no room
}

// A portion is the grant of one port.
type portion struct {
	budget   *Shared
	share    *share
	released bool
	marked   bool
}

// Take returns a grant while the processes together hold fewer than the limit, and this one
// does not hold more than its part while others wait.
func (s *Shared) Take(key netpath.Key) (Grant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	if s.pace == 0 {
		s.since = s.now()
	}
	defer s.surviveLocked(debug.SetPanicOnFault(true))
	sh := s.shareLocked(key)
	sh.asked, sh.called = s.since, 0
	if !s.takeLocked(sh) {
		s.denyLocked(sh)
		return nil, false
	}
	if sh.denied {
		sh.callAt = s.since + ms(patience) // a pool asks for one at a time, and others may wait
	}
	if s.pace == 0 { // much may have changed since the last look
		s.lookInLocked(eager)
	}
	if len(s.slab) == 0 {
		s.slab = make([]portion, 64)
	}
	g := &s.slab[0]
	s.slab = s.slab[1:]
	g.budget, g.share = s, sh
	return g, true
}

// takeLocked books one more port of sh.
func (s *Shared) takeLocked(sh *share) bool {
	sh.leaveStaleCell()
	if sh.cell == nil && !s.enterLocked(sh) {
		if s.enteringLocked() || sh.held >= s.floorLocked() {
			return false
		}
		sh.held++
		return true
	}
	if !s.mayLocked(sh) || !s.grabLocked(sh) {
		return false
	}
	s.tellLocked(sh)
	sh.held++
	return true
}

// grabLocked takes a free slot for sh.
func (s *Shared) grabLocked(sh *share) bool {
	n := min(s.n, s.place.slots)
	for range 2 {
		at := sh.cell.grab(s.mineLocked(), sh.from, n, s.since)
		if at < 0 {
			return false
		}
		if sh.cell.still(sh.tag) {
			sh.from = at + 1
			sh.mine = append(sh.mine, uint32(at))
			return true
		}
		sh.cell.slots[at].CompareAndSwap(s.mineLocked(), 0) // the account was forgotten meanwhile
		sh.cell = nil
		if !s.enterLocked(sh) {
			return false
		}
	}
	return false
}

// enterLocked finds sh's place in the table, or makes it.
func (s *Shared) enterLocked(sh *share) bool {
	if s.broken != "" {
		return false
	}
	at, _ := s.place.find(sh.tag)
	if at < 0 && (s.crowded == "" || s.since >= s.retry) {
		at = s.makeLocked(sh.tag)
	}
	if at < 0 {
		return false
	}
	s.shut = 0
	c := s.place.cell(at)
	sh.cell = &c
	sh.from = int((sh.tag + uint64(s.place.member)*37) % uint64(max(1, s.n)))
	s.place.sweep(sh.cell, s.since)
	return true
}

// leaveStaleCell lets go of a cell that was forgotten while this process had nothing there.
func (sh *share) leaveStaleCell() {
	if sh.cell != nil && len(sh.mine) == 0 && sh.cell.tag.Load()&^dying != sh.tag {
		sh.cell = nil
	}
}

// makeLocked makes a place for tag, or returns -1.
func (s *Shared) makeLocked(tag uint64) int {
	at, full, ok := s.place.enter(tag, s.mineLocked(), s.since)
	if !ok && !full {
		if s.shut == 0 {
			s.shut = s.since
		}
		return -1
	}
	s.shut = 0
	if full {
		before := s.crowded
		s.crowded = fmt.Sprintf("%d accounts are in use, and there is no room for more", s.place.accounts)
		if s.retry = s.since + ms(reminder); before == "" {
			s.callLocked()
		}
		return -1
	}
	s.roomyLocked()
	return at
}

// roomyLocked says that there is room for all accounts, again.
func (s *Shared) roomyLocked() {
	if s.crowded != "" {
		s.crowded, s.settled = "", s.since+ms(settling)
		s.callLocked()
	}
}

// enteringLocked reports whether another process changes the directory, which takes
// microseconds: unless it is stopped meanwhile.
func (s *Shared) enteringLocked() bool { return s.shut != 0 && s.since < s.shut+ms(reminder) }

func (s *Shared) mineLocked() uint64 { return holder(s.place.member, s.place.turn) }

// floorLocked is what this process holds without asking the table, if it cannot.
func (s *Shared) floorLocked() int { return s.n / (1 + s.others) }

// mayLocked reports whether sh's part of the account allows one more.
func (s *Shared) mayLocked(sh *share) bool {
	c := sh.cell
	if s.since < s.settled && len(sh.mine) >= s.floorLocked() {
		return false
	}
	left := s.n - int(c.kept.Load()) // by those who are gone
	sum, sharing := s.sumLocked(c)
	switch part := left - reserve(s.n); {
	case sum >= left:
		return false
	case len(sh.mine) < part/(1+sharing): // less than if one more came
		return true
	case sum >= part:
		return false
	}
	return !s.othersHungryLocked(c) || len(sh.mine) < s.partLocked(sh)
}

// moreLocked is how many more of sh's account this process may have, by the present look.
func (s *Shared) moreLocked(sh *share) int {
	if s.broken != "" || sh.cell == nil {
		return max(0, s.floorLocked()-sh.held)
	}
	left := s.n - int(sh.cell.kept.Load())
	sum, sharing := s.sumLocked(sh.cell)
	more := max(left-reserve(s.n)-sum, (left-reserve(s.n))/(1+sharing)-len(sh.mine))
	if s.othersHungryLocked(sh.cell) {
		more = min(more, s.partLocked(sh)-len(sh.mine))
	}
	return max(0, min(more, left-sum))
}

// sumLocked is how many ports all members have of an account, and how many members, this one
// included, have some or want some.
func (s *Shared) sumLocked(c *cell) (sum, sharing int) {
	sharing = 1
	for i := range min(int(s.place.head.top.Load()), maxMembers) {
		h := int(c.rows[i].Load())
		sum += h
		if i != s.place.member && (h > 0 || c.isHungry(i)) {
			sharing++
		}
	}
	return sum, sharing
}

// reserve is how many of n ports are for those who come and have less than their part.
func reserve(n int) int { return n / 20 }

func (s *Shared) othersHungryLocked(c *cell) bool {
	me := s.place.member
	for i := range c.hungry {
		w := c.hungry[i].Load()
		if i == me/64 {
			w &^= 1 << (me % 64)
		}
		if w != 0 {
			return true
		}
	}
	return false
}

// partLocked is how many ports of the account this process may hold while others want some.
func (s *Shared) partLocked(sh *share) int {
	p, c := s.place, sh.cell
	var buf [maxMembers]int
	content, hungry, before := buf[:0], 0, 0
	for i := range min(int(p.head.top.Load()), maxMembers) {
		if i == p.member {
			before = hungry
			continue
		}
		h := int(c.rows[i].Load())
		switch {
		case c.isHungry(i) && p.members[i].seen.Load()+ms(absence) > s.since:
			hungry++
		case h > 0:
			content = append(content, h)
		}
	}
	return part(max(0, s.n-reserve(s.n)-int(c.kept.Load())), content, hungry, before)
}

// denyLocked remembers that sh was refused: others hear of it, and this process looks often.
func (s *Shared) denyLocked(sh *share) {
	s.denied = true
	if sh.callAt == 0 || !sh.denied {
		sh.callAt = s.since + ms(reminder)
	}
	sh.denied = true
	if sh.cell != nil {
		sh.cell.setHungry(s.place.member, true)
	}
	s.lookInLocked(eager)
}

// contentLocked says that sh wants no more.
func (s *Shared) contentLocked(sh *share) {
	sh.denied = false
	if sh.cell != nil {
		sh.cell.setHungry(s.place.member, false)
	}
}

// tellLocked publishes how much sh holds.
func (s *Shared) tellLocked(sh *share) {
	sh.cell.rows[s.place.member].Store(uint32(len(sh.mine)))
}

// shareLocked returns this process's part of an account.
func (s *Shared) shareLocked(key netpath.Key) *share {
	sh := s.accounts[key]
	if sh == nil {
		sh = &share{tag: tagOf(key)}
		s.accounts[key] = sh
	}
	return sh
}

// Release gives the port back, to whichever process asks first.
func (g *portion) Release() {
	s := g.budget
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.released {
		return
	}
	g.released = true
	sh := g.share
	if g.marked {
		sh.marked--
	}
	sh.held--
	if sh.held < len(sh.mine) { // not if the table was lost since
		defer s.surviveLocked(debug.SetPanicOnFault(true))
		at := sh.mine[len(sh.mine)-1]
		sh.mine = sh.mine[:len(sh.mine)-1]
		sh.cell.slots[at].CompareAndSwap(s.mineLocked(), 0)
		sh.from = int(at)
		s.tellLocked(sh)
	}
	s.signalLocked()
}

// Revoked reports whether others want the port.
func (g *portion) Revoked() bool {
	s := g.budget
	s.mu.Lock()
	defer s.mu.Unlock()
	if !g.marked && !g.released && g.share.recall > 0 {
		g.share.recall--
		g.share.marked++
		g.marked = true
	}
	return g.marked
}

// Notify makes s tell c of room, and of grants that are wanted back.
func (s *Shared) Notify(c chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify = append(s.notify, c)
}

func (s *Shared) signalLocked() {
	if !s.denied {
		return
	}
	s.denied = false
	s.callLocked()
}

func (s *Shared) callLocked() {
	for _, c := range s.notify {
		select {
		case c <- struct{}{}:
		default: // told already, and has not looked yet
		}
	}
}

// SetHold says for how long the NAT may keep the ports of a process that is gone: this one's,
// when it is. The longest that was said counts. Before anything was, that is 350 s.
func (s *Shared) SetHold(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d < 0 || s.told && d <= s.hold {
		return
	}
	s.hold, s.told = d, true
	if s.place != nil && s.broken == "" {
		defer s.surviveLocked(debug.SetPanicOnFault(true))
		s.place.setHold(ms(s.hold))
	}
}

// Reports returns one Report. Floor is an equal part for each process.
func (s *Shared) Reports(key netpath.Key) []Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := Report{Engine: "host", Sharers: 1 + s.others, Limit: s.n, Degraded: s.degradedLocked()}
	if s.closed {
		return []Report{r}
	}
	defer s.surviveLocked(debug.SetPanicOnFault(true))
	if s.broken == "" {
		r.Remembers = s.place.head.born.Load()+ms(s.hold) <= s.now()
	}
	add := func(sh *share) {
		r.Floor += s.floorLocked()
		r.Held += sh.held
		r.Leased += max(0, sh.held-s.floorLocked())
		r.Room += s.moreLocked(sh)
		if sh.cell != nil {
			r.Quarantined += int(sh.cell.kept.Load())
		}
	}
	if key != (netpath.Key{}) {
		if sh := s.accounts[key]; sh != nil {
			add(sh)
		} else {
			r.Floor = s.floorLocked()
			r.Room = r.Floor
		}
		return []Report{r}
	}
	for _, sh := range s.accounts {
		add(sh)
	}
	return []Report{r}
}

func (s *Shared) degradedLocked() string {
	switch {
	case s.closed:
		return "closed"
	case s.shut != 0 && !s.enteringLocked():
		return "a process has stopped while it changed the directory of accounts"
	}
	return cmp.Or(s.broken, s.crowded)
}

// Close ends the membership of this process. Nothing is granted any more; what is held by
// then stays taken for as long as the NAT may hold it.
func (s *Shared) Close() error {
	s.ticking.Lock()
	defer s.ticking.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("budget: closed already")
	}
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.since = s.now()
	s.departLocked()
	s.callLocked()
	return nil
}

// departLocked leaves the place as one that is gone leaves it.
func (s *Shared) departLocked() {
	p := s.place
	if s.place = nil; p == nil {
		return
	}
	defer p.file.Close()
	defer s.surviveLocked(debug.SetPanicOnFault(true))
	for _, sh := range s.accounts {
		sh.cell, sh.mine = nil, nil
	}
	if s.broken == "" {
		p.bury(p.member, p.turn, s.since)
	}
}

// surviveLocked is deferred where the table is touched: somebody may have cut the file
// short. before is what debug.SetPanicOnFault was.
func (s *Shared) surviveLocked(before bool) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		mustBeFault(r)
		s.brokenLocked("the file was cut short while it was used")
	}
}

// mustBeFault panics on with whatever is not the fault of memory without a file behind it.
func mustBeFault(r any) {
	if _, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	}); !ok {
		panic(r)
	}
}

// brokenLocked goes on without the table: each process keeps to its floor.
func (s *Shared) brokenLocked(why string) {
	if s.broken == why {
		return
	}
	s.broken = why
	for _, sh := range s.accounts {
		sh.cell, sh.mine = nil, nil
	}
	s.callLocked()
}

func ms(d time.Duration) uint64 { return uint64(d / time.Millisecond) }

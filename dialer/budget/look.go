package budget

import (
	"runtime/debug"
	"time"
)

// begin looks who else is there, and buries who is gone: what those left is known from the
// first Take on.
func (s *Shared) begin() {
	s.looked = s.now()
	s.lookAtOthers()
}

// lookInLocked makes the process look at the table in d at the latest.
func (s *Shared) lookInLocked(d time.Duration) {
	if s.pace != 0 && s.pace <= d {
		return
	}
	s.pace = d
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.look)
	} else {
		s.timer.Reset(d)
	}
}

// look is what a process does for itself and for the others while it holds or wants ports:
// it buries who is gone, tells its own of room, and gives back what is too much.
func (s *Shared) look() {
	s.ticking.Lock()
	defer s.ticking.Unlock()
	now := s.now()
	thorough := now >= s.looked+ms(watchful) // or only for those of its own that wait
	if thorough {
		s.looked = now
		s.lookAtOthers()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.since = now
	defer s.againLocked()
	defer s.surviveLocked(debug.SetPanicOnFault(true))
	if s.broken == "" {
		s.place.members[s.place.member].seen.Store(now)
		if s.place.head.lock.Load() == 0 {
			s.shut = 0
		}
	}
	call := false
	for key, sh := range s.accounts {
		switch {
		case !thorough && !sh.denied:
		case sh.held == 0 && !sh.denied && sh.asked+ms(disuse) <= now:
			delete(s.accounts, key)
		default:
			call = s.attendLocked(sh, thorough) || call
		}
	}
	if call {
		s.callLocked()
	}
}

// againLocked sets the timer for the next look, if there is anything to look after.
func (s *Shared) againLocked() {
	s.pace = 0
	for _, sh := range s.accounts {
		if sh.denied {
			s.lookInLocked(eager)
			return
		}
	}
	if len(s.accounts) > 0 {
		s.lookInLocked(watchful)
	}
}

// attendLocked looks after one account, and reports whether the users of the budget are to
// be called.
func (s *Shared) attendLocked(sh *share, thorough bool) (call bool) {
	sh.leaveStaleCell()
	if s.broken == "" && sh.cell == nil && sh.held > 0 {
		s.enterLocked(sh)
	}
	if sh.cell != nil {
		if thorough || sh.cell.kept.Load() > 0 {
			s.place.sweep(sh.cell, s.since)
		}
		for len(sh.mine) < sh.held && s.grabLocked(sh) { // from before the table was lost
		}
	}
	if sh.cell != nil { // still
		s.tellLocked(sh)
		if sh.denied {
			sh.cell.setHungry(s.place.member, true)
		}
	}
	before := sh.recall
	s.recallLocked(sh)
	call = sh.recall > before || sh.recall > 0 && thorough // those in use then may be idle by now
	return s.inviteLocked(sh) || call
}

// recallLocked wants back what is more than this process's part, where others wait, or where
// the table cannot be used.
func (s *Shared) recallLocked(sh *share) {
	sh.recall = 0
	switch {
	case sh.cell == nil:
		sh.recall = max(0, sh.held-s.floorLocked()-sh.marked)
	case s.othersHungryLocked(sh.cell):
		sh.recall = max(0, len(sh.mine)-s.partLocked(sh)-sh.marked)
	}
}

// inviteLocked reports whether the users of sh, which was refused, are to be called. If none
// of them asks then, none wants more.
func (s *Shared) inviteLocked(sh *share) bool {
	now := s.since
	switch {
	case !sh.denied:
		return false
	case sh.called != 0 && now >= sh.called+ms(patience):
		s.contentLocked(sh)
		return false
	case sh.called != 0:
		return false
	case now < sh.callAt && !s.roomLocked(sh):
		return false
	}
	sh.called, sh.callAt = now, now+ms(reminder)
	return true
}

func (s *Shared) roomLocked(sh *share) bool {
	if sh.cell == nil {
		return s.shut != 0 || sh.held < s.floorLocked()
	}
	return s.mayLocked(sh) && sh.cell.hasFree(min(s.n, s.place.slots), s.since)
}

// lookAtOthers buries the members that are gone, and goes to another file if that is where
// the next process would be.
func (s *Shared) lookAtOthers() {
	s.mu.Lock()
	p, broken := s.place, s.broken
	if s.since >= s.retry+ms(disuse) {
		s.roomyLocked() // or nobody has asked since
	}
	members := s.membersLocked()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return
	}
	if broken == "" {
		broken = p.file.Moved()
	}
	if broken != "" {
		s.move(broken)
		return
	}
	gone := members[:0]
	others := len(members)
	for _, m := range members {
		if !p.file.Alive(m.line) {
			gone = append(gone, m)
			others--
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others = others
	defer s.surviveLocked(debug.SetPanicOnFault(true))
	for _, m := range gone {
		p.bury(m.line, m.turn, s.now())
	}
}

// A neighbour is another process that is a member, or was.
type neighbour struct {
	line int
	turn uint64
}

// membersLocked returns the other members. They are read before anybody asks whether they are
// alive: whoever has the line then, this turn of it is over if nobody is.
func (s *Shared) membersLocked() (others []neighbour) {
	if s.broken != "" || s.place == nil {
		return nil
	}
	defer s.surviveLocked(debug.SetPanicOnFault(true))
	for i := range min(int(s.place.head.top.Load()), maxMembers) {
		if turn := s.place.members[i].joined.Load(); turn != 0 && i != s.place.member {
			others = append(others, neighbour{i, turn})
		}
	}
	return others
}

// move leaves the table for the one that others find, and takes what it holds along.
func (s *Shared) move(why string) {
	s.mu.Lock()
	s.brokenLocked(why)
	s.departLocked() // or its own lock on a file that was cut short would be in the way
	s.mu.Unlock()

	p, err := s.open()

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.broken = err.Error()
		return
	}
	s.place, s.broken = p, ""
	s.settled = s.since + ms(settling)
	defer s.callLocked()
	defer s.surviveLocked(debug.SetPanicOnFault(true))
	p.setHold(ms(s.hold))
	for _, sh := range s.accounts {
		if sh.held > 0 {
			s.attendLocked(sh, true)
		}
	}
}

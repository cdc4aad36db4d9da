package budget

import (
	"encoding/binary"
	"hash/fnv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A table is the memory that the processes of a machine share: a header, a line for each
// member, a directory of tags, and for each tag a cell with the account's slots.
//
//	head, 4 KiB | member × 128 | tag × accounts | (cell, row × 128, slot × slots) × accounts
//
// A slot is a port. Who has it is one word, so that a grant is one compare-and-swap, and a
// process that is stopped or killed between any two instructions leaves nothing half done.
// Everything else in the table is a hint about who is to have the next one: if it is wrong,
// the ports go to another process than they should, never to two.
type table struct {
	mem      []byte
	head     *head
	members  []member
	tags     []atomic.Uint64
	accounts int
	slots    int
}

const (
	magic  = 0x6573_6977_7461_6e00 // "\x00natwise"
	layout = 2

	headSize   = 4096
	maxMembers = 128
	cellSize   = 64
)

type head struct {
	magic, layout, accounts, slots uint64 // never change once others see the file

	boot [2]uint64     // of the machine: times in the table are since then
	born atomic.Uint64 // when the table was made, in ms
	top  atomic.Uint64 // members from here on have never been
	lock atomic.Uint64 // the word of the member that changes the directory, or 0
	most atomic.Uint64 // the longest hold that any member has said, in ms
}

// A member is one process, or a line that one has left. Each has a cache line of its own.
type member struct {
	turns  atomic.Uint64 // how many processes have had the line, this one included
	joined atomic.Uint64 // turns, while that process is a member; else 0
	seen   atomic.Uint64 // when it looked last, in ms
	hold   atomic.Uint64 // for how long the NAT holds what it leaves, in ms
	_      [4]uint64
}

// A cell is one account. Its parts point into the table.
type cell struct {
	tag    *atomic.Uint64
	hungry []atomic.Uint64 // a bit for each member that was refused, and waits
	kept   *atomic.Uint64  // how many slots are kept for the NAT, when somebody looked last
	rows   []atomic.Uint32 // how many slots each member has
	slots  []atomic.Uint64
}

// What a slot can say. Zero: free.
const (
	held = 1 << 62 // by member<<32 | turn
	kept = 1 << 63 // until that many ms
)

func holder(member int, turn uint64) uint64 { return held | uint64(member)<<32 | turn&(1<<32-1) }

// dying marks a tag whose account is about to be forgotten.
const dying = 1 << 63

// tagOf is what an account is known by: equal in all programs, and never zero. That two
// accounts have the same one does no harm but that they share their ports.
func tagOf(k netpath.Key) uint64 {
	h := fnv.New64a()
	source, dest := k.Source.As16(), k.Dest.Addr().As16()
	h.Write(source[:])
	h.Write(dest[:])
	h.Write(binary.BigEndian.AppendUint16(nil, k.Dest.Port()))
	h.Write([]byte(k.Network))
	return max(1, h.Sum64()&^dying)
}

// maxLimit is more than a machine has ports to one destination.
const maxLimit = 1 << 16

// shape returns how large a table for limits of n is, up to maxLimit: four megabytes, and up
// to 35 for limits beyond 6,000. There is room for a limit that grows with the next release of
// the program.
func shape(n int) (accounts, slots int) {
	slots = max(256, min(2*n, n+2048))
	return max(64, 4<<20/stride(slots)), slots
}

// stride is the size of a cell with its rows and slots.
func stride(slots int) int { return cellSize + 4*maxMembers + 8*slots }

func sizeOf(accounts, slots int) int {
	return headSize + maxMembers*int(unsafe.Sizeof(member{})) + 8*accounts + accounts*stride(slots)
}

// format makes mem, which is all zero, a table of that shape.
func format(mem []byte, accounts, slots int, boot [2]uint64, now uint64) {
	h := (*head)(unsafe.Pointer(&mem[0]))
	h.layout, h.accounts, h.slots = layout, uint64(accounts), uint64(slots)
	h.boot = boot
	h.born.Store(now)
	h.most.Store(ms(unknownHold))
	h.magic = magic
}

// fits says what is wrong with mem as a table, or "".
func fits(mem []byte) string {
	if len(mem) < headSize {
		return "is cut short"
	}
	h := (*head)(unsafe.Pointer(&mem[0]))
	switch {
	case h.magic != magic:
		return "is not a budget"
	case h.layout != layout:
		return "has another layout"
	case h.accounts == 0 || h.accounts > 1<<20 || h.slots == 0 || h.slots > 2*maxLimit ||
		sizeOf(int(h.accounts), int(h.slots)) != len(mem):
		return "has a damaged header"
	}
	return ""
}

// over returns mem, which fits, as a table.
func over(mem []byte) *table {
	t := &table{mem: mem, head: (*head)(unsafe.Pointer(&mem[0]))}
	t.accounts, t.slots = int(t.head.accounts), int(t.head.slots)
	t.members = unsafe.Slice((*member)(unsafe.Pointer(&mem[headSize])), maxMembers)
	t.tags = unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&mem[t.tagsAt()])), t.accounts)
	return t
}

func (t *table) tagsAt() int { return headSize + maxMembers*int(unsafe.Sizeof(member{})) }

func (t *table) cell(i int) cell {
	mem := t.mem[t.tagsAt()+8*t.accounts+i*stride(t.slots):][:stride(t.slots)]
	words := unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&mem[0])), cellSize/8)
	return cell{
		tag:    &t.tags[i],
		hungry: words[:maxMembers/64],
		kept:   &words[maxMembers/64],
		rows:   unsafe.Slice((*atomic.Uint32)(unsafe.Pointer(&mem[cellSize])), maxMembers),
		slots:  unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&mem[cellSize+4*maxMembers])), t.slots),
	}
}

// join makes this process, which has the lock of that line, a member.
func (t *table) join(i int, now uint64, file placeFile) *place {
	m := &t.members[i]
	if turn := m.joined.Load(); turn != 0 { // who was here before is gone, and nobody has noticed
		t.bury(i, turn, now)
	}
	turn := m.turns.Add(1)
	m.seen.Store(now)
	m.hold.Store(ms(unknownHold))
	m.joined.Store(turn)
	for top := t.head.top.Load(); top < uint64(i+1) && !t.head.top.CompareAndSwap(top, uint64(i+1)); {
		top = t.head.top.Load()
	}
	return &place{table: t, member: i, turn: turn, file: file}
}

// grab takes one of the first n slots for mine, and returns which, or -1. It looks from
// from on, so that processes do not all look at the same ones.
func (c *cell) grab(mine uint64, from, n int, now uint64) int {
	for range n {
		if from >= n {
			from = 0
		}
		if w := c.slots[from].Load(); free(w, now) && c.slots[from].CompareAndSwap(w, mine) {
			return from
		}
		from++
	}
	return -1
}

func free(slot, now uint64) bool { return slot == 0 || slot&kept != 0 && slot&^kept <= now }

// hasFree reports whether one of the first n slots is free.
func (c *cell) hasFree(n int, now uint64) bool {
	for i := range n {
		if free(c.slots[i].Load(), now) {
			return true
		}
	}
	return false
}

// leave keeps all slots of mine until then, and reports whether there were any. It is how a
// process goes, and what others do for one that went without.
func (c *cell) leave(mine, until uint64) (any bool) {
	for i := range c.slots {
		if c.slots[i].Load() == mine {
			any = c.slots[i].CompareAndSwap(mine, kept|until) || any
		}
	}
	return any
}

// sweep frees the slots of c whose time has come and counts those that are kept. What no
// member can have written is kept for the longest hold: a flow may stand behind it.
func (t *table) sweep(c *cell, now uint64) {
	n, most := uint64(0), t.mostHold()
	for i := range c.slots {
		w := c.slots[i].Load()
		switch {
		case w == 0 || t.isMember(w):
			continue
		case free(w, now):
			c.slots[i].CompareAndSwap(w, 0)
			continue
		case w&kept == 0 || w&^kept > now+most:
			c.slots[i].CompareAndSwap(w, kept|(now+most))
		}
		n++
	}
	c.kept.Store(n)
}

// isMember reports whether the holder of a slot is a member.
func (t *table) isMember(w uint64) bool {
	i := int(w &^ held >> 32)
	return w&kept == 0 && w&held != 0 && i < maxMembers && w == holder(i, t.members[i].joined.Load())
}

// empty reports whether nobody has a slot.
func (c *cell) empty(now uint64) bool {
	for i := range c.slots {
		if !free(c.slots[i].Load(), now) {
			return false
		}
	}
	return true
}

// still reports whether the cell is tag's, and saves it from being forgotten. Whoever has a
// slot asks afterwards: either it sees that the account is dying, or who lets it die sees
// the slot.
func (c *cell) still(tag uint64) bool {
	return c.tag.Load() == tag || c.tag.CompareAndSwap(tag|dying, tag)
}

func (c *cell) isHungry(member int) bool { return c.hungry[member/64].Load()&(1<<(member%64)) != 0 }

func (c *cell) setHungry(member int, on bool) {
	bit := uint64(1) << (member % 64)
	if w := &c.hungry[member/64]; on {
		w.Or(bit)
	} else {
		w.And(^bit)
	}
}

// enter makes an account for tag, unless another was faster, and returns its index. It fails
// if another member changes the directory at this moment (try again), or if that is full.
func (t *table) enter(tag, mine, now uint64) (at int, full, ok bool) {
	if !t.head.lock.CompareAndSwap(0, mine) {
		return 0, false, false
	}
	defer t.head.lock.CompareAndSwap(mine, 0)
	at, vacant := t.find(tag)
	if at >= 0 {
		return at, false, true // another was faster
	}
	for i := 0; vacant < 0 && i < t.accounts; i++ {
		if t.forget(i, now) {
			vacant = i
		}
	}
	if vacant < 0 {
		return 0, true, false
	}
	c := t.cell(vacant)
	c.kept.Store(0)
	for i := range c.rows {
		c.rows[i].Store(0)
		c.setHungry(i, false)
	}
	c.tag.Store(tag)
	return vacant, false, true
}

// find returns tag's place in the directory, dying or not (cell.still tells), and the first
// vacant one, or -1.
func (t *table) find(tag uint64) (at, vacant int) {
	vacant = -1
	for i := range t.tags {
		switch t.tags[i].Load() &^ dying {
		case tag:
			return i, vacant
		case 0:
			if vacant < 0 {
				vacant = i
			}
		}
	}
	return -1, vacant
}

// forget frees the directory's place i if nobody has a slot there.
func (t *table) forget(i int, now uint64) bool {
	c := t.cell(i)
	tag := c.tag.Load() &^ dying
	if !c.empty(now) {
		return false
	}
	c.tag.Store(tag | dying)
	if !c.empty(now) {
		c.tag.CompareAndSwap(tag|dying, tag)
		return false
	}
	return c.tag.CompareAndSwap(tag|dying, 0)
}

// mostHold is the longest hold of any member.
func (t *table) mostHold() uint64 {
	const damaged = 30 * 24 * time.Hour // whatever the file says
	return min(max(t.head.most.Load(), ms(unknownHold)), ms(damaged))
}

// setHold is what p says of its path.
func (p *place) setHold(hold uint64) {
	for most := p.head.most.Load(); most < hold && !p.head.most.CompareAndSwap(most, hold); {
		most = p.head.most.Load()
	}
	p.members[p.member].hold.Store(hold)
}

// bury keeps what the process left that had member's line at that turn, and clears the
// line. Several may do so at the same time; each step is right however often it is done. A
// successor that has the line by now writes its hints again.
func (t *table) bury(i int, turn, now uint64) {
	m := &t.members[i]
	hold := min(m.hold.Load(), t.mostHold())
	for at := range t.tags {
		if t.tags[at].Load() == 0 {
			continue
		}
		c := t.cell(at)
		c.leave(holder(i, turn), now+hold)
		if m.joined.Load() == turn {
			c.rows[i].Store(0)
			c.setHungry(i, false)
		}
	}
	t.head.lock.CompareAndSwap(holder(i, turn), 0)
	m.joined.CompareAndSwap(turn, 0)
}

// rebase keeps everything that anybody holds for the longest hold: the times and members of
// the table are those of a machine that was started again since.
func (t *table) rebase(boot [2]uint64, now uint64) {
	most := t.mostHold()
	for at := range t.tags {
		c := t.cell(at)
		for i := range c.slots {
			if c.slots[i].Load() != 0 {
				c.slots[i].Store(kept | (now + most))
			}
		}
		for i := range c.rows {
			c.rows[i].Store(0)
		}
		for i := range c.hungry {
			c.hungry[i].Store(0)
		}
	}
	for i := range t.members {
		t.members[i].joined.Store(0)
	}
	t.head.lock.Store(0)
	t.head.born.Store(0)
	t.head.boot = boot
}

package keepalive

import (
	"os"
	"sync"
	"weak"
)

// A Watcher tells at once of connections that end while nobody reads them: by
// the peer's FIN, by a RST, by the kernel's verdict. It has one goroutine for all
// of them, which waits in Go's netpoller, and no memory of theirs but some bytes:
// a connection that is dropped is collected all the same.
//
// The zero Watcher is ready to use, may be used by many goroutines, must not be
// copied, and needs no Close: its goroutine ends with the last connection. It
// watches sockets on Linux; elsewhere Peek when a connection is used again.
type Watcher struct {
	mu         sync.Mutex // guards the fields below
	poll       *os.File   // what the goroutine waits for; nil: there is nothing to watch
	slots      []watched
	free       []int32 // slots of nobody
	generation int32
}

// A watched is one connection's slot. Its generation tells it from those that had
// the slot before: late and double news are theirs.
type watched struct {
	conn       weak.Pointer[Conn]
	generation int32
}

// A watch is where a connection is watched.
type watch struct {
	by               *Watcher
	slot, generation int32
}

// Watch has gone called once, by the watcher's goroutine, when c has ended for
// its user though nobody has read that yet; what there is to know of it, Peek
// tells. It is not called after c was closed, but is by whoever retires c. It must
// not block. Watch reports false where only that is told: c is no socket, or there
// is no watcher for this system; or where c is closed.
func (w *Watcher) Watch(c *Conn, gone func()) bool {
	at := &watch{by: w}
	c.gone.Store(&gone)
	if !c.l.watch.CompareAndSwap(nil, at) {
		return !c.Closed() // it was watched already
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.free); n > 0 {
		at.slot, w.free = w.free[n-1], w.free[:n-1]
	} else {
		at.slot = int32(len(w.slots))
		w.slots = append(w.slots, watched{})
	}
	if w.generation++; w.generation == 0 { // which is nobody's
		w.generation++
	}
	at.generation = w.generation
	w.slots[at.slot] = watched{weak.Make(c), at.generation}
	ok := w.addLocked(c.l, at) && !c.Closed()
	if !ok {
		w.forgetLocked(at)
	}
	return ok
}

// forget watches no more what is watched at this place.
func (at *watch) forget() {
	at.by.mu.Lock()
	defer at.by.mu.Unlock()
	at.by.forgetLocked(at)
}

func (w *Watcher) forgetLocked(at *watch) {
	if at.generation == 0 || w.inLocked(at.slot, at.generation) == nil {
		return // not yet, or no more
	}
	w.slots[at.slot] = watched{}
	if w.free = append(w.free, at.slot); len(w.free) == len(w.slots) {
		w.slots, w.free = nil, nil
		if w.poll != nil {
			w.poll.Close()
			w.poll = nil
		}
	}
}

// inLocked returns a slot if it is that generation's.
func (w *Watcher) inLocked(slot, generation int32) *watched {
	if int(slot) < len(w.slots) && w.slots[slot].generation == generation {
		return &w.slots[slot]
	}
	return nil
}

// tell calls what is to be called for the connection in a slot.
func (w *Watcher) tell(slot, generation int32) {
	w.mu.Lock()
	s := w.inLocked(slot, generation)
	if s == nil {
		w.mu.Unlock()
		return
	}
	c := s.conn.Value()
	w.mu.Unlock()
	if c != nil && !c.Closed() {
		c.tell()
	}
}

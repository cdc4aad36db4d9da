package main

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A use is what one process has with one destination.
type use struct {
	who  *process // nil: nobody was seen to be it
	to   netip.AddrPort
	owes *account

	busy, idle, dialing, cooling int // ports that the path holds for it
	forgotten                    int // open here, and forgotten by the path
	guessed                      int // flows that no process was seen to hold, and nobody else here talks to this destination
	flows                        []*flow
	wrong                        []string // causes
}

func (u *use) taken() int { return u.busy + u.idle + u.dialing + u.cooling }

// sum is what these have together.
func sum(uses []*use) *use {
	all := new(use)
	for _, u := range uses {
		all.busy, all.idle, all.dialing, all.cooling = all.busy+u.busy, all.idle+u.idle, all.dialing+u.dialing, all.cooling+u.cooling
		all.flows = append(all.flows, u.flows...)
		for _, cause := range u.wrong {
			if !slices.Contains(all.wrong, cause) {
				all.wrong = append(all.wrong, cause)
			}
		}
	}
	return all
}

// An account is what the path counts together.
type account struct {
	key    netpath.Key
	limit  int // netpath.None: nobody knows
	exempt bool
	taken  int
	uses   []*use
}

// total reports whether it is one of all destinations together. Those have no uses.
func (a *account) total() bool { return !a.key.Dest.IsValid() }

// standing is what is taken now, account by account: first those of which most is taken.
func (h *history) standing(now time.Time, all bool) []*account {
	accounts := make(map[netpath.Key]*account)
	uses := make(map[useKey]*use)
	owners := owners{talkers: h.talkers(), ended: make(map[string]*process)}
	var keys []netpath.Key
	for _, f := range h.flows {
		who, guessed := owners.of(f)
		if !f.counted && (!all || who == nil && !f.ended.IsZero()) {
			continue // it is nothing to the path, and nobody's any more
		}
		keys = h.path.counted.Keys(keys[:0], f.local.Addr(), f.remote, "tcp")
		if !f.counted {
			keys = append(keys, netpath.Key{Dest: f.remote, Network: "tcp"})
		}
		for i, key := range keys {
			a := accounts[key]
			if a == nil {
				a = &account{key: key, limit: netpath.None, exempt: !f.counted}
				if f.counted {
					a.limit = h.path.said.Limit(key.Scope())
				}
				accounts[key] = a
			}
			open := f.ended.IsZero() && !f.forgotten(h.path)
			if open || key.Scope() != netpath.Sockets && f.taken(h.path, now) {
				a.taken++
			}
			if i > 0 {
				continue
			}
			u := uses[useKey{who, key}]
			if u == nil {
				u = &use{who: who, to: f.remote, owes: a}
				uses[useKey{who, key}] = u
				a.uses = append(a.uses, u)
			}
			u.add(f, h.path, now, guessed)
		}
	}
	list := slices.Collect(maps.Values(accounts))
	slices.SortFunc(list, func(a, b *account) int {
		return cmp.Or(b.taken-a.taken, cmp.Compare(a.key.String(), b.key.String()))
	})
	for _, a := range list {
		slices.SortFunc(a.uses, func(a, b *use) int {
			return cmp.Or(b.taken()-a.taken(), cmp.Compare(a.who.String(), b.who.String()))
		})
	}
	return list
}

type useKey struct {
	who *process
	key netpath.Key
}

// owners tell whose a flow is.
type owners struct {
	talkers map[netip.AddrPort]talkers
	ended   map[string]*process // all runs of a program that have ended, as one
}

// of returns nil if nobody knows. Guessed: nobody was seen to hold it, and only one may.
func (o owners) of(f *flow) (who *process, guessed bool) {
	if who = f.owner; who == nil {
		who = o.talkers[f.remote].only(f)
		guessed = who != nil
	}
	if who == nil || !who.ended {
		return who, guessed
	}
	if o.ended[who.name] == nil {
		o.ended[who.name] = &process{name: who.name, ended: true}
	}
	return o.ended[who.name], guessed
}

// talkers are the processes seen with one destination, and who they ran as.
type talkers map[*process]int

func (h *history) talkers() map[netip.AddrPort]talkers {
	seen := make(map[netip.AddrPort]talkers)
	for _, f := range h.flows {
		if f.owner == nil {
			continue
		}
		if seen[f.remote] == nil {
			seen[f.remote] = make(talkers)
		}
		seen[f.remote][f.owner] = f.uid
	}
	return seen
}

// only returns whose flow it must be, if just one process that may be its owner was seen.
func (t talkers) only(f *flow) *process {
	var who *process
	for p, uid := range t {
		if f.uid >= 0 && f.uid != uid {
			continue
		}
		if who != nil && (who.name != p.name || !who.ended || !p.ended) {
			return nil
		}
		who = p
	}
	return who
}

func (u *use) add(f *flow, path pathway, now time.Time, guessed bool) {
	u.flows = append(u.flows, f)
	if guessed {
		u.guessed++
	}
	switch {
	case f.forgotten(path):
		u.forgotten++
	case !f.taken(path, now):
	case !f.ended.IsZero():
		u.cooling++
	case f.state == synSent:
		u.dialing++
	case f.idle(0), f.state == closeWait:
		u.idle++
	default:
		u.busy++
	}
}

// count returns how many flows there are of a kind.
func (u *use) count(is func(*flow) bool) (n int) {
	for _, f := range u.flows {
		if is(f) {
			n++
		}
	}
	return n
}

// peak is how many connections were open at once at one of the looks.
func (u *use) peak() (most int) {
	change := make(map[int]int)
	for _, f := range u.flows {
		if f.first > 0 {
			change[f.first]++
			change[f.last+1]--
		}
	}
	open := 0
	for _, look := range slices.Sorted(maps.Keys(change)) {
		open += change[look]
		most = max(most, open)
	}
	return most
}

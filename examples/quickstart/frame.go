package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A standing is how far a lane has come.
type standing struct {
	ok, failed, waiting, ports int
	over                       bool
	ran                        time.Duration
	ends                       []end // in order; not to be changed
}

func (l *lane) standing() standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := standing{ok: l.ok, failed: l.failed, waiting: l.sent - len(l.ends), over: l.over, ran: l.ran, ends: l.ends}
	if n := len(l.held); n > 0 {
		p.ports = l.held[n-1].held
	}
	return p
}

// ports is what a client holds of the ports to one site, by state.
type ports struct {
	active, idle, dialing, cooling int
	limit                          int
	astray                         int // of the open ones
	dropped                        int // SYNs, so far
}

func (p ports) taken() int { return p.active + p.idle + p.dialing + p.cooling }

// ports tells what natwise's ledger has booked for each site, and what the NAT has for
// the other clients, to which nothing tells what is idle: for the NAT a flow is in use
// while its client spoke last. What was dropped and what leads nowhere is as it was when the
// lane was over, as in the table: a dial that was given up then may still count.
func (l *lane) ports() []ports {
	sites := make([]ports, len(l.servers.at))
	l.fromNAT(sites)
	if l.user.ledger != nil {
		l.fromLedger(sites)
	}
	return sites
}

func (l *lane) fromNAT(sites []ports) {
	stats, flows := l.counted(), l.nat.Flows()
	for i, at := range l.servers.at {
		p := &sites[i]
		p.limit = l.scene.path.Limit(netpath.Destination)
		for key, counts := range stats.Accounts {
			if key.Dest == at {
				p.astray, p.dropped = counts.Astray, counts.RefusedSYNs
			}
		}
		for _, f := range flows {
			switch {
			case f.Dest != at:
			case f.Closing:
				p.cooling++
			case !f.Source.IsValid():
				p.dialing++
			case f.Asked:
				p.active++
			default:
				p.idle++
			}
		}
	}
}

// counted is what the NAT has counted of the lane's work.
func (l *lane) counted() fauxnat.Stats {
	l.mu.Lock()
	over, counts := l.over, l.counts
	l.mu.Unlock()
	if over {
		return counts
	}
	return l.nat.Stats()
}

func (l *lane) fromLedger(sites []ports) {
	for i, at := range l.servers.at {
		p := &sites[i]
		p.active, p.idle, p.dialing, p.cooling = 0, 0, 0, 0
		for _, a := range l.user.ledger.Accounts() {
			if a.Key.Dest == at {
				p.active, p.idle, p.dialing = a.Active, a.Idle, a.Asked+a.Dialing
				p.cooling = a.Taken() - p.taken()
			}
		}
	}
}

// The states of a port, as they are drawn: told apart without colours too.
var states = [...]struct {
	name  string
	cell  string
	paint terminal.Colour
	of    func(ports) int
}{
	{"active", "█", terminal.Green, func(p ports) int { return p.active }},
	{"idle", "▓", terminal.Blue, func(p ports) int { return p.idle }},
	{"dialing", "▒", terminal.Yellow, func(p ports) int { return p.dialing }},
	{"cooling", "░", terminal.Magenta, func(p ports) int { return p.cooling }},
}

const freeCell = "·"

// frame is the live view: for each client what came of its requests, and a bar for each
// site's ports. Where there is no room for that, it is a line a client.
func (s *screen) frame(sc *scene, lanes []*lane, cols, rows int) (lines []string) {
	var ran time.Duration
	small := rows < len(lanes)*(1+len(sc.sites))+2
	for _, l := range lanes {
		p := l.standing()
		ran = max(ran, p.ran)
		head := s.head(l.name, p, cols)
		if small {
			lines = append(lines, head)
			continue
		}
		alone := len(sc.sites) == 1
		if alone {
			head += s.pulse(p, 0, cols-headWidth)
		}
		lines = append(lines, head)
		for i, held := range l.ports() {
			if alone {
				lines = append(lines, s.site(sc, i, held, cols))
				continue
			}
			lines = append(lines, s.site(sc, i, held, cols-cols/5)+s.pulse(p, i, cols/5))
		}
	}
	if small {
		return lines
	}
	return append(lines, "", s.legend(ran, cols))
}

const (
	narrow     = 72                           // columns, where there is no room for all words
	headWidth  = 2 + nameWidth + 11 + 15 + 14 // of a client's line
	pulseWidth = 16                           // of a pulse beside a bar
)

// head is a client's line.
func (s *screen) head(name string, p standing, cols int) string {
	failed := s.bad(p.failed, fmt.Sprintf("%7s failed", terminal.Thousands(p.failed)))
	last := fmt.Sprintf("%5s waiting", terminal.Thousands(p.waiting))
	if p.over {
		last = fmt.Sprintf("%13s", fmt.Sprintf("done %.1f s", p.ran.Seconds()))
	}
	if cols < narrow { // of what waits nothing is left
		return fmt.Sprintf("  %s %6s ok%s", s.name(name), terminal.Thousands(p.ok), failed)
	}
	return fmt.Sprintf("  %s %7s ok %s %s", s.name(name), terminal.Thousands(p.ok), failed, last)
}

// bad paints text red if there is one.
func (s *screen) bad(n int, text string) string {
	if n > 0 {
		return s.Paint(terminal.Red, text)
	}
	return text
}

// beat is what one cell of the pulse stands for.
const beat = 250 * time.Millisecond

// pulse is what came back of a site lately, up to now, after two blanks. What failed is red,
// and a cross where nothing else came back.
func (s *screen) pulse(p standing, site, width int) string {
	width -= 2
	if width < 4 {
		return ""
	}
	last := int(p.ran / beat) // the cell that has just begun would flicker
	var cells []tally
	for b := max(0, last-width); b < last; b++ {
		cells = append(cells, tallied(p.ends, site, time.Duration(b)*beat, time.Duration(b+1)*beat))
	}
	return "  " + s.spark(cells, 0)
}

// site is the line of a client's ports to one site.
func (s *screen) site(sc *scene, i int, p ports, cols int) string {
	label := fmt.Sprintf("    %-8s", sc.sites[i].name)
	tail := fmt.Sprintf(" %4d of %d", p.taken(), p.limit)
	if p.taken() >= p.limit {
		tail = s.Paint(terminal.Red, tail)
	}
	n, what := p.dropped, "dropped"
	if sc.stray != "" {
		n, what = p.astray, sc.stray
	}
	alarm := strings.Repeat(" ", len("  3,000 ")+len(what))
	if n > 0 {
		alarm = "  " + s.Paint(terminal.Red, fmt.Sprintf("%*s", -len("3,000 ")-len(what), terminal.Thousands(n)+" "+what))
	}
	return label + s.bar(p, cols-len(label)-len(fmt.Sprintf(" %4d of %d", 0, p.limit))-len("  3,000 ")-len(what)) + tail + alarm
}

// bar shows what is taken of the limit. Whatever there is has a cell at least.
func (s *screen) bar(p ports, width int) string {
	if width < len(states) || p.limit <= 0 {
		return ""
	}
	var cells [len(states)]int
	sum, before, filled := 0, 0, 0
	for i, state := range states {
		n := state.of(p)
		sum += n
		upTo := min(width, (2*sum*width+p.limit)/(2*p.limit))
		if cells[i] = upTo - before; n > 0 {
			cells[i] = max(1, cells[i])
		}
		before = max(before, upTo)
		filled += cells[i]
	}
	for filled > width { // one that was given a cell takes it from the largest
		largest := 0
		for i := range cells {
			if cells[i] > cells[largest] {
				largest = i
			}
		}
		cells[largest]--
		filled--
	}
	var bar strings.Builder
	for i, state := range states {
		bar.WriteString(s.Paint(state.paint, strings.Repeat(state.cell, cells[i])))
	}
	bar.WriteString(s.Paint(terminal.Faint, strings.Repeat(freeCell, width-filled)))
	return bar.String()
}

func (s *screen) legend(ran time.Duration, cols int) string {
	var line strings.Builder
	used := 0
	for _, state := range states {
		line.WriteString("  " + s.Paint(state.paint, state.cell) + " " + state.name)
		used += 4 + utf8.RuneCountInString(state.name)
	}
	line.WriteString("  " + s.Paint(terminal.Faint, freeCell) + " free")
	clock := fmt.Sprintf("%.1f s", ran.Seconds())
	return line.String() + fmt.Sprintf("%*s", max(2, cols-used-8), clock)
}

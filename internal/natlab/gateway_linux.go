package natlab

import (
	_ "embed"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// The gateway's rules. Words like ${n} are filled in before nft reads them.
var (
	//go:embed gateway.nft
	gatewayRules string
	//go:embed account.nft
	accountRules string
	//go:embed destination.nft
	destinationRules string
)

// A flow's name as nft's words, in packets of either direction.
const (
	nameOut = "ip saddr . tcp sport . ip daddr . tcp dport"
	nameIn  = "ip daddr . tcp dport . ip saddr . tcp sport"
)

// The port numbers that are used again.
const (
	firstNumber = 10000
	maxNumbers  = 1<<16 - firstNumber
)

const (
	unlimited = 1 << 20               // flows of a destination without limit
	never     = 30 * 24 * time.Hour   // for a timer that does not exist
	atOnce    = 50 * time.Millisecond // for a hold that does not exist: the other end's answer still passes
)

// An account is what the gateway books for one destination, of all sources or of
// one.
type account struct {
	dest  netip.AddrPort
	ports string // its set's name
}

// words fills in what the rules of every account have in common.
func words(cfg Config) (map[string]string, error) {
	if err := cfg.Path.Validate(); err != nil {
		return nil, fmt.Errorf("natlab: %w", err)
	}
	path := cfg.Path.Effective()
	path.Sharers = 0
	room := cfg.Room
	if room == 0 {
		room = path.Limit(netpath.Destination)
		if own := path.Limit(netpath.SourceDestination); cfg.PerSource && own != netpath.None {
			room = own
		}
	}
	if room == netpath.None {
		room = unlimited
	}
	forget, known := map[netpath.IdleAction]string{
		netpath.Drop:      "drop",
		netpath.ResetNext: "reject with tcp reset",
	}[path.AtIdle]
	if !known {
		return nil, fmt.Errorf("natlab: AtIdle is %d, and only Drop and ResetNext can be imitated", path.AtIdle)
	}
	idle := orElse(path.Idle, never)
	numbers := "1024-65535" // whether a port is left is for the accounts to say
	if cfg.Reuse {
		if room > maxNumbers {
			return nil, fmt.Errorf("natlab: Reuse of %d port numbers, at most %d", room, maxNumbers)
		}
		if idle%time.Second != 0 {
			return nil, fmt.Errorf("natlab: Reuse with an Idle of %v, want whole seconds", idle)
		}
		if cfg.PerSource {
			return nil, errors.New("natlab: Reuse with PerSource: each source would need port numbers of its own")
		}
		numbers = fmt.Sprintf("%d-%d", firstNumber, firstNumber+room-1)
	}
	return map[string]string{
		"in": nameIn, "out": nameOut, "nat": natAddr.String(), "numbers": numbers,
		"room": strconv.Itoa(room), "forget": forget,
		"syn":  timeout(orElse(path.Hold.SYN, atOnce)),
		"fin":  timeout(orElse(path.Hold.FIN, atOnce)),
		"rst":  timeout(orElse(path.Hold.RST, atOnce)),
		"idle": timeout(idle), "held": timeout(idle + orElse(path.Hold.Idle, 0)),
	}, nil
}

// orElse is d, or instead if there is no such timer.
func orElse(d, instead time.Duration) time.Duration {
	if d == netpath.None {
		return instead
	}
	return d
}

// timeout writes a duration as nft reads it.
func timeout(d time.Duration) string {
	return fmt.Sprintf("%dms", max(1, d.Milliseconds()))
}

// Count opens the account of a destination. Listen does that for its own; what
// nobody listens on (a closed port, a black hole) must be counted by hand, or
// it cannot be reached.
func (l *Lab) Count(dst netip.AddrPort) error {
	l.changes.Lock()
	defer l.changes.Unlock()
	if _, has := l.account(dst); has {
		return nil
	}
	known := l.known()
	grown := slices.Clone(known)
	rules := expand(destinationRules, l.words, map[string]string{"n": strconv.Itoa(len(known)), "dest": element(dst)})
	for _, sources := range l.counted() {
		n := strconv.Itoa(len(grown))
		var out, in []string
		for _, src := range sources {
			flows := src.String() + " . " + element(dst)
			out, in = append(out, flows+" : jump outgoing"+n), append(in, flows+" : jump incoming"+n)
		}
		rules = expand(accountRules, l.words, map[string]string{
			"n": n, "outgoing": strings.Join(out, ", "), "incoming": strings.Join(in, ", "),
		}) + rules
		grown = append(grown, account{dst, "ports" + n})
	}
	if err := l.nft(rules); err != nil {
		return err
	}
	l.accounts.Store(&grown)
	return nil
}

// counted is who owes a destination's accounts: each source one of its own, or all
// the same. The gateway is a source where it has a proxy.
func (l *Lab) counted() (accounts [][]netip.Addr) {
	sources := []netip.Addr{gatewayAddr}
	for i := range l.clients {
		sources = append(sources, l.Client(i))
	}
	if !l.perSource {
		return [][]netip.Addr{sources}
	}
	for src := range slices.Chunk(sources, 1) {
		accounts = append(accounts, src)
	}
	return accounts
}

// expand puts in what the words stand for, those of one account and those of all.
func expand(rules string, all, one map[string]string) string {
	return os.Expand(rules, func(word string) string {
		if s, has := one[word]; has {
			return s
		}
		return all[word]
	})
}

// known is all accounts, in the order of their numbers.
func (l *Lab) known() []account { return *l.accounts.Load() }

// account is the number of a destination's account, or of the first of them.
func (l *Lab) account(dst netip.AddrPort) (n int, has bool) {
	n = slices.IndexFunc(l.known(), func(a account) bool { return a.dest == dst })
	return n, n >= 0
}

// Blackhole silently drops everything to and from a destination, or everything
// at all for the zero AddrPort, until it is switched off. The hole is behind the
// gateway's accounts: what the client sends is booked, nothing comes back.
func (l *Lab) Blackhole(dst netip.AddrPort, on bool) error {
	switch {
	case !dst.IsValid() && on:
		return l.change("flush chain ip lab dark; add rule ip lab dark drop")
	case !dst.IsValid():
		return l.change("flush chain ip lab dark")
	}
	hole := "element ip lab holes { " + element(dst) + " }"
	if n, is := l.balancer(dst); is {
		hole = fmt.Sprintf("element ip lab darkened { %d }", n)
	}
	if on {
		return l.change("add " + hole)
	}
	return l.change("add " + hole + "; delete " + hole)
}

// Lose loses a share of all packets, 0 to 1, at random, on their way to the
// gateway from either side, until it is called again. 0 ends it.
func (l *Lab) Lose(share float64) error {
	if !(share >= 0 && share <= 1) {
		return fmt.Errorf("natlab: lose a share of %v, want 0 to 1", share)
	}
	rules := "flush chain ip lab lossy"
	if last := int(math.Ceil(share*dice)) - 1; last >= 0 {
		rules += fmt.Sprintf("; add rule ip lab lossy numgen random mod %d <= %d drop", dice, last)
	}
	return l.change(rules)
}

// dice is how many numbers chance chooses from.
const dice = 1 << 30

// DropNext loses the next n packets of the client to a destination that has an
// account, whatever they are: payload, probes, retransmissions. They get lost
// before the gateway, so they keep no flow known. What was left of an earlier
// call is forgotten, and 0 loses no more.
func (l *Lab) DropNext(dst netip.AddrPort, n int) error {
	if n < 0 {
		return fmt.Errorf("natlab: drop the next %d packets, want 0 or more", n)
	}
	a, has := l.account(dst)
	if !has {
		return fmt.Errorf("natlab: %v has no account", dst)
	}
	rules := fmt.Sprintf("flush chain ip lab skipped%d", a)
	if n > 0 { // a new rule counts from 0
		rules += fmt.Sprintf("; add rule ip lab skipped%d numgen inc mod %d < %d drop", a, uint32(math.MaxUint32), n)
	}
	return l.change(rules)
}

// Forget forgets all flows at once and frees their ports, as a gateway does
// that is started anew.
func (l *Lab) Forget() error {
	l.changes.Lock()
	defer l.changes.Unlock()
	var rules strings.Builder
	for _, set := range []string{knownSet, finishedSet, resetSet} {
		fmt.Fprintf(&rules, "flush set ip lab %s\n", set)
	}
	for _, a := range l.known() {
		fmt.Fprintf(&rules, "flush set ip lab %s\n", a.ports)
	}
	err := l.nft(rules.String())
	if l.reuse {
		err = errors.Join(err, l.table.forget()) // or the port numbers would not be free
	}
	return err
}

// ForgetFlow forgets one flow, from the client's address as c has it; its port stays
// taken. What is sent on it vanishes, or is answered with a RST.
func (l *Lab) ForgetFlow(c net.Conn) error {
	from, to := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	return l.change("delete element ip lab " + knownSet + " { " + element(from) + " . " + element(to) + " }")
}

// change is nft where nobody else changes the rules.
func (l *Lab) change(rules string) error {
	l.changes.Lock()
	defer l.changes.Unlock()
	return l.nft(rules)
}

// nft changes the gateway's rules: all of it, or nothing.
func (l *Lab) nft(rules string) error {
	return l.gateway.script(rules, nil, "nft", "-f", "-")
}

// element writes a destination as an element of a set.
func element(dst netip.AddrPort) string {
	return fmt.Sprintf("%s . %d", dst.Addr(), dst.Port())
}

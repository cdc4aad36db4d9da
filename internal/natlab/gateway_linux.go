package natlab

import (
	_ "embed"
	"fmt"
	"net/netip"
	"os"
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
)

// A flow's name as nft's words, in packets of either direction.
const (
	nameOut = "ip saddr . tcp sport . ip daddr . tcp dport"
	nameIn  = "ip daddr . tcp dport . ip saddr . tcp sport"
)

const (
	unlimited = 1 << 20               // flows of a destination without limit
	never     = 30 * 24 * time.Hour   // for a timer that does not exist
	atOnce    = 50 * time.Millisecond // for a hold that does not exist: the other end's answer still passes
)

// An account is what the gateway books for one destination.
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
	return map[string]string{
		"in": nameIn, "out": nameOut, "nat": natAddr.String(),
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
	if l.has(dst) {
		return nil
	}
	known := l.known()
	n := strconv.Itoa(len(known))
	rules := os.Expand(accountRules, func(word string) string {
		switch word {
		case "n":
			return n
		case "dest":
			return element(dst)
		}
		return l.words[word]
	})
	if err := l.nft(rules); err != nil {
		return err
	}
	grown := append(known[:len(known):len(known)], account{dst, "ports" + n})
	l.accounts.Store(&grown)
	return nil
}

// known is all accounts, in the order of their numbers.
func (l *Lab) known() []account { return *l.accounts.Load() }

func (l *Lab) has(dst netip.AddrPort) bool {
	for _, a := range l.known() {
		if a.dest == dst {
			return true
		}
	}
	return false
}

// Blackhole silently drops everything to and from a destination, or everything
// at all for the zero AddrPort, until it is switched off. The hole is behind the
// gateway's accounts: what the client sends is booked, nothing comes back.
func (l *Lab) Blackhole(dst netip.AddrPort, on bool) error {
	l.changes.Lock()
	defer l.changes.Unlock()
	switch {
	case !dst.IsValid() && on:
		return l.nft("flush chain ip lab dark; add rule ip lab dark drop")
	case !dst.IsValid():
		return l.nft("flush chain ip lab dark")
	case on:
		return l.nft("add element ip lab holes { " + element(dst) + " }")
	}
	return l.nft("add element ip lab holes { " + element(dst) + " }; delete element ip lab holes { " + element(dst) + " }")
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
	return l.nft(rules.String())
}

// nft changes the gateway's rules: all of it, or nothing.
func (l *Lab) nft(rules string) error {
	return l.gateway.script(rules, nil, "nft", "-f", "-")
}

// element writes a destination as an element of a set.
func element(dst netip.AddrPort) string {
	return fmt.Sprintf("%s . %d", dst.Addr(), dst.Port())
}

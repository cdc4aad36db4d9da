package natlab

import (
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

//go:embed balance.nft
var balanceRules string

// The two cables, on which everybody has an address.
var (
	insideLink  = netip.MustParsePrefix("10.78.1.0/24")
	outsideLink = netip.MustParsePrefix("10.78.2.0/24")
)

// Balance makes the gateway an internal load balancer at vip, a private address
// and port that is nobody's. Each new flow to it is given one of the backends by
// chance, and keeps it: a server, or the client itself, at any port. A second call
// changes the backends for new flows. The balancer is asked before any account;
// Blackhole knows it as vip.
//
// A flow keeps its source. One that is given to the client who dials it is dropped
// by the client's kernel, which takes a packet from its own address for a martian:
// that is the hairpin. So would be one from another address of the client's; its
// source is the gateway there, as if those were two network cards between which
// something translates.
//
// Who dials in the gateway's namespace meets the balancer too.
func (l *Lab) Balance(vip netip.AddrPort, backends ...netip.AddrPort) error {
	if err := l.mayBalance(vip, backends); err != nil {
		return err
	}
	l.changes.Lock()
	defer l.changes.Unlock()
	n, is := l.balancer(vip)
	if !is {
		// Who dials in the gateway needs a way there before it is translated.
		route := fmt.Sprintf("route replace %s/32 dev inside\n", vip.Addr())
		if err := l.gateway.script(route, nil, "ip", "-batch", "-"); err != nil {
			return err
		}
	}
	var mapped []string
	for i, b := range backends {
		mapped = append(mapped, fmt.Sprintf("%d : %s", i, element(b)))
	}
	if err := l.nft(expand(balanceRules, nil, map[string]string{
		"n": strconv.Itoa(n), "frontend": element(vip),
		"count": strconv.Itoa(len(backends)), "backends": strings.Join(mapped, ", "),
	})); err != nil || is {
		return err
	}
	grown := append(slices.Clone(*l.balancers.Load()), vip)
	l.balancers.Store(&grown)
	return nil
}

func (l *Lab) mayBalance(vip netip.AddrPort, backends []netip.AddrPort) error {
	switch a := vip.Addr(); {
	case !a.Is4() || !a.IsPrivate() || insideLink.Contains(a) || outsideLink.Contains(a):
		return fmt.Errorf("natlab: balancer at %v, want a private address that is nobody's", vip)
	case len(backends) == 0:
		return errors.New("natlab: a balancer without backends")
	}
	for _, b := range backends {
		if !slices.Contains(l.owned(), b.Addr()) {
			return fmt.Errorf("natlab: backend %v, want an address of a server or of the client", b)
		}
	}
	return nil
}

// owned is the addresses that somebody has.
func (l *Lab) owned() (all []netip.Addr) {
	for i := range l.servers {
		all = append(all, l.Server(i))
	}
	for i := range l.clients {
		all = append(all, l.Client(i))
	}
	return all
}

// balancer is the number of the balancer at vip, or of the next.
func (l *Lab) balancer(vip netip.AddrPort) (n int, is bool) {
	known := *l.balancers.Load()
	if i := slices.Index(known, vip); i >= 0 {
		return i + 1, true
	}
	return len(known) + 1, false
}

// detours adds the pairs of the client's addresses to what the gateway translates.
func (l *Lab) detours() string {
	var pairs strings.Builder
	for i := range l.clients {
		for j := range l.clients {
			if i != j {
				fmt.Fprintf(&pairs, "add element ip lab detours { %s . %s }\n", l.Client(i), l.Client(j))
			}
		}
	}
	return pairs.String()
}

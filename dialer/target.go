package dialer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"github.com/natwise/natwise/internal/telemetry"
)

// A target is a checked address with the ways to get there.
type target struct {
	network, address string // as they were asked for
	host             string
	named            bool     // a name was looked up: host's, or the proxy's
	unresolved       bool     // in vain, and not for want of its caller's patience
	via              *url.URL // the proxy that the candidates lead to; nil: none
	candidates       []candidate
	full             bool // a dial to there has found no port: it is diagnosed already
	setup            *telemetry.Setup
}

// target checks what was asked for and resolves it.
func (d *Dialer) target(ctx context.Context, network, address string) (target, error) {
	t := target{network: network, address: address}
	if err := checkNetwork(network); err != nil {
		return t, err
	}
	if err := d.checkSources(); err != nil {
		return t, err
	}
	if err := context.Cause(ctx); err != nil {
		return t, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return t, err
	}
	t.host = host
	if host == "" {
		return t, &net.AddrError{Err: "empty host", Addr: address}
	}
	number, err := portNumber(ctx, network, port)
	if err != nil {
		return t, &net.AddrError{Err: err.Error(), Addr: address}
	}
	if d.Proxy != nil {
		if t.via, err = d.Proxy(network, address); err != nil {
			if bad := new(url.Error); errors.As(err, &bad) {
				err = bad.Err // without the URL, which may have a password
			}
			return t, fmt.Errorf("Dialer.Proxy: %w", err)
		}
		if t.via != nil {
			if host, number, err = proxyAddress(t.via); err != nil {
				return t, err
			}
		}
	}
	_, isName := netip.ParseAddr(host)
	t.named = isName != nil
	addrs, err := d.lookup(ctx, network, host)
	if err != nil {
		t.unresolved = t.named && ctx.Err() == nil
		return t, err
	}
	t.candidates, err = d.candidates(addrs, number)
	return t, err
}

func checkNetwork(network string) error {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return nil
	}
	return net.UnknownNetworkError(network)
}

func portNumber(ctx context.Context, network, port string) (uint16, error) {
	n, err := strconv.Atoi(port)
	if err != nil {
		if n, err = net.DefaultResolver.LookupPort(ctx, network, port); err != nil {
			return 0, errors.New("unknown port " + strconv.Quote(port))
		}
	}
	if n < 1 || n > 65535 {
		return 0, errors.New("port " + port + " is not within 1 to 65535")
	}
	return uint16(n), nil
}

// Remotes returns where a dial to address may connect to, once each, in the resolver's
// order, which is the order of preference (RFC 6724): the address's own addresses, or what
// Hairpin and Proxy have in their place. The network is "tcp", "tcp4" or "tcp6". It takes no
// longer than Timeout. The error is what DialContext wraps: the Resolver's, or a
// *net.DNSError if the name has no such address.
func (d *Dialer) Remotes(ctx context.Context, network, address string) ([]netip.AddrPort, error) {
	t, err := d.target(ctx, network, address)
	var remotes []netip.AddrPort
	for _, c := range t.candidates {
		if !slices.Contains(remotes, c.dst) {
			remotes = append(remotes, c.dst)
		}
	}
	return remotes, err
}

func (d *Dialer) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return fit(network, host, []netip.Addr{a})
	}
	if t := d.timeout(); t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	var resolver Resolver = net.DefaultResolver
	if d.Resolver != nil {
		resolver = d.Resolver
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip"+network[len("tcp"):], host)
	if err != nil {
		return nil, err
	}
	return fit(network, host, addrs)
}

// fit keeps the addresses of the wanted family, once each.
func fit(network, host string, addrs []netip.Addr) ([]netip.Addr, error) {
	var fits []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if network == "tcp4" && !a.Is4() || network == "tcp6" && !a.Is6() || slices.Contains(fits, a) {
			continue
		}
		fits = append(fits, a)
	}
	if len(fits) == 0 {
		return nil, &net.DNSError{Err: "no address for " + network, Name: host, IsNotFound: true}
	}
	return fits, nil
}

// candidates are all addresses, or what Hairpin has in their place, from every source that
// is for them.
func (d *Dialer) candidates(addrs []netip.Addr, port uint16) ([]candidate, error) {
	var cs []candidate
	var gone error // what of Sources is
	for _, a := range addrs {
		dst := netip.AddrPortFrom(a, port)
		here, mapped := d.Hairpin[dst]
		if !mapped && a.Is4() { // a key may be written so, too
			here, mapped = d.Hairpin[netip.AddrPortFrom(netip.AddrFrom16(a.As16()), port)]
		}
		if mapped {
			if !here.IsValid() || here.Port() == 0 {
				return nil, fmt.Errorf("dialer: Hairpin[%v] is %v, want an address and port of this host", dst, here)
			}
			cs = append(cs, candidate{dst: netip.AddrPortFrom(here.Addr().Unmap(), here.Port())})
			continue
		}
		sources, err := d.sourcesFor(a)
		gone = cmp.Or(gone, err)
		for _, s := range sources {
			cs = append(cs, candidate{src: s.Addr, device: s.Interface, dst: dst})
		}
	}
	switch {
	case len(cs) > 0:
	case gone != nil:
		return nil, gone
	default:
		return nil, &net.AddrError{Err: "no source address of its family in Dialer.Sources", Addr: addrs[0].String()}
	}
	return cs, nil
}

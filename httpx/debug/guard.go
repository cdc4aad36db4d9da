package debug

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// refuses says in one line why r is not answered, and what would change that; "" if it is.
func (p *Page) refuses(r *http.Request) string {
	// A browser says who wants it. EventSource says no Origin at home, but this it does.
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case site == "", site == "none", site == "same-origin", navigates(r):
	default:
		return "natwise: another site's page asks for this one (Sec-Fetch-Site: " + site + "); open it by its own address."
	}
	const how = " To decide yourself who may see it, set the field Allow of debug.Page."
	switch {
	case p.Allow != nil && p.Allow(r):
		return ""
	case p.Allow != nil:
		return "natwise: the field Allow of this program's debug.Page says no."
	case !fromLoopback(r.RemoteAddr):
		return "natwise: this page answers the machine that it runs on, and you ask from " + r.RemoteAddr + "." + how
	case !namesLoopback(r.Host):
		// The name of a site whose address was changed to ours: what its scripts read here
		// would be theirs.
		return "natwise: this page answers to localhost, and you ask for the host " + r.Host + "." + how
	}
	return ""
}

// navigates reports whether somebody has followed a link, or has come back from where one signs
// in: the other site gets nothing of what they see then.
func navigates(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" &&
		(r.Method == http.MethodGet || r.Method == http.MethodHead)
}

func fromLoopback(peer string) bool {
	at, err := netip.ParseAddrPort(peer)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// namesLoopback reports whether a Host header means this machine, whoever resolves it.
func namesLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	at, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && at.IsLoopback()
}

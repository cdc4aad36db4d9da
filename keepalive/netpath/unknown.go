package netpath

import (
	"net/netip"
	"time"
)

const (
	unknownIdle = 230 * time.Second // below the shortest common timer, Azure's 240 s
	unknownHold = 240 * time.Second // the longest documented hold, Azure's after a FIN

	caution = "natwise's own caution"
)

// untranslated is what a NAT towards the internet leaves alone: loopback,
// link-local and private addresses (RFC 1122, 1918, 3927, 4193, 4291).
var untranslated = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
}

// NoExempt is for Profile.Exempt: every destination counts.
func NoExempt() []netip.Prefix { return []netip.Prefix{} }

// Unknown is the path that nobody described: silence is kept below 230 s, a
// closed flow is held for 240 s, and nothing is capped. It is what the zero
// Profile means.
func Unknown() Profile {
	return Profile{Name: "unknown", Source: caution, Grade: Assumed}.Effective()
}

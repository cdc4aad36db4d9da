package netpath

import "time"

// CloudflareEdge is Cloudflare as its client sees it.
func CloudflareEdge() Profile {
	return Profile{
		Name:   "cloudflare-edge",
		Source: "Cloudflare: connection-limits (undated)",
		Grade:  Documented,
		Idle:   400 * time.Second, // HTTP/1.1 keep-alive and HTTP/2
		AtIdle: Close,
		Counts: Requests,
		Hold:   noSNAT,
		Cites:  guessed("Counts"),
	}
}

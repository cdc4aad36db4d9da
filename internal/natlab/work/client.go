package work

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
)

// The kinds of clients.
const (
	PerRequest = "client-per-request"    // a new http.Client and Transport for each request: the classic leak
	Default    = "http.DefaultTransport" // its settings
	Tuned      = "tuned"                 // an http.Transport with MaxConnsPerHost and idle connections to match
	Natwise    = "natwise"               // httpx.NewClient
)

// Kinds are all clients, as they are printed.
var Kinds = []string{PerRequest, Default, Tuned, Natwise}

// A maker makes clients of one kind and remembers them, so that what they leave
// behind ends with the stage.
type maker struct {
	kind   string
	dial   func(ctx context.Context, network, address string) (net.Conn, error) // to the origin, whatever the name
	ledger *dialer.Ledger
	names  everywhere
	stage  *Stage

	mu   sync.Mutex // guards made
	made []*http.Client
}

// client returns a new client.
func (m *maker) client() *http.Client {
	c := m.build()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made = append(m.made, c)
	return c
}

func (m *maker) build() *http.Client {
	switch m.kind {
	case PerRequest:
		return &http.Client{Transport: &http.Transport{DialContext: m.dial}}
	case Default:
		tr := http.DefaultTransport.(*http.Transport).Clone()
		tr.Proxy, tr.DialContext = nil, m.dial
		return &http.Client{Transport: tr}
	case Tuned:
		return &http.Client{Transport: &http.Transport{
			DialContext: m.dial, MaxConnsPerHost: Limit, MaxIdleConnsPerHost: Limit,
		}}
	}
	return httpx.NewClient(&dialer.Dialer{Ledger: m.ledger, Dial: m.stage.Lab.Dial, Resolver: m.names})
}

// rest closes the connections that nobody uses.
func (m *maker) rest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.made {
		c.CloseIdleConnections()
	}
}

// everywhere is a resolver that finds every name at one address.
type everywhere netip.Addr

func (e everywhere) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.Addr(e)}, nil
}

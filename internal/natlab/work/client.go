package work

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"sync"
)

// The kinds of clients.
const (
	PerRequest = "client-per-request"    // a new http.Client and Transport for each request: the classic leak
	Default    = "http.DefaultTransport" // its settings
	Tuned      = "tuned"                 // an http.Transport with MaxConnsPerHost and idle connections to match
	Natwise    = "natwise"               // an httpx.Transport
)

// Kinds are all clients, as they are printed.
var Kinds = []string{PerRequest, Default, Tuned, Natwise}

// A Client is a client of any make. It may be used by many goroutines.
type Client interface {
	// Get sends one request, and reads its answer to the end.
	Get(ctx context.Context, url string) error

	CloseIdleConnections()
}

// A Std is net/http's client on somebody's RoundTripper.
type Std struct{ *http.Client }

// Get implements Client.
func (c Std) Get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	return ReadAll(resp)
}

// ReadAll reads an answer of the origin's to the end, as whoever wants to keep its
// connection does.
func ReadAll(resp *http.Response) error {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err := io.Copy(io.Discard, resp.Body)
	return err
}

// A maker makes clients of one kind and remembers them, so that what they leave
// behind ends with the stage.
type maker struct {
	kind  string
	other func(*Stage) Client // makes those of a kind that is not in Kinds
	stage *Stage

	mu   sync.Mutex // guards made
	made []Client
}

// client returns a new client.
func (m *maker) client() Client {
	if m.other != nil {
		return m.remember(m.other(m.stage))
	}
	return m.remember(Std{m.build()})
}

func (m *maker) remember(c Client) Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made = append(m.made, c)
	return c
}

func (m *maker) build() *http.Client {
	switch m.kind {
	case PerRequest:
		return &http.Client{Transport: &http.Transport{DialContext: m.stage.Dial}}
	case Default:
		tr := http.DefaultTransport.(*http.Transport).Clone()
		tr.Proxy, tr.DialContext = nil, m.stage.Dial
		return &http.Client{Transport: tr}
	case Tuned:
		return &http.Client{Transport: &http.Transport{
			DialContext: m.stage.Dial, MaxConnsPerHost: Limit, MaxIdleConnsPerHost: Limit,
		}}
	}
	return m.stage.natwise()
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

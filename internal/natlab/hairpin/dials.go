package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Setup is a dialer. The zero Setup is natwise's, which nobody told anything.
type Setup struct {
	Plain            bool // Go's own, of which only Timeout can be set
	Path             netpath.Profile
	MaxWait, Timeout time.Duration
	Sources          []netip.Addr
	Hairpin          map[netip.AddrPort]netip.AddrPort
	Proxy            string     // its URL; empty: none
	Service          netip.Addr // every name's address; zero: see Names
	Names            string     // how looking up names fails
	Root             []byte     // whose word for certificates is taken
}

// A Dials is an order to dial.
type Dials struct {
	Client  int // as New has numbered it
	Address string
	N       int           // times
	Apart   time.Duration // so long after one another
	Each    time.Duration // the deadline of each; 0: none but the dialer's own
	TLS     bool          // with the handshake
	Say     bool          // with a word, and its answer
	Keep    bool          // until the client rests, with something said on it now and then
	AtOnce  int           // that many at a time, whatever Apart says; 0: as many as there are
}

// A Parting is an order to end connections.
type Parting struct {
	Client  int
	Address string // to there
	Keep    int    // that many stay
}

// A Dialed is what came of one dial.
type Dialed struct {
	Took     time.Duration
	Tries    int    // source ports that it took; 0: nobody says
	Error    string // empty: it has worked
	Verdict  string
	Evidence string
}

// A Load is an order to dial, keep the connection for a while, close it, and dial again, for
// as long as the guest lives.
type Load struct {
	Client  int
	Address string
	Workers int
	Least   time.Duration // that a connection is kept
	Most    time.Duration
}

// A Client is what is known of one.
type Client struct {
	Accounts       []dialer.Account
	Diagnoses      []dialer.Diagnosis
	Served, Failed int // under a Load: connections closed, dials failed
}

// A Guest is what a guest obeys. Its methods are those of package rpc.
type Guest struct {
	mu      sync.Mutex // guards clients
	clients []*client
}

func newGuest() *Guest { return new(Guest) }

// New makes a client, and returns its number.
func (g *Guest) New(s Setup, number *int) error {
	c, err := newClient(s)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	*number = len(g.clients)
	g.clients = append(g.clients, c)
	return nil
}

func (g *Guest) client(number int) *client {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.clients[number]
}

// Dial dials, and waits until all is done.
func (g *Guest) Dial(d Dials, all *[]Dialed) error {
	c := g.client(d.Client)
	if d.AtOnce == 0 {
		d.AtOnce = d.N
	}
	*all = make([]Dialed, d.N)
	turns := make(chan struct{}, d.AtOnce)
	var dials sync.WaitGroup
	for i := range *all {
		turns <- struct{}{}
		if i > 0 && d.Apart > 0 {
			time.Sleep(d.Apart)
		}
		dials.Go(func() {
			(*all)[i] = c.dial(d)
			<-turns
		})
	}
	dials.Wait()
	return nil
}

// Get requests the service's front page from an address, over connections of their own, one
// after the other, and wants to be answered for the host that it names.
func (g *Guest) Get(d Dials, all *[]Dialed) error {
	c := g.client(d.Client)
	for range d.N {
		begin := time.Now()
		r := Dialed{}
		if err := c.get(d); err != nil {
			r.Error = err.Error()
			r.Verdict, r.Evidence = verdict(err)
		}
		r.Took = time.Since(begin)
		*all = append(*all, r)
	}
	return nil
}

// Begin puts a client under a load.
func (g *Guest) Begin(l Load, _ *struct{}) error {
	c := g.client(l.Client)
	for range l.Workers {
		go c.work(l) // until the process ends
	}
	return nil
}

// Look tells what a client knows.
func (g *Guest) Look(number int, seen *Client) error {
	*seen = g.client(number).look()
	return nil
}

// Part ends the connections of a client by FIN, but for a few.
func (g *Guest) Part(p Parting, _ *struct{}) error {
	g.client(p.Client).part(p)
	return nil
}

// Rest ends the connections of a client, by RST.
func (g *Guest) Rest(number int, _ *struct{}) error {
	g.client(number).rest()
	return nil
}

func (g *Guest) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.clients {
		c.rest()
	}
}

// A client is a dialer and its connections.
type client struct {
	dialer *dialer.Dialer // nil: Go's own
	plain  net.Dialer
	tls    *tls.Config

	mu    sync.Mutex // guards the fields below
	tries map[netip.AddrPort]int
	conns []*talk

	served, failed atomic.Int64
}

// A talk is a connection on which a word is said now and then.
type talk struct {
	net.Conn
	mu   sync.Mutex // held while a word is to be answered
	over bool       // guarded by mu: no more is to be said
}

func newClient(s Setup) (*client, error) {
	c := &client{tries: make(map[netip.AddrPort]int)}
	if s.Root != nil {
		var err error
		if c.tls, err = clientTLS(s.Root); err != nil {
			return nil, err
		}
	}
	if s.Plain {
		c.plain.Timeout = s.Timeout
		return c, nil
	}
	d := &dialer.Dialer{
		Ledger:  &dialer.Ledger{Path: s.Path, MaxWait: s.MaxWait, Ramp: -1},
		Timeout: s.Timeout,
		Hairpin: s.Hairpin,
		Observe: c.hear,
	}
	for _, a := range s.Sources {
		d.Sources = append(d.Sources, dialer.Source{Addr: a})
	}
	if s.Proxy != "" {
		via, err := url.Parse(s.Proxy)
		if err != nil {
			return nil, err
		}
		d.Proxy = func(string, string) (*url.URL, error) { return via, nil }
	}
	switch {
	case s.Service.IsValid():
		d.Resolver = everywhere(s.Service)
	case s.Names != "":
		d.Resolver = noNames(s.Names)
	}
	c.dialer = d
	return c, nil
}

// hear remembers how many source ports each connection took.
func (c *client) hear(e dialer.Event) {
	if e.Kind != dialer.Opened {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tries[e.Local] = e.Tries
}

func (c *client) dial(d Dials) (r Dialed) {
	ctx := context.Background()
	if d.Each > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Each)
		defer cancel()
	}
	begin := time.Now()
	conn, err := c.connect(ctx, d)
	r.Took = time.Since(begin)
	if err != nil {
		r.Error = err.Error()
		r.Verdict, r.Evidence = verdict(err)
		return r
	}
	r.Tries = c.tried(conn)
	if d.Keep {
		c.keep(conn)
	} else {
		reset(conn)
	}
	return r
}

func (c *client) connect(ctx context.Context, d Dials) (conn net.Conn, err error) {
	if c.dialer == nil {
		conn, err = c.plain.DialContext(ctx, "tcp", d.Address)
	} else {
		conn, err = c.dialer.DialContext(ctx, "tcp", d.Address)
	}
	if err != nil {
		return nil, err
	}
	if d.TLS {
		secure := tls.Client(conn, c.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		conn = secure
	}
	if d.Say {
		until, _ := ctx.Deadline()
		conn.SetDeadline(until)
		if err := say(conn); err != nil {
			conn.Close()
			return nil, fmt.Errorf("a word: %w", err)
		}
		conn.SetDeadline(time.Time{})
	}
	return conn, nil
}

// say says a word, and waits until it is answered.
func say(conn net.Conn) error {
	word := []byte("word")
	if _, err := conn.Write(word); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, word)
	return err
}

// get verifies what it is told by the name in the address: nothing else is set.
func (c *client) get(d Dials) error {
	tr := &httpx.Transport{Dialer: c.dialer, TLS: c.tls.Clone(), Proxy: httpx.NoProxy}
	tr.TLS.ServerName = ""
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), d.Each)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+d.Address+"/", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	host, err := io.ReadAll(resp.Body)
	if err == nil && string(host) != d.Address {
		err = fmt.Errorf("the answer is of %q", host)
	}
	return err
}

func (c *client) tried(conn net.Conn) int {
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tries[local]
	delete(c.tries, local)
	return n
}

// keep has something said on a connection, and answered, every now and then.
func (c *client) keep(conn net.Conn) {
	t := &talk{Conn: conn}
	c.mu.Lock()
	c.conns = append(c.conns, t)
	c.mu.Unlock()
	go func() {
		for t.say() {
			time.Sleep(sayEvery)
		}
	}()
}

func (t *talk) say() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.over && say(t.Conn) == nil
}

// hush lets the last word be answered: what closes before that ends by RST.
func (t *talk) hush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

func (c *client) work(l Load) {
	for {
		conn, err := c.connect(context.Background(), Dials{Address: l.Address})
		if err != nil {
			c.failed.Add(1)
			continue
		}
		c.tried(conn)
		time.Sleep(l.Least + rand.N(l.Most-l.Least))
		conn.Close()
		c.served.Add(1)
	}
}

// sayEvery is the pause between an answer and the next word.
const sayEvery = 100 * time.Millisecond

func (c *client) look() (seen Client) {
	if c.dialer != nil {
		seen.Accounts, seen.Diagnoses = c.dialer.Ledger.Accounts(), c.dialer.Ledger.Diagnoses()
	}
	seen.Served, seen.Failed = int(c.served.Load()), int(c.failed.Load())
	return seen
}

func (c *client) rest() {
	c.mu.Lock()
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	for _, t := range conns {
		reset(t.Conn)
	}
}

func (c *client) part(p Parting) {
	var gone []*talk
	c.mu.Lock()
	c.conns = slices.DeleteFunc(c.conns, func(t *talk) bool {
		if t.RemoteAddr().String() != p.Address {
			return false
		}
		if p.Keep--; p.Keep >= 0 {
			return false
		}
		gone = append(gone, t)
		return true
	})
	c.mu.Unlock()
	for _, t := range gone {
		t.hush()
		t.Close()
	}
}

// reset ends a connection such that it is soon forgotten everywhere.
func reset(conn net.Conn) {
	if l, ok := lingerer(conn); ok {
		l.SetLinger(0)
	}
	conn.Close()
}

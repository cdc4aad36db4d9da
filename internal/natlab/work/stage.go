package work

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/natlab"
)

// A Stage is a fresh lab with an origin server and one kind of client. Whoever
// opens it closes it.
type Stage struct {
	Scenario Scenario
	Lab      *natlab.Lab
	Origin   netip.AddrPort
	Ledger   *dialer.Ledger // natwise's; nobody was here before

	server *http.Server
	maker  *maker
}

// Open builds a lab for a scenario and one of Kinds.
func Open(s Scenario, kind string) (*Stage, error) { return open(s, &maker{kind: kind}) }

// OpenFor builds a lab for a scenario and the clients that build makes. They dial by
// Stage.Dial.
func OpenFor(s Scenario, build func(*Stage) Client) (*Stage, error) {
	return open(s, &maker{other: build})
}

func open(s Scenario, m *maker) (*Stage, error) {
	lab, err := natlab.New(natlab.Config{Path: Path(), Room: s.Room})
	if err != nil {
		return nil, err
	}
	st := &Stage{Scenario: s, Lab: lab, Origin: netip.AddrPortFrom(lab.Server(0), 80)}
	st.Ledger = &dialer.Ledger{Path: Path(), Ramp: -1}
	ln, err := lab.Listen(st.Origin.String())
	if err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	st.server = &http.Server{Handler: origin(s.Closes)}
	go st.server.Serve(ln) // until Close
	m.stage, st.maker = st, m
	return st, nil
}

// Dial connects to the origin through the gateway, whatever the address.
func (st *Stage) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return st.Lab.Dial(ctx, network, st.Origin.String())
}

// Close ends everything.
func (st *Stage) Close() error {
	st.Rest()
	return errors.Join(st.server.Close(), st.Lab.Close())
}

// Rest closes the clients' idle connections.
func (st *Stage) Rest() { st.maker.rest() }

// Client returns one more client of the stage's kind.
func (st *Stage) Client() Client { return st.maker.client() }

// Natwise returns a client on an httpx.Transport and a Dialer of its own, which books in
// the stage's Ledger.
func (st *Stage) Natwise() Client { return Std{st.natwise()} }

func (st *Stage) natwise() *http.Client {
	return &http.Client{Transport: &httpx.Transport{
		Dialer: &dialer.Dialer{Ledger: st.Ledger, Dial: st.Lab.Dial, Resolver: everywhere(st.Origin.Addr())},
		Proxy:  httpx.NoProxy, // as the others
	}}
}

// Answer is the body of every answer of the origin's.
const Answer = "Here you are.\n"

// origin answers after Service.
func origin(closes bool) http.HandlerFunc {
	body := []byte(Answer)
	return func(w http.ResponseWriter, r *http.Request) {
		t := time.NewTimer(Service)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
		if closes {
			w.Header().Set("Connection", "close")
		}
		w.Write(body)
	}
}

// A Load is what became of the requests.
type Load struct {
	Requests, OK, Failed int
	Took                 []time.Duration // of all requests, the failed ones too
	Error                error           // the first failure
	Lasted               time.Duration   // until the last one was done
}

// Play does the scenario's work.
func (st *Stage) Play() Load {
	p := &play{stage: st, begin: time.Now()}
	if st.Scenario.Every > 0 {
		p.bursts()
	} else {
		p.loop()
	}
	p.load.Lasted = time.Since(p.begin)
	return p.load
}

// A play is one Load in the making.
type play struct {
	stage *Stage
	begin time.Time
	next  atomic.Int64

	mu   sync.Mutex // guards load
	load Load
}

// loop lets every worker ask again as soon as it has its answer.
func (p *play) loop() {
	clients := p.clients()
	var wg sync.WaitGroup
	for w := range p.stage.Scenario.Workers {
		wg.Go(func() {
			for {
				i := int(p.next.Add(1)) - 1
				if i >= p.stage.Scenario.Requests || p.over() {
					return
				}
				p.request(clients(w), i)
			}
		})
	}
	wg.Wait()
}

// bursts lets all workers ask at once, again and again.
func (p *play) bursts() {
	s := p.stage.Scenario
	clients := p.clients()
	var wg sync.WaitGroup
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	for first := 0; first < s.Requests && !p.over(); first += s.Workers {
		if first > 0 {
			<-tick.C
		}
		for w := range s.Workers {
			wg.Go(func() { p.request(clients(w), first+w) })
		}
	}
	wg.Wait()
}

func (p *play) over() bool { return time.Since(p.begin) > p.stage.Scenario.Cap }

// clients returns the client of each worker.
func (p *play) clients() func(worker int) Client {
	m := p.stage.maker
	if m.kind == PerRequest {
		return func(int) Client { return m.client() }
	}
	var cs []Client
	for range p.stage.Scenario.Clients {
		cs = append(cs, m.client())
	}
	return func(worker int) Client { return cs[worker%len(cs)] }
}

func (p *play) request(c Client, i int) {
	start := time.Now()
	err := p.stage.Get(context.Background(), c, i)
	took := time.Since(start)

	p.mu.Lock()
	defer p.mu.Unlock()
	p.load.Requests++
	p.load.Took = append(p.load.Took, took)
	if err == nil {
		p.load.OK++
		return
	}
	p.load.Failed++
	if p.load.Error == nil {
		p.load.Error = err
	}
}

// Get is request i of the scenario.
func (st *Stage) Get(ctx context.Context, c Client, i int) error {
	ctx, cancel := context.WithTimeout(ctx, st.Scenario.Deadline)
	defer cancel()
	return c.Get(ctx, fmt.Sprintf("http://name%d.origin.test/", i%st.Scenario.Names))
}

// Booked is how many flows the ledger has booked since its account was last
// empty. Without any, a lab has measured something else than natwise.
func (st *Stage) Booked() int {
	n := 0
	for _, a := range st.Ledger.Accounts() {
		n += int(a.Opened + a.Failed)
	}
	return n
}

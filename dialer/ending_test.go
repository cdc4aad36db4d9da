package dialer_test

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestEveryEndingIsHeldForItsTime(t *testing.T) {
	const s, none = time.Second, time.Duration(0)
	type holds [keepalive.Hows]time.Duration
	for _, test := range []struct {
		path netpath.Profile
		holds
		unsure time.Duration
	}{
		{netpath.AzureAppService(), holds{
			keepalive.FINByUs: 240 * s, keepalive.FINByPeer: 240 * s, keepalive.RSTByUs: 15 * s, keepalive.RSTByPeer: 15 * s,
			keepalive.TimedOut: 240 * s, keepalive.Refused: 15 * s, keepalive.Unanswered: 240 * s, keepalive.Forgotten: none,
		}, 240 * s},
		{netpath.AzureNATGateway(1), holds{
			keepalive.FINByUs: 65 * s, keepalive.FINByPeer: 65 * s, keepalive.RSTByUs: 16 * s, keepalive.RSTByPeer: 16 * s,
			keepalive.TimedOut: 240 * s, keepalive.Refused: 16 * s, keepalive.Unanswered: 30 * s, keepalive.Forgotten: 240 * s,
		}, 240 * s}, // what it holds after an idle-out is unknown: 240 s
		{netpath.OpenBSDPF(), holds{
			keepalive.FINByUs: 45 * s, keepalive.FINByPeer: 45 * s, keepalive.RSTByUs: 90 * s, keepalive.RSTByPeer: 90 * s,
			keepalive.TimedOut: 90 * s, keepalive.Refused: 90 * s, keepalive.Unanswered: 120 * s, keepalive.Forgotten: none,
		}, 90 * s},
		{netpath.Profile{}, holds{ // Unknown
			240 * s, 240 * s, 240 * s, 240 * s, 240 * s, 240 * s, 240 * s, 240 * s,
		}, 240 * s},
	} {
		for how := range keepalive.Hows {
			for _, e := range []keepalive.Ending{{How: how}, {How: how, Unsure: true}, {How: how, Lost: true}} {
				want := test.holds[how]
				if e.Unsure {
					want = test.unsure
				}
				if want > 0 {
					want += margin
				}
				label := test.path.Name + " " + how.String()
				if e.Unsure {
					label += " unsure"
				} else if e.Lost {
					label += " lost"
				}
				t.Run(label, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						if got := heldAfter(t, test.path, e); got != want {
							t.Errorf("held for %v, want %v", got, want)
						}
					})
				})
			}
		}
	}
}

// heldAfter returns for how long a ledger holds the port of a flow that ended
// so: until the next in the queue, to whom it is due, has it.
func heldAfter(t *testing.T, path netpath.Profile, e keepalive.Ending) time.Duration {
	t.Helper()
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: 1}}
	l := &dialer.Ledger{Path: path, Ramp: -1, MaxWait: -1}
	dst := netip.MustParseAddrPort(server)
	b, err := l.Book(t.Context(), t, dst)
	if err != nil {
		t.Fatal(err)
	}
	b.End(e)
	start := time.Now()
	if as := l.Accounts(); len(as) == 1 && (as[0].Cooling[e.How] != 1 || as[0].Opened != 1) {
		t.Errorf("got %v", as)
	}
	next, err := l.Book(t.Context(), t, dst)
	if err != nil {
		t.Fatal(err)
	}
	took := waited(start)
	next.Drop()
	if as := l.Accounts(); len(as) > 0 {
		t.Errorf("left behind: %v", as)
	}
	return took
}

func TestEndSoonestDoesWhatFreesThePortSoonest(t *testing.T) {
	for _, test := range []struct {
		path netpath.Profile
		want keepalive.How
		hold time.Duration
	}{
		{netpath.AzureAppService(), keepalive.RSTByUs, 15 * time.Second},
		{netpath.AzureNATGateway(1), keepalive.RSTByUs, 16 * time.Second},
		{netpath.OpenBSDPF(), keepalive.FINByUs, 45 * time.Second},
	} {
		t.Run(test.path.Name, func(t *testing.T) {
			test.path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: 1}} // scarce
			onPath(t, test.path, func(t *testing.T, lab *lab) {
				lab.serve(server)
				c := lab.dial(lab.dialer(), server)
				c.EndSoonest()
				c.Close()
				synctest.Wait()
				if a := lab.account(server); a.Cooling[test.want] != 1 || a.NextFree != test.hold+margin {
					t.Errorf("got %v, want %v", a, test.want)
				}
				lab.fits()
			})
		})
	}
}

func TestEndSoonestIsOrderlyWherePortsAreNotScarce(t *testing.T) {
	inLab(t, 10, func(t *testing.T, lab *lab) {
		lab.serve(server)
		c := lab.dial(lab.dialer(), server)
		c.EndSoonest()
		c.Close()
		if a := lab.account(server); a.Cooling[keepalive.FINByUs] != 1 {
			t.Errorf("got %v", a)
		}
	})
}

func TestTheLedgerHoldsWhatTheNATHolds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(c *dialer.Conn, far resettable)
		want keepalive.Ending
	}{
		{"our FIN", func(c *dialer.Conn, _ resettable) {}, keepalive.Ending{How: keepalive.FINByUs}},
		{"the server's FIN", func(c *dialer.Conn, far resettable) {
			far.Close()
			c.Read(make([]byte, 1))
		}, keepalive.Ending{How: keepalive.FINByPeer}},
		{"our RST", func(c *dialer.Conn, _ resettable) { c.Asked() }, keepalive.Ending{How: keepalive.RSTByUs}},
		{"the server's RST", func(c *dialer.Conn, far resettable) {
			far.SetLinger(0)
			far.Close()
			c.Read(make([]byte, 1))
		}, keepalive.Ending{How: keepalive.RSTByPeer}},
		{"our FIN, then the server's RST", func(c *dialer.Conn, far resettable) {
			c.CloseWrite()
			far.SetLinger(0)
			far.Close()
			c.Read(make([]byte, 1))
		}, keepalive.Ending{How: keepalive.RSTByPeer, Unsure: true}},
		{"an idle-out", func(c *dialer.Conn, _ resettable) { time.Sleep(241 * time.Second) }, keepalive.Ending{How: keepalive.Forgotten}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inLab(t, 1, func(t *testing.T, lab *lab) {
				ln, err := lab.net.Listen(server)
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				d := lab.dialer()
				d.Plan.Idle = -1 // no probes
				var got keepalive.Ending
				d.Observe = func(e dialer.Event) {
					if e.Kind == dialer.Ended {
						got = e.Ending
					}
				}
				c := lab.dial(d, server)
				far, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer far.Close()
				test.end(c, far.(resettable))
				c.Close()
				synctest.Wait()
				if got != test.want {
					t.Errorf("ended as %v %+v, want %v", got.How, got, test.want.How)
				}
				for end := time.Now().Add(250 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
					lab.fits()
				}
			})
		})
	}
}

type resettable interface {
	Close() error
	SetLinger(int) error
}

func TestAnEventTellsOfEachStep(t *testing.T) {
	inLab(t, 1, func(t *testing.T, lab *lab) {
		lab.serve(server)
		d := lab.dialer()
		var mu sync.Mutex // guards got
		var got []dialer.EventKind
		d.Observe = func(e dialer.Event) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e.Kind)
		}
		c := lab.dial(d, server)
		time.AfterFunc(time.Second, func() { c.Close() })
		lab.ledger.MaxWait = -1
		lab.dial(d, server).Close()
		d.DialContext(t.Context(), "tcp", first) // nobody there
		want := []dialer.EventKind{dialer.Opened, dialer.Ended, dialer.Waited, dialer.Opened, dialer.Ended, dialer.Failed}
		if len(got) != len(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("event %d is %v, want %v", i, got[i], want[i])
			}
		}
	})
}

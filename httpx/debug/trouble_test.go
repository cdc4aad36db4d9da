package debug_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A trouble is what is looked at of one.
type trouble struct {
	Destination, Name, Verdict, What, Evidence string
	Do                                         string `json:"what_to_do"`
	Dials                                      int
	Since                                      int64 `json:"since_ms"`
	Last                                       int64 `json:"last_ms"`
}

func TestWhatIsWrongStandsWithItsDestination(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		l.names["partner.example"] = "20.7.7.7"
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		l.net.BlackHole("20.7.7.7:8443")
		l.fail("partner.example:8443")
		since := time.Now()
		time.Sleep(30 * time.Second)
		l.fail("partner.example:8443")
		l.fail("partner.example:8443")
		last := time.Now().UnixMilli()
		time.Sleep(5 * time.Second)
		s := l.table()
		if r := s.row("20.1.2.3:443"); r.Trouble != nil {
			t.Errorf("where nothing is wrong: %+v", *r.Trouble)
		}
		switch got := s.row("20.7.7.7:8443").Trouble; {
		case got == nil:
			t.Error("a black hole is not shown")
		case got.Verdict != "path-down" || got.Dials != 3 || got.Name != "partner.example:8443" || got.Destination != "20.7.7.7:8443" || got.Last != last || got.Since != since.UnixMilli():
			t.Errorf("%+v", *got)
		case !strings.Contains(got.What, "vanish") || !strings.Contains(got.Do, "firewalls") || !strings.Contains(got.Evidence, "SYNs not answered"):
			t.Errorf("%+v", *got)
		}
		if len(s.Troubles) > 0 {
			t.Errorf("also: %+v", s.Troubles)
		}
		for _, query := range []string{"?format=text", "?format=text&destination=20.7.7.7:8443"} {
			text := l.get(query).Body.String()
			if !regexp.MustCompile(`(?m)^partner.example:8443 20.7.7.7:8443: path-down, 3 dials failed in 50(\.\d)?s, the last 5.3s ago$`).MatchString(text) {
				t.Errorf("%s says\n%s", query, text)
			}
		}

		l.net.Heal("20.7.7.7:8443")
		l.raw("20.7.7.7:8443")
		time.Sleep(time.Minute)
		l.dial("partner.example:8443")
		if got := l.table().row("20.7.7.7:8443"); got.Trouble != nil || got.Ports.Active != 1 {
			t.Errorf("after a dial that worked: %+v", got)
		}
	})
}

func TestWhatHasNoRowIsShownToo(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		l.names["inside.example"] = "10.0.0.9"
		l.fail("inside.example:80")
		time.Sleep(time.Second)
		l.fail("typo.exmaple:443")
		s := l.table()
		var got []string
		for _, w := range s.Troubles {
			got = append(got, strings.Join([]string{w.Name, w.Destination, w.Verdict}, " "))
		}
		if want := []string{"typo.exmaple:443  dns", "inside.example:80 10.0.0.9:80 peer-down"}; !slices.Equal(got, want) || len(s.Rows) != 0 {
			t.Errorf("%q and %d rows, want %q", got, len(s.Rows), want)
		}
		text := l.get("?format=text").Body.String()
		for _, line := range []string{"typo.exmaple:443 -: dns, one dial failed 300ms ago", "inside.example:80 10.0.0.9:80: peer-down, one dial failed 1.3s ago"} {
			if !strings.Contains(text, line) {
				t.Errorf("the text does not say %q:\n%s", line, text)
			}
		}
	})
}

func TestATroubleOfOneSourceStandsWithThatOne(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	path := netpath.Profile{Exempt: netpath.NoExempt(), Limits: []netpath.Limit{{Scope: netpath.SourceDestination, N: 100}}}
	l := &dialer.Ledger{Path: path, Ramp: -1}
	from := func(last byte) *dialer.Dialer {
		return &dialer.Dialer{Ledger: l, Sources: []dialer.Source{{Addr: netip.AddrFrom4([4]byte{127, 0, 0, last})}}}
	}
	for _, d := range []*dialer.Dialer{from(2), from(3)} {
		c, err := d.DialContext(t.Context(), "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	ln.Close()
	if c, err := from(3).DialContext(t.Context(), "tcp", at); err == nil {
		c.Close()
		t.Error("nobody listens, and it could be dialed")
	}
	page := &debug.Page{Ledger: l}
	defer page.Close()
	s := tableOf(t, get(t, page, "/?format=json").Body.Bytes())
	if w := s.row(at + " from 127.0.0.3").Trouble; w == nil || w.Verdict != "peer-down" || w.Destination != at+" from 127.0.0.3" {
		t.Errorf("below the row of the source that was refused: %+v", w)
	}
	if w := s.row(at + " from 127.0.0.2").Trouble; w != nil {
		t.Errorf("below that of the other: %+v", *w)
	}
	if len(s.Troubles) > 0 {
		t.Errorf("elsewhere: %+v", s.Troubles)
	}
}

func TestANameThatHasNoAddressIsNoCommandForATerminal(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		l.fail("\x1bred\nand more.example:443")
		text := l.get("?format=text").Body.String()
		if !strings.Contains(text, "\ufffdred\ufffdand more.example:443 -: dns") || strings.Contains(text, "\x1b") {
			t.Errorf("the text is %q", text)
		}
	})
}

func TestEachVerdictHasWordsAndAdvice(t *testing.T) {
	said := make(map[string]dialer.Verdict)
	for v := dialer.Unknown; v <= dialer.DNS; v++ {
		what, do := debug.Told(dialer.Diagnosis{Verdict: v, Dials: 1})
		for _, words := range []string{what, do} {
			if other, taken := said[words]; taken || !strings.HasSuffix(words, ".") {
				t.Errorf("%v: %q, which is also said of %v", v, words, other)
			}
			said[words] = v
		}
	}
	what, do := debug.Told(dialer.Diagnosis{Verdict: dialer.Hairpin})
	if _, failed := said[what]; failed || !strings.Contains(what, "Another source port has got through") || !strings.Contains(do, "Dialer.Hairpin") {
		t.Errorf("of a hairpin that was helped: %q, %q", what, do)
	}
}

func TestADialThatTheLedgerRefusedIsInTroubleForWantOfAPort(t *testing.T) {
	inLab(t, azure(2), func(l *lab) {
		l.ledger.MaxWait = time.Second
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		l.fail("20.1.2.3:443")
		got := l.table().row("20.1.2.3:443").Trouble
		if got == nil {
			t.Fatal("nothing is said of it")
		}
		if got.Verdict != "exhausted" || !strings.Contains(got.What, "all that this process may take are taken") || !strings.Contains(got.Evidence, "2 of 2 ports taken") {
			t.Errorf("%+v", *got)
		}
		if !strings.Contains(got.Do, "A server that takes no more connections for a moment looks the same.") {
			t.Errorf("it is too sure: %s", got.Do)
		}
	})
}

func TestDialsThatFailedAtOnceDidSoInNoTime(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		for range 3 {
			l.fail("typo.exmaple:443")
		}
		if text := l.get("?format=text").Body.String(); !strings.Contains(text, "dns, 3 dials failed, the last ") {
			t.Errorf("the text says\n%s", text)
		}
	})
}

func TestAnEventOfAVerdictSaysWhatItMeans(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		l.dialer.Dial = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}
		}
		l.fail("20.1.2.3:443")
		what, _ := debug.Told(dialer.Diagnosis{Verdict: dialer.LocalPorts})
		s := l.table()
		if len(s.Events) != 1 || s.Events[0].Kind != "local-ports" || s.Events[0].About != "20.1.2.3:443" || s.Events[0].Text != what {
			t.Errorf("%+v", s.Events)
		}
	})
}

// In real time, since connections in memory cannot be asked whether they live.
func TestALimitThatWasLearnedIsShownAsThat(t *testing.T) {
	const has, says = 12, 32 // ports
	l, at := crowded(t, has, says)
	page := &debug.Page{Ledger: l}
	defer page.Close()
	r := tableOf(t, get(t, page, "/?format=json").Body.Bytes()).row(at)
	if r.Ports.Limit == nil || *r.Ports.Limit != has || r.LimitFrom != "learned" {
		t.Errorf("%+v, a limit that is %s", r.Ports, r.LimitFrom)
	}
	if r.Trouble == nil || r.Trouble.Verdict != "exhausted" || !strings.Contains(r.Trouble.Evidence, "12 ports held") {
		t.Errorf("%+v", r.Trouble)
	}
	if text := get(t, page, "/?format=text").Body.String(); !strings.Contains(text, "limit 12 learned") {
		t.Errorf("the text says\n%s", text)
	}
}

// crowded returns a ledger that has met the end of a NAT's ports, of which there are fewer
// than its path says, and the destination.
func crowded(t *testing.T, has, says int) (l *dialer.Ledger, destination string) {
	t.Helper()
	path := func(n int) netpath.Profile {
		p := netpath.AzureLoadBalancer(n)
		p.Exempt = netpath.NoExempt()
		return p
	}
	l = &dialer.Ledger{Path: path(says), Ramp: -1}
	d := &dialer.Dialer{Ledger: l, Dial: (&fauxnat.NAT{Path: path(has)}).DialContext}
	near, elsewhere := listenFor(t, "127.0.0.1:0"), listenFor(t, "127.0.0.2:0")
	for _, at := range append(slices.Repeat([]netip.AddrPort{near}, has), elsewhere, elsewhere) {
		c, err := d.DialContext(t.Context(), "tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	d.Observe = func(e dialer.Event) {
		if e.Kind == dialer.Failed {
			cancel() // or it would wait for a port
		}
	}
	if c, err := d.DialContext(ctx, "tcp", near.String()); err == nil {
		c.Close()
		t.Error("there is a port more than there are")
	}
	return l, near.String()
}

// listenFor accepts connections, and says nothing on them.
func listenFor(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/memnet"
	"github.com/natwise/natwise/keepalive/netpath"
)

const target = "20.1.2.3:9000"

// path is a path through a NAT with 8 ports, as Azure's load balancer otherwise.
func path(idle time.Duration, then netpath.IdleAction) netpath.Profile {
	p := netpath.AzureLoadBalancer(8)
	p.Idle, p.AtIdle = idle, then
	return p
}

func TestTheMemoryOfAPathInVirtualTime(t *testing.T) {
	for _, test := range []struct {
		remembers time.Duration
		then      netpath.IdleAction
		flags     []string
		takes     time.Duration
	}{
		{240 * time.Second, netpath.Drop, nil, 17 * time.Minute},
		{240 * time.Second, netpath.Drop, []string{"-parallel", "1"}, 50 * time.Minute},
		{240 * time.Second, netpath.Drop, []string{"-parallel", "3"}, 30 * time.Minute},
		{350 * time.Second, netpath.ResetNext, nil, 24 * time.Minute},
		{100 * time.Second, netpath.ResetBoth, nil, 8 * time.Minute},
		{30 * time.Second, netpath.Drop, []string{"-max", "100s"}, 2 * time.Minute},
	} {
		t.Run(fmt.Sprint(test.remembers, test.then, test.flags), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := path(test.remembers, test.then)
				path.Limits = nil
				p, nat := inMemory(t, path)
				start := time.Now()
				got := p.measure(t.Context(), 0, append(test.flags, target)...)["idle"]
				took := time.Since(start)
				wantBracket(t, got, test.remembers, 0, 0)
				wantNarrow(t, got)
				if got.Then != test.then.String() || took > test.takes {
					t.Errorf("got %+v after %v, want %v within %v", got, took, test.then, test.takes)
				}
				if *got.Certified {
					t.Error("there is no kernel here to certify anything")
				}
				if opened := nat.Stats().Opened; opened == 0 || got.Connections > opened {
					t.Errorf("%d connections of %d that the NAT saw", got.Connections, opened)
				}
				t.Logf("%v, %d connections, at most %d ports: %v to %v", took, got.Connections, nat.Stats().Peak, *got.AtLeast, *got.AtMost)
			})
		})
	}
}

func TestAPathThatNeverForgetsIsKnownUpToTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := path(netpath.None, netpath.Drop)
		path.Limits = nil
		p, _ := inMemory(t, path)
		results := p.measure(t.Context(), 0, "-max", "10m", target)
		if got := results["idle"]; got.Status != statusOK || *got.AtLeast != 600 || got.AtMost != nil {
			t.Errorf("got %+v", got)
		}
		if got := results["profile"].Profile; !strings.Contains(got, "Idle:   600 * time.Second, // remembers for 10m0s and more") {
			t.Errorf("got %s", got)
		}
	})
}

func TestAServerThatClosesIsNotThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, netpath.Profile{Idle: netpath.None}, "-max", "1m") // closes after 2 min
		results := p.measure(t.Context(), 0, "-max", "10m", target)
		got := results["idle"]
		if *got.AtLeast < 95 || *got.AtMost != 120 || got.Then != "close" {
			t.Errorf("got %+v", got)
		}
		if got := results["profile"].Profile; !strings.Contains(got, "AtIdle: netpath.Close") {
			t.Errorf("got %s", got)
		}
	})
}

func TestPortsAndHoldsInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		azure := path(240*time.Second, netpath.Drop) // FIN 240 s, RST 15 s
		p, nat := inMemory(t, azure)
		results := p.measure(t.Context(), 1, "-ports", "-holds", "-yes", target)
		if got := results["ports"]; got.Ports != 8 || got.More || got.Status != statusOK {
			t.Errorf("got %+v", got)
		}
		wantBracket(t, results[holdFIN], azure.Hold.FIN, 0, 0)
		wantNarrow(t, results[holdFIN])
		wantBracket(t, results[holdRST], azure.Hold.RST, 0, 0)
		wantNarrow(t, results[holdRST])
		if got := results[holdSYN]; got.Status != statusMissed || !strings.Contains(got.Why, "cannot be mute") {
			t.Errorf("got %+v", got)
		}
		if got := results["profile"]; got.Status != statusMissed || !strings.Contains(got.Profile, "N: 8") {
			t.Errorf("got %+v", got)
		}
		if peak := nat.Stats().Peak; peak != 8 {
			t.Errorf("the NAT saw %d ports", peak)
		}
	})
}

func TestPortsThenTheMemoryThroughFewPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, path(60*time.Second, netpath.Drop))
		results := p.measure(t.Context(), 0, "-ports", "-idle", "-yes", "-max", "2m", target)
		wantBracket(t, results["idle"], 60*time.Second, 0, 0)
		wantNarrow(t, results["idle"])
	})
}

func TestPeopleGetATableAndAProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, path(240*time.Second, netpath.ResetNext))
		if status := run(t.Context(), []string{"-holds", "-yes", target}, p.world); status != 1 { // nobody can be mute here
			t.Errorf("status %d", status)
		}
		for _, want := range []string{
			"ports     8 connections at a time\n",
			"hold-fin  the port is taken for 3m",
			"hold-rst  the port is taken for 14.9s to 15.4s",
			"hold-syn  missed: the server cannot be mute",
			"\n\nnetpath.Profile{\n",
			"Limits: []netpath.Limit{{Scope: netpath.Destination, N: 8}}, // to this address and port",
		} {
			if !strings.Contains(p.out.String(), want) {
				t.Errorf("no %q in\n%s", want, &p.out)
			}
		}
	})
}

func TestMorePortsThanMayBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, nat := inMemory(t, path(240*time.Second, netpath.Drop))
		results := p.measure(t.Context(), 1, "-holds", "-yes", "-max-ports", "5", target)
		if got := results["ports"]; got.Ports != 5 || !got.More || got.Status != statusOK {
			t.Errorf("got %+v", got)
		}
		if got := results[holdFIN]; got.Status != statusSkipped || got.Why != "the ports were not exhausted" {
			t.Errorf("got %+v", got)
		}
		if peak := nat.Stats().Peak; peak != 5 {
			t.Errorf("the NAT saw %d ports", peak)
		}
	})
}

func TestAFullServerIsNotAFullPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := inMemory(t, path(240*time.Second, netpath.Drop), "-connections", "3")
		got := p.measure(t.Context(), 1, "-ports", "-yes", target)["ports"]
		if got.Status != statusMissed || got.Ports != 3 || got.Why != errFull.Error() {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAnInterruptedSearchTellsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := path(240*time.Second, netpath.Drop)
		path.Limits = nil
		p, _ := inMemory(t, path)
		interrupted := errors.New("interrupt signal received") // as os/signal says
		ctx, cancel := context.WithTimeoutCause(t.Context(), 6*time.Minute, interrupted)
		defer cancel()
		start := time.Now()
		results := p.measure(ctx, 1, target)
		got := results["idle"]
		if got.Status != statusMissed || got.Why != interrupted.Error() || *got.AtLeast < 100 || *got.AtLeast > 240 {
			t.Errorf("got %+v", got)
		}
		if got := results["profile"].Profile; !strings.Contains(got, "Idle: ") {
			t.Errorf("got %s", got)
		}
		if took := time.Since(start); took > 6*time.Minute+time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}

// An outage is neither the path's memory nor a lack of ports.
func TestAnOutageTeachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		w := world{
			dial:   network.DialContext,
			listen: func(_ context.Context, address string) (net.Listener, error) { return network.Listen(address) },
		}
		p := withServer(t, w, target)
		at := netip.MustParseAddrPort(target)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			time.Sleep(30 * time.Second)
			network.BlackHole(at.String())
			<-ctx.Done()
			network.Heal(at.String())
		}()
		got := p.measure(ctx, 1, "-max", "2m", target)["idle"]
		if got.Status != statusMissed || got.AtMost != nil || *got.AtLeast > 30 {
			t.Errorf("got %+v", got)
		}
		if !strings.Contains(got.Why, "no answer") {
			t.Errorf("the reason is %q", got.Why)
		}
	})
}

func TestPortsAreNotTakenWithoutYes(t *testing.T) {
	for _, flag := range []string{"-ports", "-holds"} {
		var out, errs text
		w := world{out: &out, errs: &errs, dial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("it dialed")
			return nil, io.ErrUnexpectedEOF
		}}
		if status := run(t.Context(), []string{flag, "-max-ports", "99", target}, w); status != 2 {
			t.Errorf("%s: status %d", flag, status)
		}
		for _, want := range []string{"up to 99 connections at a time", "no other program", "-yes"} {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%s: no %q in\n%s", flag, want, &errs)
			}
		}
		if out.String() != "" {
			t.Errorf("%s: %q on the standard output", flag, &out)
		}
	}
}

func TestTheCostIsSaidBeforeTheFirstConnection(t *testing.T) {
	var out, errs text
	w := world{out: &out, errs: &errs, dial: func(context.Context, string, string) (net.Conn, error) {
		for _, want := range []string{"up to 10 connections at a time", "about 21 ports", "about 16m0s if", "ends after 2h5m0s at the latest"} {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("no %q in\n%s", want, &errs)
			}
		}
		return nil, errors.New("no network")
	}}
	if status := run(t.Context(), []string{target}, w); status != 1 || !strings.Contains(out.String(), "no network") {
		t.Errorf("status %d, %s", status, &out)
	}
}

func TestBadArguments(t *testing.T) {
	for args, want := range map[string]string{
		"":                         "HOST:PORT is missing",
		"a:1 b:2":                  `unexpected argument "b:2"`,
		"-serve :1 a:2":            "-serve :1 and the target a:2",
		"-max 1ms a:1":             "-max 1ms: must be within 1s and 24h0m0s",
		"-max 1000h a:1":           "-max 1000h0m0s",
		"-parallel 0 a:1":          "-parallel 0: must be within 1 and 64",
		"-max-ports 70000 a:1":     "-max-ports 70000",
		"-connections 0 -serve :1": "-connections 0",
		"-prots a:1":               "-prots",
	} {
		var out, errs text
		if status := run(t.Context(), strings.Fields(args), world{out: &out, errs: &errs}); status != 2 {
			t.Errorf("%q: status %d", args, status)
		}
		if !strings.Contains(errs.String(), want) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: got %q, want %q", args, &errs, want)
		}
	}
}

func TestAnAddressThatIsNone(t *testing.T) {
	for _, target := range []string{"a.example", "20.1.2.3:nonsense"} {
		var out, errs text
		if status := run(t.Context(), []string{target}, world{out: &out, errs: &errs}); status != 1 || errs.String() == "" {
			t.Errorf("%q: status %d, %q", target, status, &errs)
		}
	}
}

func TestOneAddressOfANameIsMeasured(t *testing.T) {
	var out, errs text
	w := world{out: &out, errs: &errs,
		lookup: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("20.1.2.3"), netip.MustParseAddr("20.1.2.4")}, nil
		},
		dial: func(_ context.Context, _, address string) (net.Conn, error) {
			if address != target {
				t.Errorf("it dialed %s", address)
			}
			return nil, errors.New("no network")
		}}
	run(t.Context(), []string{"two.example:9000"}, w)
	if !strings.Contains(errs.String(), "The path to 20.1.2.3:9000, the first of 2 addresses.") {
		t.Errorf("got %s", &errs)
	}
}

func TestWhatIsNoEchoServerIsRefused(t *testing.T) {
	web := func(ctx context.Context, address string) (net.Listener, error) {
		ln, err := listen(ctx, address)
		return chatty{ln}, err
	}
	p, target := onLoopback(t, web)
	got := p.measure(t.Context(), 1, "-max", "1s", target)["idle"]
	if !strings.Contains(got.Why, "this is no echo server") {
		t.Errorf("got %+v", got)
	}
}

// chatty connections begin with a line of their own.
type chatty struct{ net.Listener }

func (l chatty) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		io.WriteString(c, "220 welcome\n")
	}
	return c, err
}

func TestTheServerEndsAConnectionAtALineThatIsTooLong(t *testing.T) {
	p, target := onLoopback(t, listen)
	c, err := p.dial(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(c, "hello")
	if line, err := bufio.NewReader(io.LimitReader(c, 6)).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
	fmt.Fprint(c, strings.Repeat("x", 4*maxLine))
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		t.Errorf("got %q", rest)
	}
}

func TestTheProfileIsGo(t *testing.T) {
	r := &report{prober: &prober{dest: netip.MustParseAddrPort(target)}}
	r.path.Idle = 3750 * time.Millisecond
	r.note("Idle", "forgets after 3.75s to 4s of silence")
	r.path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: 8}}
	r.path.AtIdle = netpath.ResetNext
	r.path.Hold = netpath.Hold{FIN: 240 * time.Second, RST: netpath.None}
	r.path.Name, r.path.Source = "measured", `pathprobe "here"`
	const want = `netpath.Profile{
	Name:   "measured",
	Source: "pathprobe \"here\"",
	Grade:  netpath.Measured,
	Limits: []netpath.Limit{{Scope: netpath.Destination, N: 8}},
	Idle:   3750 * time.Millisecond, // forgets after 3.75s to 4s of silence
	AtIdle: netpath.ResetNext,
	Hold:   netpath.Hold{FIN: 240 * time.Second, RST: netpath.None},
}
`
	got := r.inGo()
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	compile(t, got)
	compile(t, (&report{}).inGo())
}

// compile wants text to be an expression of netpath's.
func compile(t *testing.T, text string) {
	t.Helper()
	files := token.NewFileSet()
	source := "package p\n\nimport (\n\t\"time\"\n\n\t\"github.com/natwise/natwise/keepalive/netpath\"\n)\n\nvar _ time.Duration\n\nvar _ = " + text
	file, err := parser.ParseFile(files, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	config := types.Config{Importer: importer.ForCompiler(files, "source", nil)}
	if _, err := config.Check("p", files, []*ast.File{file}, nil); err != nil {
		t.Errorf("%v in\n%s", err, source)
	}
}

func TestMeasuredTimesAreRoundedToTheSafeSide(t *testing.T) {
	for _, test := range []struct{ d, floor, ceil time.Duration }{
		{3754 * time.Millisecond, 3750 * time.Millisecond, 3760 * time.Millisecond},
		{15_070 * time.Millisecond, 15 * time.Second, 15_100 * time.Millisecond},
		{239_900 * time.Millisecond, 239 * time.Second, 240 * time.Second},
		{240 * time.Second, 240 * time.Second, 240 * time.Second},
	} {
		if floor(test.d) != test.floor || ceil(test.d) != test.ceil {
			t.Errorf("%v: %v and %v", test.d, floor(test.d), ceil(test.d))
		}
	}
}

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// TestMain is a client where it is started as one, and fails if a goroutine outlives the tests.
func TestMain(m *testing.M) {
	if os.Getenv(clientEnv) != "" {
		os.Exit(beClient(os.Stdin, os.Stdout))
	}
	os.Exit(leak.Check(func() int { return natlab.Main(m) }))
}

func TestBadArgumentsAreNamed(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-only nowhere", `no scenario "nowhere"`},
		{"-fast", "-fast"},
		{"host", `unexpected argument "host"`},
	} {
		var out, errs bytes.Buffer
		if status := command.Run(strings.Fields(c.args), &out, &errs); status != 2 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%s: status %d, %q", c.args, status, errs.String())
		}
	}
}

// printed is what the command would print of a play, and its status.
func printed(t *testing.T, play func(r *work.Report) error) (ms []work.Measurement, status int) {
	t.Helper()
	c := work.Command{Name: "fleet", Peer: notShared, Acts: []work.Act{{Name: "host", Alone: true, Play: play}}}
	var out bytes.Buffer
	status = c.Run([]string{"-json"}, &out, io.Discard)
	for in := json.NewDecoder(&out); in.More(); {
		var m work.Measurement
		if err := in.Decode(&m); err != nil {
			t.Fatal(err)
		}
		ms = append(ms, m)
	}
	return ms, status
}

func TestWhatIsAskedOfProcessesThatShare(t *testing.T) {
	for figure, spoil := range map[string]func(*outcome){
		"":                                     func(*outcome) {},
		"ports taken at a time":                func(o *outcome) { o.peak = hostPorts + 1 },
		"SYNs refused":                         func(o *outcome) { o.refused = 1 },
		"a process had less than 8 ports, for": func(o *outcome) { o.below = starved + time.Millisecond },
	} {
		o := outcome{peak: hostPorts, lasted: time.Second}
		spoil(&o)
		ms, status := printed(t, func(r *work.Report) error {
			o.note(r, shared, &outcome{lasted: time.Second})
			return nil
		})
		if (status == 0) != (figure == "") {
			t.Errorf("%q: status %d", figure, status)
		}
		for _, m := range ms {
			if (m.Status == work.Missed) != (m.Figure == figure) {
				t.Errorf("%q is spoiled, and %q is %s", figure, m.Figure, m.Status)
			}
		}
	}
}

// sights are what was seen of two processes, every 10 ms.
func sights(parts ...[2]int) (all []sight) {
	begin := time.Now()
	for i, n := range parts {
		all = append(all, sight{
			at: begin.Add(time.Duration(i) * 10 * time.Millisecond), taken: n[0] + n[1] + 1,
			by: map[netip.Addr]int{first: n[0], second: n[1]},
		})
	}
	return all
}

var first, second = netip.MustParseAddr("10.78.1.2"), netip.MustParseAddr("10.78.1.3")

func TestWhatWasSeenOfTwo(t *testing.T) {
	seen := sights([2]int{9, 1}, [2]int{7, 3}, [2]int{7, 3}, [2]int{7, 3}, [2]int{9, 1}, [2]int{7, 2})
	if got := below(seen, first, 8); got != 20*time.Millisecond {
		t.Errorf("the first had less than 8 for %v", got)
	}
	if got := below(seen, second, 8); got != 50*time.Millisecond {
		t.Errorf("the second had less than 8 for %v", got)
	}
	if got := peak(seen); got != 11 {
		t.Errorf("%d taken, one of them by the dead", got)
	}
	if got := seen[0].living(); got != 10 {
		t.Errorf("%d taken by the living", got)
	}
	if got := fmt.Sprintf("%.2f", shares(seen, []netip.Addr{first, second})); got != "[2.17 7.67]" {
		t.Errorf("shares %s", got)
	}
}

// needStage is a stage on so many ports, whose gateway refuses whoever wants more.
func needStage(t *testing.T, ports, processes int) *stage {
	t.Helper()
	natlab.Need(t, natlab.Config{}) // or skip
	st, err := open(path(ports, work.Path().Idle), ports, processes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func TestTheGatewayTellsWhoHasWhichPortsAndWhoIsDead(t *testing.T) {
	st := needStage(t, 32, 2)
	role := Role{Path: st.path, Ramp: -1, Workers: 4, Service: 20 * time.Millisecond, Closes: 1000}
	if err := st.together(0, 2, role); err != nil {
		t.Fatal(err)
	}
	each := func(ports int) func(sight) bool {
		return func(s sight) bool { return s.by[st.Client(0)] == ports && s.by[st.Client(1)] == 4 }
	}
	if _, ok := st.watch.until(time.Now(), 5*time.Second, each(4)); !ok {
		t.Fatal("two processes with four workers each do not have four ports each")
	}
	mustServe(t, st.current[0], time.Time{})
	if err := st.kill(0, 1); err != nil {
		t.Fatal(err)
	}
	at, ok := st.watch.until(time.Now(), time.Second, each(0))
	if !ok {
		t.Fatal("the dead have ports")
	}
	if s := st.watch.between(at, time.Time{})[0]; s.taken != 8 {
		t.Errorf("%v, and the gateway holds the ports of the dead", s)
	}
	if err := st.leave(); err != nil {
		t.Error(err)
	}
}

// mustServe waits until a process has served something since then.
func mustServe(t *testing.T, p *process, since time.Time) {
	t.Helper()
	begin := time.Now()
	for tick := time.Tick(time.Millisecond); served([]*process{p}, since).served == 0; <-tick {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("it serves nothing")
		}
	}
}

func TestAProcessThatIsStoppedSaysAndServesNothing(t *testing.T) {
	st := needStage(t, 32, 1)
	p, err := st.begin(0, Role{Path: st.path, Ramp: -1, Workers: 4, Service: 20 * time.Millisecond, Closes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ready(); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	time.Sleep(5 * reportEvery)
	woken := time.Now()
	if err := p.wake(); err != nil {
		t.Fatal(err)
	}
	mustServe(t, p, woken)
	if got := p.thirst(begin, time.Now()); got < 4*reportEvery {
		t.Errorf("stopped for %v, it served nothing for %v", 5*reportEvery, got)
	}
}

func TestWhoDoesNotShareIsRefused(t *testing.T) {
	const ports = 16
	refused := make(map[string]int)
	for _, how := range []string{shared, notShared} {
		st := needStage(t, ports, 2)
		role := st.hostRole(how, t.TempDir())
		role.Workers, role.Closes = ports, 1_000_000 // nobody closes: the lab is late with ports that come free
		if err := st.together(0, 2, role); err != nil {
			t.Fatal(err)
		}
		st.watch.until(time.Now(), 5*time.Second, func(s sight) bool { return s.taken >= ports-2 })
		time.Sleep(time.Second)
		c, err := st.Counts()
		if err != nil {
			t.Fatal(err)
		}
		refused[how] = c.Refused
	}
	if refused[shared] != 0 || refused[notShared] == 0 {
		t.Errorf("SYNs refused: %v", refused)
	}
}

func TestTheForwarderLeadsToWhoIsInCharge(t *testing.T) {
	servers := []net.Listener{speaker(t, "first\n"), speaker(t, "second\n")}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := forward(ln, servers[0].Addr().String())
	c, said := listenTo(t, ln.Addr())
	if said != "first\n" {
		t.Errorf("said %q", said)
	}
	f.to(servers[1].Addr().String())
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("who was there already: %v", err)
	}
	if _, said := listenTo(t, ln.Addr()); said != "second\n" {
		t.Errorf("then said %q", said)
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
}

// speaker says the same to everybody, and then nothing.
func speaker(t *testing.T, says string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // until the end of the test
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, says)
		}
	}()
	return ln
}

func listenTo(t *testing.T, at net.Addr) (c net.Conn, said string) {
	t.Helper()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	said, err = bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Error(err)
	}
	return c, said
}

package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

var picture = flag.String("picture", "", "write the last frame of the figure to this `file`, as SVG")

// TestMain fails if a goroutine outlives the tests. Started under the name of a habit, it
// is a program with that habit.
func TestMain(m *testing.M) {
	if habit := habits[filepath.Base(os.Args[0])]; habit != nil {
		habit(os.Args[1])
	}
	os.Exit(leak.Check(func() int { return natlab.Main(m) }))
}

// habits are programs that use a server in a way of their own, until they are killed.
var habits = map[string]func(address string){
	"closes-each": func(address string) {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		every(60*time.Millisecond, func() { get(&client, address) })
	},
	"closes-none": func(address string) {
		every(150*time.Millisecond, func() { get(&http.Client{Transport: new(http.Transport)}, address) })
	},
	"keeps-two": func(address string) {
		client := http.Client{Transport: new(http.Transport)}
		every(time.Second, func() {
			var all sync.WaitGroup
			for range 12 {
				all.Go(func() { get(&client, address) })
			}
			all.Wait()
		})
	},
	"never-looks": func(address string) {
		var held []net.Conn
		every(150*time.Millisecond, func() { held = append(held, dial(address)) })
	},
	"is-silent": func(address string) {
		c := dial(address)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.Read(make([]byte, 1))
		select {}
	},
	"wants-more": func(address string) {
		var held []net.Conn
		every(50*time.Millisecond, func() {
			if len(held) < 24 {
				go dial(address)
				held = append(held, nil)
			}
		})
	},
	"is-healthy": func(address string) {
		client := http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: 4, MaxConnsPerHost: 4,
			DialContext: (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second}}).DialContext,
		}}
		every(100*time.Millisecond, func() {
			for range 4 {
				go get(&client, address)
			}
		})
	},
}

func every(pause time.Duration, f func()) {
	for {
		f()
		time.Sleep(pause)
	}
}

func get(client *http.Client, address string) {
	resp, err := client.Get("http://" + address)
	if err != nil {
		return
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// dial has no keepalive, and no end.
func dial(address string) net.Conn {
	c, err := (&net.Dialer{KeepAlive: -1}).Dial("tcp4", address)
	if err != nil {
		select {} // the kernel gave up, which takes two minutes
	}
	return c
}

// scaled is a path that holds and forgets faster than any real one.
func scaled(ports int, idle, fin, rst time.Duration) netpath.Profile {
	return netpath.Profile{
		Name: "scaled", Source: "this test", Grade: netpath.Measured,
		Limits: []netpath.Limit{{Scope: netpath.Destination, N: ports}},
		Idle:   idle, Hold: netpath.Hold{FIN: fin, RST: rst, SYN: 3 * time.Second, Idle: netpath.None},
	}
}

// A ward is a lab with a server, and a doctor in the client's namespace.
type ward struct {
	*natlab.Lab
	t      *testing.T
	path   netpath.Profile
	looked chan struct{} // tells whoever waits that a look is over
	out    bytes.Buffer
	term   terminal.Terminal
}

func newWard(t *testing.T, path netpath.Profile, room int) *ward {
	t.Parallel()
	return &ward{Lab: natlab.Need(t, natlab.Config{Path: path, Room: room}), t: t, path: path, looked: make(chan struct{})}
}

// serve answers requests at a port after a while.
func (w *ward) serve(port string) string {
	ln := w.listen(port)
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(120 * time.Millisecond) })}
	go srv.Serve(ln)
	w.t.Cleanup(func() { srv.Close() })
	return w.Server(0).String() + port
}

func (w *ward) listen(port string) net.Listener {
	ln, err := w.Listen(port)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ln.Close() })
	return ln
}

// start starts a program with a habit, until the test ends.
func (w *ward) start(habit, address string) {
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	name := filepath.Join(w.t.TempDir(), habit)
	if err := os.Symlink(self, name); err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		if _, err := w.Exec(ctx, "client", name, address); ctx.Err() == nil {
			w.t.Errorf("%s ended: %v", habit, err)
		}
	})
	w.t.Cleanup(ended.Wait)
	w.t.Cleanup(stop)
}

// examine runs the doctor and returns its status.
func (w *ward) examine(args ...string) int {
	return run(w.t.Context(), args, world{
		out: &w.out, errs: w.t.Output(), term: w.term, proc: "/proc",
		path: func(string) (pathway, error) { return newPathway(w.path, true), nil },
		open: func() (e eyes, err error) {
			err = w.Inside("client", func() error { e, err = openEyes(); return err })
			return watched{e, w.looked}, err
		},
	})
}

// watched eyes tell when they have looked.
type watched struct {
	eyes
	looked chan struct{}
}

func (w watched) look(s *sight) error {
	err := w.eyes.look(s)
	select {
	case w.looked <- struct{}{}:
	default:
	}
	return err
}

// Processes that leak in different ways at the same time, and one that does not.
func TestDoctorNamesTheProcessTheDestinationAndTheCause(t *testing.T) {
	w := newWard(t, scaled(256, time.Minute, 10*time.Second, 5*time.Second), 4096)
	api, other := w.serve(":443"), w.serve(":8443")
	hangsUp := w.listen(":5432")
	go func() {
		for {
			c, err := hangsUp.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	want := map[string]string{
		"closes-each to " + api:                            "short-lived",
		"closes-none to " + other:                          "never-closed",
		"keeps-two to " + api:                              "small-pool",
		"is-healthy to " + api:                             "",
		"never-looks to " + w.Server(0).String() + ":5432": "half-closed",
	}
	for pair := range want {
		habit, to, _ := strings.Cut(pair, " to ")
		w.start(habit, to)
	}
	args := []string{"-json", "-for", "8s", "-every", "100ms"}
	if *picture != "" {
		args = []string{"-watch", "-for", "12s", "-every", "100ms"}
		w.term = terminal.Terminal{Live: true, Colour: true, Size: func() (int, int) { return 110, 30 }}
	}
	if status := w.examine(args...); status != 1 {
		t.Errorf("status %d", status)
	}
	if *picture != "" {
		draw(t, w.out.String())
		t.Log(code.ReplaceAllString(w.out.String()[strings.LastIndex(w.out.String(), "\x1b[?1049l"):], ""))
		return
	}
	got := make(map[string]string)
	for _, u := range told[useLine](t, w.out.Bytes(), "use") {
		name, _, _ := strings.Cut(u.Process, "(")
		got[name+" to "+u.Destination] = ""
	}
	for _, f := range told[finding](t, w.out.Bytes(), "finding") {
		name, _, _ := strings.Cut(f.Process, "(")
		got[name+" to "+f.Destination] += f.Cause
		t.Logf("%s to %s: %s: %s. Change: %s", f.Process, f.Destination, f.Cause, f.What, f.Change)
		if name == "closes-each" && !strings.Contains(f.Change, "DisableKeepAlives") {
			t.Errorf("to a program in Go it says %q", f.Change)
		}
	}
	want["unknown to "+api] = got["unknown to "+api] // of those that are too short, one may be too short to see
	for pair, cause := range got {
		if c, known := want[pair]; !known || c != cause {
			t.Errorf("%s: %q, want %q", pair, cause, c)
		}
		delete(want, pair)
	}
	if delete(want, "unknown to "+api); len(want) > 0 {
		t.Errorf("not told: %v\n%s", want, &w.out)
	}
}

func TestDoctorTellsSilenceAndExhaustion(t *testing.T) {
	w := newWard(t, scaled(16, 6*time.Second, 4*time.Second, 2*time.Second), 0)
	api, small := w.serve(":443"), w.serve(":8443")
	w.start("is-silent", api)
	w.start("is-healthy", api)
	w.start("wants-more", small)
	if status := w.examine("-json", "-for", "9s", "-every", "100ms"); status != 1 {
		t.Errorf("status %d", status)
	}
	var got []string
	for _, f := range told[finding](t, w.out.Bytes(), "finding") {
		name, _, _ := strings.Cut(f.Process, "(")
		got = append(got, name+" "+f.Destination+" "+f.Cause)
		t.Logf("%s: %s: %s. Change: %s", f.Process, f.Cause, f.What, f.Change)
	}
	for _, want := range []string{"is-silent " + api + " too-silent", "wants-more " + small + " unanswered"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	for _, f := range got {
		if strings.HasPrefix(f, "is-healthy") || strings.HasPrefix(f, "is-silent") && !strings.HasSuffix(f, "too-silent") {
			t.Errorf("%q is wrong", f)
		}
	}
}

// Every way to end, compared with what the gateway's own table has.
func TestWhatIsTakenIsWhatTheGatewayHolds(t *testing.T) {
	w := newWard(t, scaled(64, time.Minute, 40*time.Second, 30*time.Second), 0)
	ln := w.listen(":443")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.examine("-json", "-for", "4s", "-every", "50ms")
	}()
	<-w.looked
	pair := func() (here, there *net.TCPConn) {
		c, err := w.Dial(t.Context(), "tcp4", netip.AddrPortFrom(w.Server(0), 443).String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn), s.(*net.TCPConn)
	}
	const each = 4
	var open []net.Conn
	for range each {
		here, there := pair() // we close first
		here.Close()
		there.Close()
		here, there = pair() // they do
		there.Close()
		io.ReadAll(here)
		here.Close()
		here, there = pair() // by a RST of ours, which clears where it went: it must have been seen
		<-w.looked
		<-w.looked // this one was begun after the one before
		here.SetLinger(0)
		here.Close()
		there.Close()
		here, there = pair() // by one of theirs
		there.SetLinger(0)
		there.Close()
		io.ReadAll(here)
		here.Close()
		here, there = pair() // not at all
		open = append(open, here, there)
	}
	<-ended
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	flows, err := w.Flows(nil)
	if err != nil {
		t.Fatal(err)
	}
	gateway := make(map[natlab.State]int)
	for _, f := range flows {
		gateway[f.State]++
	}
	uses := told[useLine](t, w.out.Bytes(), "use")
	taken, busy, cooling := 0, 0, 0
	for _, u := range uses {
		taken, busy, cooling = u.Taken, busy+u.Busy+u.Idle, cooling+u.Cooling
	}
	if taken != len(flows) || busy != gateway[natlab.Open] || cooling != gateway[natlab.Finished]+gateway[natlab.Reset] {
		t.Errorf("doctor counts %d open and %d cooling, %d in all; the gateway %v", busy, cooling, taken, gateway)
	}
	if gateway[natlab.Open] != each || gateway[natlab.Finished] != 2*each || gateway[natlab.Reset] != 2*each {
		t.Errorf("the gateway has %v", gateway)
	}
}

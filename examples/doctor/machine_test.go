package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A machine has the sockets of programs that are goroutines in virtual time, and a /proc
// of its own. It does what Linux does.
type machine struct {
	t    *testing.T
	ctx  context.Context // of the command; nil: the test's
	root string
	deaf bool // it does not tell of what is destroyed

	mu     sync.Mutex // guards the fields below
	socks  []*conn    // those in TIME_WAIT too
	gone   []sock
	made   int
	failed error // of the next look
	looks  int
	cost   time.Duration // of each look, in a processor's time
}

// A conn is a connection of a program on a machine.
type conn struct {
	sock
	on          *machine
	link        string    // among its process's files
	spoke       time.Time // when a byte passed last, either way
	asked       time.Time // when one of ours did
	closed      time.Time
	silentSince time.Time
}

var server = netip.MustParseAddrPort("198.51.100.1:443")

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, root: t.TempDir()}
	for file, text := range map[string]string{
		"sys/net/ipv4/tcp_keepalive_time":      "7200\n",
		"sys/net/ipv4/tcp_retries2":            "15\n",
		"sys/net/ipv4/ip_local_port_range":     "32768\t60999\n",
		"sys/net/netfilter/nf_conntrack_count": "250000\n",
		"sys/net/netfilter/nf_conntrack_max":   "262144\n",
		"thread-self/net/snmp":                 "Tcp: RtoMin ActiveOpens\nTcp: 200 0\n",
		"self/comm":                            "doctor\n",
	} {
		m.write(file, text)
	}
	return m
}

func (m *machine) write(file, text string) {
	m.t.Helper()
	path := filepath.Join(m.root, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// process starts a process, which does nothing yet.
func (m *machine) process(pid int, name string) {
	m.t.Helper()
	m.write(fmt.Sprint(pid, "/comm"), name+"\n")
	if err := os.MkdirAll(filepath.Join(m.root, fmt.Sprint(pid), "fd"), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// dial opens a connection of a process, in a state.
func (m *machine) dial(pid int, to netip.AddrPort, state uint8) *conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	m.write("thread-self/net/snmp", fmt.Sprintf("Tcp: RtoMin ActiveOpens\nTcp: 200 %d\n", m.made))
	c := &conn{on: m, spoke: time.Now(), asked: time.Now(), silentSince: time.Now()}
	c.sock = sock{
		local: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(20000+m.made)), remote: to,
		cookie: uint64(m.made), inode: uint32(1000 + m.made), uid: pid, state: state,
		lookedAt: true, keepalive: true, expires: 15 * time.Second, answered: true,
	}
	c.link = filepath.Join(m.root, fmt.Sprint(pid), "fd", fmt.Sprint(m.made))
	if err := os.Symlink(fmt.Sprintf("socket:[%d]", c.inode), c.link); err != nil {
		m.t.Error(err)
	}
	m.socks = append(m.socks, c)
	return c
}

// ask sends a request, and the answer comes after a while.
func (c *conn) ask(after time.Duration) {
	c.set(func() { c.spoke, c.asked, c.silentSince, c.answered = time.Now(), time.Now(), time.Now(), false })
	time.Sleep(after)
	c.set(func() { c.spoke, c.silentSince, c.answered = time.Now(), time.Now(), true })
}

func (c *conn) set(f func()) {
	c.on.mu.Lock()
	defer c.on.mu.Unlock()
	f()
}

// end ends the connection. A FIN of ours that is the first leads to TIME_WAIT.
func (c *conn) end(how ending) {
	c.set(func() {
		os.Remove(c.link)
		first := how == finished && c.state != closeWait
		gone := c.sock
		gone.state, gone.inode, gone.how = closed, 0, how
		if how == reset {
			gone.remote, gone.how = netip.AddrPort{}, unanswered // Linux clears it all
		}
		c.on.gone = append(c.on.gone, gone)
		c.closed, c.inode = time.Now(), 0
		if c.state = closed; first {
			c.state = timeWait
		}
	})
}

func (m *machine) look(s *sight) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	s.seen, s.gone = s.seen[:0], s.gone[:0]
	if !m.deaf {
		s.gone = append(s.gone, m.gone...)
	}
	m.gone = m.gone[:0]
	for _, c := range m.socks {
		k := c.sock
		k.sent = time.Since(c.asked)
		switch k.mute, k.silent = time.Since(c.spoke), time.Since(c.silentSince); k.state {
		case closed:
			continue
		case timeWait:
			if k.expires, k.uid = timeWaitFor-time.Since(c.closed), -1; k.expires <= 0 {
				continue
			}
		}
		s.seen = append(s.seen, k)
	}
	return m.failed
}

func (m *machine) tellsEnds() bool    { return !m.deaf }
func (m *machine) cpu() time.Duration { return time.Duration(m.looks) * m.cost }
func (m *machine) close()             {}

// azure is App Service, where most of this was met first.
var azure = newPathway(netpath.AzureAppService(), true)

// inVirtualTime runs a test with a machine.
func inVirtualTime(t *testing.T, f func(t *testing.T, m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newMachine(t)) })
}

// examine runs the command on the machine, and what happens meanwhile beside it.
func (m *machine) examine(path pathway, term terminal.Terminal, args string, meanwhile ...func()) (status int, out, errs string) {
	return m.examineAs(func(string) (pathway, error) { return path, nil }, term, args, meanwhile...)
}

func (m *machine) examineAs(path func(string) (pathway, error), term terminal.Terminal, args string, meanwhile ...func()) (status int, out, errs string) {
	var o, e bytes.Buffer
	var all sync.WaitGroup
	for _, f := range meanwhile {
		all.Go(f)
	}
	ctx := m.ctx
	if ctx == nil {
		ctx = m.t.Context()
	}
	status = run(ctx, strings.Fields(args), world{
		out: &o, errs: &e, term: term, proc: m.root,
		open: func() (eyes, error) { return m, nil },
		path: path,
	})
	all.Wait()
	return status, o.String(), e.String()
}

// watched is what a watch of a machine tells.
func (m *machine) watched(path pathway, args string, meanwhile ...func()) (uses []useLine, findings []finding) {
	m.t.Helper()
	_, out, errs := m.examine(path, terminal.Terminal{}, "-json "+args, meanwhile...)
	if errs != "" {
		m.t.Error(errs)
	}
	return told[useLine](m.t, []byte(out), "use"), told[finding](m.t, []byte(out), "finding")
}

// told are the lines of a kind that were printed.
func told[T any](t *testing.T, out []byte, kind string) (lines []T) {
	t.Helper()
	for line := range bytes.Lines(out) {
		var of struct{ Kind string }
		var v T
		if err := json.Unmarshal(line, &of); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if of.Kind != kind {
			continue
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, v)
	}
	return lines
}

// exit ends a process.
func (m *machine) exit(pid int) {
	if err := os.RemoveAll(filepath.Join(m.root, fmt.Sprint(pid))); err != nil {
		m.t.Error(err)
	}
}

// Package servers starts real servers for a test: programs of Debian packages,
// each on a port of its own of 127.0.0.1, with all its files in the temporary
// directory of the test.
//
//	s := servers.Redis(t)
//	...
//	s.Kill()  // connections break, dials are refused
//	s.Start() // at the same address, with nothing remembered
//
// Databases can also stand in a kernel lab (In). A program that is not a test
// has servers by Run.
//
// It takes Linux and the package; databases, which refuse to be root's, take user
// namespaces too. Without them the test is skipped, or fails if the environment
// says NATWISE_LAB=must.
package servers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	patience = time.Minute      // for a start or an end, on a busy machine
	attempt  = 10 * time.Second // for an answer while it starts
)

// A Server is a program that ends with its test, and whose log is shown if the
// test fails. Its methods may be called by many goroutines: what goes wrong
// fails the test, but does not end it.
type Server struct {
	t   T
	dir string // where it runs
	at  Place  // where it listens; a port of this machine is held until the end of the test
	log *os.File

	// What makes it a Redis or an nginx, set before the first start.
	path    string
	args    []string
	nobody  bool           // it refuses to be root's
	install func() error   // makes the data that it starts with; nil: it needs none
	quit    syscall.Signal // asks for an orderly end
	hello   string         // what a probe says; the server answers and hangs up
	answer  string         // is somewhere in the answer of a server that is ready

	changes sync.Mutex // guards the fields below; held while the program starts or ends
	process *process   // nil: not started yet, or ended by us
	over    bool       // the test is
}

// prepare returns a server that has a place, but nothing to run with yet. Its
// program may be in directories to which no path leads, given as patterns.
func prepare(t T, at Place, program, debian string, dirs ...string) *Server {
	t.Helper()
	if runtime.GOOS != "linux" {
		without(t, "Linux")
	}
	path, err := look(program, dirs)
	if err != nil {
		without(t, program+": apt-get install "+debian)
	}
	s := &Server{t: t, dir: t.TempDir(), at: at, path: path}
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.showLog)
	s.settle()
	t.Cleanup(s.finish)
	return s
}

// settle takes the server's address.
func (s *Server) settle() {
	s.t.Helper()
	if s.at.lab != nil {
		if err := s.at.lab.Count(s.at.addr); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	port, held, err := hold()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { held.Close() })
	s.at.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
}

// without ends a test that cannot have what it needs.
func without(t T, need string) {
	t.Helper()
	if os.Getenv("NATWISE_LAB") == "must" {
		t.Fatal("needs " + need)
	}
	t.Skip("needs " + need)
}

// look finds a program also where only root's path leads, or none.
func look(program string, dirs []string) (string, error) {
	path, err := exec.LookPath(program)
	for _, dir := range append(dirs, "/usr/sbin/") {
		if err == nil {
			break
		}
		found, _ := filepath.Glob(dir + program)
		for _, file := range found { // of several releases the last
			path, err = exec.LookPath(file)
		}
	}
	return path, err
}

// write makes a file in the server's directory and returns its path.
func (s *Server) write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// first starts a server that is complete, or ends the test.
func (s *Server) first() *Server {
	s.t.Helper()
	s.changes.Lock()
	defer s.changes.Unlock()
	err := s.installLocked()
	if errors.Is(err, errNamespaces) {
		without(s.t, err.Error())
	}
	if err == nil {
		err = s.startLocked()
	}
	if err != nil {
		s.t.Fatal(s.path+":", err)
	}
	return s
}

// Addr is where it listens, or will again: an IP and a port.
func (s *Server) Addr() string { return s.at.addr.String() }

// Start starts it and returns when it answers. While it runs, Start does
// nothing.
func (s *Server) Start() {
	s.t.Helper()
	s.changes.Lock()
	defer s.changes.Unlock()
	if s.over {
		panic("servers: started after its test")
	}
	if s.runsLocked() {
		return
	}
	if err := s.startLocked(); err != nil {
		s.t.Errorf("%s: %v", s.path, err)
	}
}

// Replace is Kill, and the start of another server at the same address, which
// has nothing of what the first has stored.
func (s *Server) Replace() {
	s.t.Helper()
	s.changes.Lock()
	defer s.changes.Unlock()
	if s.over {
		panic("servers: replaced after its test")
	}
	s.endLocked(syscall.SIGKILL)
	err := s.installLocked()
	if err == nil {
		err = s.startLocked()
	}
	if err != nil {
		s.t.Errorf("%s: %v", s.path, err)
	}
}

// Kill ends it with SIGKILL, and returns when it is gone: dials are refused, and
// the kernel has ended its connections, with a FIN or, where something was left
// to read or to accept, with a RST. Where nothing runs, nothing happens.
func (s *Server) Kill() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
}

// Stop ends it as its operator would, and returns when it is gone. Where
// nothing runs, nothing happens.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(s.quit)
}

// Restart is Stop and Start.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// installLocked makes the data of a server that has some, anew.
func (s *Server) installLocked() error {
	if s.install == nil {
		return nil
	}
	if err := os.RemoveAll(s.data()); err != nil {
		return err
	}
	if err := os.Mkdir(s.data(), 0o700); err != nil {
		return err
	}
	return s.install()
}

// data is where a server stores what install made, and more.
func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// errNamespaces says what it takes to not be root.
var errNamespaces = errors.New("user namespaces")

// once runs a program to its end, with something to read.
func (s *Server) once(input, path string, args ...string) error {
	cmd := s.command(path, args...)
	cmd.Stdin = strings.NewReader(input)
	p, err := start(cmd, s.at)
	if refused(err) {
		return fmt.Errorf("%w: %w", errNamespaces, err)
	}
	if err != nil {
		return err
	}
	<-p.gone
	if p.err != nil {
		return fmt.Errorf("%s: %w", path, p.err)
	}
	return nil
}

// refused tells whether the kernel has no namespaces for us: not for this user,
// no more of them, none at all.
func refused(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL)
}

// command is a program that writes into the server's log.
func (s *Server) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = s.dir
	cmd.Env = append(cmd.Environ(), "LC_ALL=C") // one that every machine has
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = diesWithParent()
	if s.nobody {
		cmd.SysProcAttr = asNobody()
	}
	return cmd
}

func (s *Server) startLocked() error {
	p, err := start(s.command(s.path, s.args...), s.at)
	if err != nil {
		return err
	}
	s.process = p
	for tooLate := time.After(patience); ; {
		err := s.probe()
		if err == nil {
			return nil
		}
		select {
		case <-p.gone:
			s.process = nil
			return fmt.Errorf("ended while it started: %w", p.err)
		case <-tooLate:
			return fmt.Errorf("not ready after %v: %w", patience, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// probe asks whether it is ready. It reads until the server hangs up, so that
// afterwards the server does not count it among its clients.
func (s *Server) probe() error {
	var c net.Conn
	err := s.at.inside(func() (err error) {
		c, err = net.DialTimeout("tcp", s.Addr(), attempt)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(attempt))
	if _, err := io.WriteString(c, s.hello); err != nil {
		return err
	}
	said, err := io.ReadAll(c)
	if err == nil && !strings.Contains(string(said), s.answer) {
		err = fmt.Errorf("it says %q", said)
	}
	return err
}

// runsLocked tells whether it runs, and fails the test if it should and does
// not.
func (s *Server) runsLocked() bool {
	s.t.Helper()
	if s.process == nil {
		return false
	}
	select {
	case <-s.process.gone:
		s.t.Errorf("%s ended by itself: %v", s.path, s.process.err)
		s.process = nil
		return false
	default:
		return true
	}
}

// end is endLocked where nobody starts it meanwhile.
func (s *Server) end(with syscall.Signal) {
	s.t.Helper()
	s.changes.Lock()
	defer s.changes.Unlock()
	s.endLocked(with)
}

// endLocked ends it with a signal, or in the end with SIGKILL.
func (s *Server) endLocked(with syscall.Signal) {
	s.t.Helper()
	if !s.runsLocked() {
		return
	}
	p := s.process
	s.process = nil
	if with == syscall.SIGKILL {
		p.killAll()
	} else {
		p.Signal(with) // cannot fail but by being too late, which p.err tells
	}
	select {
	case <-p.gone:
		if with != syscall.SIGKILL && p.err != nil {
			s.t.Errorf("%s: no orderly end: %v", s.path, p.err)
		}
	case <-time.After(patience):
		s.t.Errorf("%s runs on, %v after signal %q", s.path, patience, with)
		p.killAll()
		<-p.gone
	}
}

// finish is the end of the test.
func (s *Server) finish() {
	s.t.Helper()
	s.changes.Lock()
	s.over = true
	s.changes.Unlock()
	s.Kill()
}

func (s *Server) showLog() {
	s.t.Helper()
	if s.t.Failed() {
		said, err := os.ReadFile(s.log.Name())
		s.t.Logf("%s at %s said (error %v):\n%s", s.path, s.Addr(), err, said)
	}
	s.log.Close()
}

package servers_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/servers"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(func() int { return natlab.Main(m) })) }

const patience = 10 * time.Second // for what must happen, on a busy machine

// A client is one connection, and what it has read ahead.
type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, s *servers.Server) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &client{t, c, bufio.NewReader(c)}
}

// ping has Redis answer.
func (c *client) ping() {
	c.t.Helper()
	if got := c.redis("PING"); got != "+PONG" {
		c.t.Errorf("PING: %q", got)
	}
}

// redis sends one command and returns the first line of the answer.
func (c *client) redis(words ...string) string {
	c.t.Helper()
	fmt.Fprintf(c, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(c, "$%d\r\n%s\r\n", len(w), w)
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%q: %v", words, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// get has nginx answer, and tells whether it wants to keep the connection.
func (c *client) get() (kept bool) {
	c.t.Helper()
	io.WriteString(c, "GET /anything HTTP/1.1\r\nHost: nginx\r\n\r\n")
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Body.Close()
	if page, err := io.ReadAll(r.Body); r.StatusCode != 200 || string(page) != servers.Page {
		c.t.Errorf("%s, %q (error %v)", r.Status, page, err)
	}
	return !r.Close
}

// finished fails the test unless the server ends the connection, with a FIN.
func (c *client) finished() {
	c.t.Helper()
	if b, err := c.in.ReadByte(); err != io.EOF {
		c.t.Errorf("instead of a FIN: %q, %v", b, err)
	}
}

// refused fails the test if somebody listens, or if nobody says that nobody does.
func refused(t *testing.T, s *servers.Server) {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialing what does not run: %v", err)
	}
}

// again is a command that runs the same test once more, in a process of its
// own. In that process it is nil.
func again(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	const mark = "SERVERS_TEST_AGAIN=1"
	if name, value, _ := strings.Cut(mark, "="); os.Getenv(name) == value {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(cmd.Environ(), append(env, mark, "TMPDIR="+t.TempDir())...)
	return cmd
}

func TestRedisAnswersAgainAfterAKillAndARestart(t *testing.T) {
	s := servers.Redis(t)
	addr := s.Addr()
	for range 3 {
		c := dial(t, s)
		if got := c.redis("GET", "k"); got != "$-1" {
			t.Errorf("before it was set, k is %q", got)
		}
		if got := c.redis("SET", "k", "v"); got != "+OK" {
			t.Errorf("SET: %q", got)
		}
		s.Kill()
		c.finished()
		refused(t, s)

		s.Start()
		again := dial(t, s)
		again.ping()
		s.Restart()
		again.finished()
	}
	dial(t, s).ping()
	if s.Addr() != addr {
		t.Errorf("it moved from %s to %s", addr, s.Addr())
	}
}

func TestNginxAnswersAgainAfterAKillAndARestart(t *testing.T) {
	s := servers.Nginx(t)
	for range 3 {
		c := dial(t, s)
		for range 5 {
			if !c.get() {
				t.Fatal("the connection is not kept")
			}
		}
		s.Kill()
		c.finished()
		refused(t, s)

		s.Start()
		again := dial(t, s)
		again.get()
		s.Restart()
		again.finished()
	}
	dial(t, s).get()
}

func TestAnEndClosesWhatIsIdleAndASecondEndIsNone(t *testing.T) {
	s := servers.Nginx(t)
	for _, end := range []func(){s.Stop, s.Kill} {
		// Used once, so that nginx has accepted it: what still waits for that
		// when a server ends is reset.
		c := dial(t, s)
		c.get()
		end()
		c.finished()
		refused(t, s)
		s.Stop() // nothing happens
		s.Kill() // nor now
		s.Start()
		s.Start() // nor now
	}
	dial(t, s).get()
}

func TestNginxClosesAConnectionAfterItsLastRequest(t *testing.T) {
	c := dial(t, servers.Nginx(t, "keepalive_requests 3;"))
	for i, want := range []bool{true, true, false} {
		if kept := c.get(); kept != want {
			t.Errorf("after request %d, kept: %v", i+1, kept)
		}
	}
	c.finished()
}

func TestServersCloseWhatWasIdleForAsLongAsTheyAreTold(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		c := dial(t, servers.Redis(t, "timeout 1"))
		c.ping()
		c.finished()
	})
	t.Run("nginx", func(t *testing.T) {
		t.Parallel()
		c := dial(t, servers.Nginx(t, "keepalive_timeout 1s;"))
		c.get()
		c.finished()
	})
}

func TestARedisForOneClientDoesNotCountTheProbe(t *testing.T) {
	s := servers.Redis(t, "maxclients 1")
	for range 10 {
		dial(t, s).ping()
		s.Kill()
		s.Start()
	}
}

func TestManyServersRunSideBySide(t *testing.T) {
	var all sync.WaitGroup
	for range 16 {
		s := servers.Redis(t)
		all.Go(func() {
			for range 5 {
				s.Kill()
				s.Start()
			}
		})
	}
	all.Wait()
}

// Other programs choose ports while a server is down, and so does a client that
// dials in vain.
func TestNobodyElseIsGivenThePortOfAServerThatIsDown(t *testing.T) {
	s := servers.Redis(t)
	s.Kill()
	for range 2000 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if ln.Addr().String() == s.Addr() {
			t.Fatal("a listener was given the port")
		}
	}
	for range 2000 {
		refused(t, s)
	}
	s.Start()
	dial(t, s).ping()
}

func TestACrashedTestLeavesNoRedis(t *testing.T) { crash(t, servers.Redis(t)) }
func TestACrashedTestLeavesNoNginx(t *testing.T) { crash(t, servers.Nginx(t)) }

// crash kills a second process that runs the same test, and waits for the end of
// the server there.
func crash(t *testing.T, s *servers.Server) {
	cmd := again(t)
	if cmd == nil {
		fmt.Printf("at %s\n", s.Addr())
		select {}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var addr string
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		fmt.Sscanf(lines.Text(), "at %s", &addr)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	cmd.Process.Kill()
	cmd.Wait()
	for tooLate := time.After(patience); ; {
		c, err := net.Dial("tcp", addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			c.Close()
		}
		select {
		case <-tooLate:
			t.Fatalf("it outlived its test: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestTheLogIsShownWhenTheTestFails(t *testing.T) {
	servers.Redis(t)
	cmd := again(t)
	if cmd == nil {
		t.Fail()
		return
	}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Ready to accept connections") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAWrongSettingFailsTheTestAndSaysWhy(t *testing.T) {
	cmd := again(t)
	if cmd == nil {
		servers.Nginx(t, "keep_alive_timeout 1s;")
		return
	}
	servers.Nginx(t) // skips
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `unknown directive "keep_alive_timeout"`) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAServerThatEndsByItselfFailsTheTest(t *testing.T) {
	s := servers.Redis(t)
	cmd := again(t)
	if cmd == nil {
		io.WriteString(dial(t, s), "SHUTDOWN NOSAVE\r\n")
		for since := time.Now(); !t.Failed() && time.Since(since) < patience; {
			s.Start() // does nothing until it is gone
		}
		return
	}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "ended by itself") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWithoutItsPackageATestIsSkippedUnlessItMustNotBe(t *testing.T) {
	for must, verdict := range map[string]string{"": "--- SKIP", "must": "--- FAIL"} {
		cmd := again(t, "PATH=/nonexistent", "NATWISE_LAB="+must)
		if cmd == nil {
			servers.Redis(t)
			return
		}
		out, err := cmd.CombinedOutput()
		if (err != nil) != (must != "") ||
			!strings.Contains(string(out), verdict) ||
			!strings.Contains(string(out), "needs redis-server: apt-get install redis-server\n") {
			t.Errorf("NATWISE_LAB=%q: %v\n%s", must, err, out)
		}
	}
}

package servers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A database is a kind of server, and how its own people talk to it.
type database struct {
	name  string
	start func(at servers.Place, t servers.T, config ...string) *servers.Server

	debian string
	// client is a command that executes a statement, and writes no more than
	// what it returns.
	client func(s *servers.Server, sql string) []string
	secure string // a query for the TLS of its connection

	hello, answer string // how a conversation begins, without TLS
	wrong, blamed string // a setting that there is not, and what is said about it
}

var databases = []database{{
	name:   "Postgres",
	start:  servers.Place.Postgres,
	debian: "postgresql-client",
	client: func(s *servers.Server, sql string) []string {
		return []string{"psql", "-XAtq", "-c", sql, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=verify-full&sslrootcert=%s",
			servers.User, servers.Password, s.Addr(), servers.Database, s.CertFile())}
	},
	secure: "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
	hello:  "\x00\x00\x00\x16\x00\x03\x00\x00user\x00natwise\x00\x00",
	answer: "R",
	wrong:  "max_conections = 1",
	blamed: `unrecognized configuration parameter "max_conections"`,
}, {
	name:   "MariaDB",
	start:  servers.Place.MariaDB,
	debian: "mariadb-client-core",
	client: func(s *servers.Server, sql string) []string {
		host, port, _ := net.SplitHostPort(s.Addr())
		return []string{"mariadb", "--no-defaults", "-BN", "-h" + host, "-P" + port, "-u" + servers.User, "-p" + servers.Password,
			"--ssl-ca=" + s.CertFile(), "--ssl-verify-server-cert", "-e", sql, servers.Database}
	},
	secure: "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_version'",
	answer: "-MariaDB",
	wrong:  "max-conections = 1",
	blamed: `unknown variable 'max-conections=1'`,
}}

// eachDatabase runs a test with each.
func eachDatabase(t *testing.T, f func(t *testing.T, db database)) {
	for _, db := range databases {
		t.Run(db.name, func(t *testing.T) { f(t, db) })
	}
}

// ask executes a statement and returns what comes.
func (db database) ask(t *testing.T, s *servers.Server, sql string) (string, error) {
	t.Helper()
	line := db.client(s, sql)
	needClient(t, db, line[0])
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%q: %w: %s", sql, err, &said)
	}
	return strings.TrimSpace(string(out)), err
}

// must is ask where there is one right answer.
func (db database) must(t *testing.T, s *servers.Server, sql, want string) {
	t.Helper()
	if got, err := db.ask(t, s, sql); err != nil || got != want {
		t.Errorf("%q: %q, want %q (error %v)", sql, got, want, err)
	}
}

func needClient(t *testing.T, db database, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("NATWISE_LAB") == "must" {
		t.Fatalf("needs %s: apt-get install %s", program, db.debian)
	}
	t.Skipf("needs %s: apt-get install %s", program, db.debian)
}

// begin begins a conversation: the server has accepted the connection, and
// waits for the client.
func (db database) begin(t *testing.T, c net.Conn) {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, db.hello)
	said := make([]byte, 1024)
	n, err := c.Read(said)
	if err != nil || !strings.Contains(string(said[:n]), db.answer) {
		t.Fatalf("it says %q (error %v)", said[:n], err)
	}
}

func TestADatabaseKeepsWhatWasCommittedUntilItIsReplaced(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db database) {
		t.Parallel()
		s := db.start(servers.Place{}, t)
		addr := s.Addr()
		db.must(t, s, db.secure, "TLSv1.3")
		db.must(t, s, "CREATE TABLE kept (n INT)", "")
		for i, again := range []func(){
			func() { s.Kill(); refused(t, s); s.Start() },
			func() { db.begin(t, dial(t, s).Conn); s.Stop(); refused(t, s); s.Start() }, // though a client is there
			s.Restart,
		} {
			db.must(t, s, fmt.Sprintf("INSERT INTO kept VALUES (%d)", i), "")
			again()
			db.must(t, s, "SELECT count(*) FROM kept", fmt.Sprint(i+1))
		}
		s.Replace()
		if got, err := db.ask(t, s, "SELECT count(*) FROM kept"); err == nil {
			t.Errorf("the new one has the table of the old one, with %s rows", got)
		}
		if s.Addr() != addr {
			t.Errorf("it moved from %s to %s", addr, s.Addr())
		}
	})
}

func TestADatabaseThatIsKilledSaysNothingMoreToAnybody(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db database) {
		t.Parallel()
		s := db.start(servers.Place{}, t)
		for range 3 {
			var clients []*client
			for range 20 {
				c := dial(t, s)
				db.begin(t, c.Conn)
				clients = append(clients, c)
			}
			s.Kill()
			for _, c := range clients {
				c.finished()
			}
			refused(t, s)
			s.Start()
		}
	})
}

func TestACrashedTestLeavesNoPostgres(t *testing.T) { crash(t, servers.Postgres(t)) }
func TestACrashedTestLeavesNoMariaDB(t *testing.T)  { crash(t, servers.MariaDB(t)) }

func TestAWrongSettingOfADatabaseFailsTheTestAndSaysWhy(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db database) {
		cmd := again(t)
		if cmd == nil {
			db.start(servers.Place{}, t, db.wrong)
			return
		}
		db.start(servers.Place{}, t) // skips
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), db.blamed) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// The client's dials go through the NAT, and what the server's kernel says comes
// back that way.
func TestADatabaseInALabIsKilledAndComesBackAtItsAddress(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db database) {
		t.Parallel()
		lab := natlab.Need(t, natlab.Config{Path: netpath.Profile{
			Limits: []netpath.Limit{{Scope: netpath.Destination, N: 64}},
			Idle:   time.Minute,
			Hold:   netpath.Hold{FIN: 2 * time.Second, RST: 2 * time.Second, SYN: 2 * time.Second, Idle: netpath.None},
		}})
		at := netip.AddrPortFrom(lab.Server(0), 5432)
		s := db.start(servers.In(lab, at), t)
		for range 2 {
			c, err := lab.Dial(t.Context(), "tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			db.begin(t, c)
			flows, err := lab.Flows(nil)
			if err != nil {
				t.Fatal(err)
			}
			open := 0
			for _, f := range flows {
				if f.Dest == at && f.State == natlab.Open {
					open++
				}
			}
			if open != 1 {
				t.Errorf("the gateway knows %v, want one that is open: the probe's is no flow of the client", flows)
			}
			s.Kill()
			c.SetReadDeadline(time.Now().Add(time.Second))
			if n, err := io.Copy(io.Discard, c); n != 0 || (err != nil && !errors.Is(err, syscall.ECONNRESET)) {
				t.Errorf("after the kill: %d bytes, %v", n, err)
			}
			c.Close()
			if _, err := lab.Dial(t.Context(), "tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dialing what does not run: %v", err)
			}
			s.Start()
		}
		line := db.client(s, db.secure)
		needClient(t, db, line[0])
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if out, err := lab.Exec(ctx, "client", line[0], line[1:]...); err != nil || strings.TrimSpace(out) != "TLSv1.3" {
			t.Errorf("%q, %v", out, err)
		}
	})
}

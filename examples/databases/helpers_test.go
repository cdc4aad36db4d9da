package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/internal/servers"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/natwise/natwise/sqlx"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// patience is how long a test waits for what should come soon.
const patience = 10 * time.Second

// until asks again and again whether something is so.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for tooLong := time.After(patience); !done(); {
		select {
		case <-tooLong:
			t.Fatalf("after %v still not: %s", patience, what)
		case <-time.After(time.Millisecond):
		}
	}
}

// behindNAT returns a Dialer behind the NAT of an App Service, which counts connections
// to loopback too.
func behindNAT() *sqlx.Dialer {
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt()
	return &sqlx.Dialer{Dialer: &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}}}
}

// account is the only one that the Dialer has.
func account(t *testing.T, d *sqlx.Dialer) dialer.Account {
	t.Helper()
	all := d.Dialer.Ledger.Accounts()
	if len(all) != 1 {
		t.Fatalf("%d accounts: %v", len(all), all)
	}
	return all[0]
}

// cooling is how many of the account's ports are held by connections that have ended.
func cooling(a dialer.Account) (n int) {
	for _, ended := range a.Cooling {
		n += ended
	}
	return n
}

// dsns start a server for each driver and return where it is.
var dsns = map[string]func(t *testing.T) string{
	"pgx": postgresDSNOf, "pgxpool": postgresDSNOf, "pq": postgresDSNOf,
	"mysql": func(t *testing.T) string {
		return fmt.Sprintf("%s:%s@tcp(%s)/%s", servers.User, servers.Password, servers.MariaDB(t).Addr(), servers.Database)
	},
	"mssql": func(t *testing.T) string {
		return fmt.Sprintf("sqlserver://%s?encrypt=disable", newTDS(t, "127.0.0.1").addrs[0])
	},
}

func postgresDSNOf(t *testing.T) string { return postgresURL(servers.Postgres(t)) }

func postgresURL(s *servers.Server) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s", servers.User, servers.Password, s.Addr(), servers.Database)
}

// A tds is as much of an SQL Server as a driver needs to believe in one: everybody may
// log in, and whatever is asked for is done, without result. MS-TDS has the numbers.
type tds struct {
	addrs []netip.AddrPort // one port at several addresses
	lns   []net.Listener

	serving sync.WaitGroup
	mu      sync.Mutex // guards the field below
	conns   []net.Conn
}

func newTDS(t *testing.T, ips ...string) *tds {
	t.Helper()
	s := new(tds)
	t.Cleanup(s.close)
	for s.listen(ips) != nil { // somebody has the port that was free at the first address
		for _, ln := range s.lns {
			ln.Close()
		}
		s.lns, s.addrs = nil, nil
	}
	for _, ln := range s.lns {
		s.serving.Go(func() { s.serve(ln) })
	}
	return s
}

func (s *tds) listen(ips []string) error {
	port := uint16(0)
	for _, ip := range ips {
		ln, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(ip), port).String())
		if err != nil {
			return err
		}
		addr := ln.Addr().(*net.TCPAddr).AddrPort()
		s.lns, s.addrs, port = append(s.lns, ln), append(s.addrs, addr), addr.Port()
	}
	return nil
}

func (s *tds) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		s.serving.Go(func() {
			defer c.Close()
			for s.answer(c) == nil {
			}
		})
	}
}

func (s *tds) close() {
	for _, ln := range s.lns {
		ln.Close()
	}
	s.mu.Lock()
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	s.serving.Wait()
}

var (
	preLogin = []byte{
		0, 0, 11, 0, 6, // VERSION is at 11, 6 bytes
		1, 0, 17, 0, 1, // ENCRYPTION is at 17, 1 byte
		255,               // no more
		16, 0, 0, 0, 0, 0, // 16.0
		2, // not supported
	}
	loginAck = []byte{
		0xad, 10, 0, // LOGINACK, 10 bytes
		1, 0x74, 0, 0, 4, // SQL, version 7.4
		0,           // the name of the program has no letter
		16, 0, 0, 0, // 16.0
	}
	done = []byte{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // DONE, final
)

// answer reads a message and answers it.
func (s *tds) answer(c net.Conn) error {
	var kind byte
	for last := false; !last; {
		header := make([]byte, 8)
		if _, err := io.ReadFull(c, header); err != nil {
			return err
		}
		length := int64(binary.BigEndian.Uint16(header[2:])) - 8
		if _, err := io.CopyN(io.Discard, c, length); err != nil {
			return err
		}
		kind, last = header[0], header[1]&1 != 0
	}
	switch kind {
	case 18:
		return reply(c, preLogin)
	case 16:
		return reply(c, loginAck, done)
	case 1: // a batch
		return reply(c, done)
	}
	return errors.New("not as much of an SQL Server as that")
}

// reply sends a message of one packet.
func reply(c net.Conn, tokens ...[]byte) error {
	body := slices.Concat(tokens...)
	header := []byte{4, 1, 0, 0, 0, 0, 1, 0}
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(body)))
	_, err := c.Write(append(header, body...))
	return err
}

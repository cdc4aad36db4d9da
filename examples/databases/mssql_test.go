package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/microsoft/go-mssqldb"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/natwise/natwise/sqlx"
)

// threeAddresses starts a server that has three, and what looks its name up.
func threeAddresses(t *testing.T) (s *tds, dsn string, names names) {
	t.Helper()
	s = newTDS(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	for _, addr := range s.addrs {
		names = append(names, addr.Addr())
	}
	return s, fmt.Sprintf("sqlserver://db.test:%d?encrypt=disable", s.addrs[0].Port()), names
}

func TestTheDriversOwnDialerTakesAPortOfEachAddress(t *testing.T) {
	s, dsn, names := threeAddresses(t)
	answerAllWith(t, names)
	d := behindNAT()
	c, err := mssql.NewConnector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c.Dialer = d
	db := plain(c, d)
	defer db.Close()
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the one that is used is left, of three that were booked", func() bool {
		var opened, active, held int
		for _, a := range d.Dialer.Ledger.Accounts() {
			opened, active, held = opened+int(a.Opened), active+a.Active, held+cooling(a)
		}
		return opened == len(s.addrs) && active == 1 && held == len(s.addrs)-1
	})
}

func TestByNameTakesOnePort(t *testing.T) {
	_, dsn, names := threeAddresses(t)
	d := behindNAT()
	d.Dialer.Resolver = names
	pingBy(t, dsn, d)
	if a := account(t, d); a.Opened != 1 {
		t.Errorf("%d connections: %v", a.Opened, a)
	}
}

func TestANamedInstanceIsFoundByTheBrowser(t *testing.T) {
	s := newTDS(t, "127.0.0.1")
	browser, err := net.ListenPacket("udp", "127.0.0.1:1434")
	if err != nil {
		t.Fatal(err) // the protocol knows no other port
	}
	defer browser.Close()
	go answerDatagrams(browser, func([]byte) []byte {
		return fmt.Appendf([]byte{5, 0, 0}, "ServerName;DB;InstanceName;TOY;IsClustered;No;Version;16.0;tcp;%d;;", s.addrs[0].Port())
	})
	d := behindNAT()
	pingBy(t, "sqlserver://127.0.0.1/toy?encrypt=disable", d)
	if a := account(t, d); a.Opened != 1 || a.Key.Dest != s.addrs[0] {
		t.Errorf("%d connections: %v", a.Opened, a)
	}
}

// pingBy asks a server once.
func pingBy(t *testing.T, dsn string, d *sqlx.Dialer) {
	t.Helper()
	c, err := mssqlConnector(dsn, d)
	if err != nil {
		t.Fatal(err)
	}
	db := open(c, d)
	defer db.Close()
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// names is a dialer.Resolver that knows one name only.
type names []netip.Addr

func (n names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return n, nil }

// answerAllWith makes the standard library's resolver find these, until the test ends.
func answerAllWith(t *testing.T, addrs []netip.Addr) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go answerDatagrams(server, func(question []byte) []byte { return dnsAnswer(question, addrs) })
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = was
		server.Close()
	})
}

// dnsAnswer has addrs for whatever name, where their kind was asked for.
func dnsAnswer(question []byte, addrs []netip.Addr) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response = true
	m.Additionals = nil
	for _, addr := range addrs {
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}

// answerDatagrams answers until c is closed.
func answerDatagrams(c net.PacketConn, answer func([]byte) []byte) {
	datagram := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(datagram)
		if err != nil {
			return
		}
		c.WriteTo(answer(datagram[:n]), from)
	}
}

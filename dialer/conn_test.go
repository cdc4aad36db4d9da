package dialer_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
	"golang.org/x/net/nettest"
)

// counted returns a dialer that counts loopback too, so that Close lingers.
func counted(t testing.TB) *dialer.Dialer {
	t.Helper()
	path := azure(1000)
	path.Exempt = netpath.NoExempt()
	return &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1}}
}

func TestADialedConnIsANetConn(t *testing.T) {
	d := counted(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		defer ln.Close()
		near, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			return nil, nil, nil, err
		}
		far, err := ln.Accept()
		return near, far, func() { near.Close(); far.Close() }, err
	})
	taken := 0
	for _, a := range d.Ledger.Accounts() {
		taken += a.Taken()
	}
	if taken == 0 {
		t.Error("no flow was booked")
	}
}

func TestAUnixSocketCrossesNoNAT(t *testing.T) {
	at := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", at)
	if err != nil {
		t.Skip(err)
	}
	defer ln.Close()
	d := counted(t)
	c, err := d.DialContext(t.Context(), "unix", at)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if as := d.Ledger.Accounts(); len(as) > 0 {
		t.Errorf("booked: %v", as)
	}
}

func TestUnwrapSeesThroughTLS(t *testing.T) {
	ln := echo(t)
	c, err := counted(t).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, ok := dialer.Unwrap(tls.Client(tls.Client(c, &tls.Config{}), &tls.Config{})); !ok || got != c {
		t.Errorf("got %v, %t", got, ok)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	for _, c := range []net.Conn{near, tls.Client(near, &tls.Config{})} {
		if got, ok := dialer.Unwrap(c); ok {
			t.Errorf("got %v", got)
		}
	}
}

// A readerFrom notes what its ReadFrom is given.
type readerFrom struct {
	*net.TCPConn
	got io.Reader
}

func (r *readerFrom) ReadFrom(from io.Reader) (int64, error) {
	r.got = from
	return r.TCPConn.ReadFrom(from)
}

// That TCPConn.ReadFrom then uses sendfile is shown in package keepalive.
func TestAFileReachesTheSocketsReadFrom(t *testing.T) {
	ln := echo(t)
	d := counted(t)
	var socket *readerFrom
	plain := net.Dialer{}
	d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := plain.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		socket = &readerFrom{TCPConn: c.(*net.TCPConn)}
		return socket, nil
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := io.Copy(c, f); n != 1<<16 || err != nil {
		t.Errorf("sent %d, %v", n, err)
	}
	if _, ok := socket.got.(syscall.Conn); !ok {
		t.Errorf("the socket was given %T, which is no file", socket.got)
	}
	if n := c.(*dialer.Conn).BytesWritten(); n != 1<<16 {
		t.Errorf("%d bytes were counted", n)
	}
}

// certified returns both sides' settings for a TLS 1.3 server on example.com.
func certified(t *testing.T) (client, server *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	s.Close()
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13}, s.TLS
}

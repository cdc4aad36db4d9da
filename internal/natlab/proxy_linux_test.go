package natlab_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// proxy puts a middlebox before the room's server.
func (r *room) proxy() *natlab.Proxy {
	r.t.Helper()
	p, err := r.Proxy(r.dst)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return p
}

// soon is how long a test waits for what surely comes.
const soon = 5 * time.Second

// hears says how a connection of which no bytes are expected ends.
func hears(c net.Conn, within time.Duration) error {
	c.SetReadDeadline(time.Now().Add(within))
	_, err := c.Read(make([]byte, 1))
	return err
}

// acknowledged waits until the kernel of the other end, whoever that is, has
// everything.
func (r *room) acknowledged(c *net.TCPConn) {
	r.t.Helper()
	r.until("acknowledged", soon, func() bool {
		info := r.info(c)
		return info.Unacked == 0 && info.Notsent_bytes == 0
	})
}

func TestAnHonestProxyHandsEverythingOn(t *testing.T) {
	r := newRoom(t, 2, nil)
	r.proxy()
	client, server := r.open()
	if _, direct := r.flow(client); direct {
		t.Error("there is no proxy")
	}
	const megabytes = 4
	go func() {
		client.Write(make([]byte, megabytes<<20))
		client.CloseWrite()
	}()
	n, err := io.Copy(server, server)
	if n != megabytes<<20 || err != nil {
		t.Errorf("the server echoed %d bytes: %v", n, err)
	}
	server.Close()
	got, err := io.Copy(io.Discard, client)
	if got != n || err != nil {
		t.Errorf("the client got %d bytes, %v", got, err)
	}
}

func TestAnHonestProxyHandsOnARST(t *testing.T) {
	r := newRoom(t, 2, nil)
	r.proxy()
	for range 2 {
		from, to := r.open()
		if len(r.flows()) == 2 {
			from, to = to, from
		}
		from.SetLinger(0)
		from.Close()
		if err := hears(to, soon); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v to %v: %v", from.LocalAddr(), to.LocalAddr(), err)
		}
	}
}

func TestTheGatewayBooksWhatTheProxyOpens(t *testing.T) {
	r := newRoom(t, 1, nil)
	r.proxy()
	r.open()
	client, err := r.try(r.dst)
	if err != nil {
		t.Fatalf("the proxy did not accept: %v", err)
	}
	if f := r.flows(); len(f) != 1 || f[0].Dest != r.dst || f[0].Source.String() == client.LocalAddr().String() {
		t.Errorf("flows: %v", f)
	}
	r.until("the second one refused", soon, func() bool { return r.counts().By[r.dst].Refused > 0 })
}

func TestALiarAcknowledgesWhatItDiscards(t *testing.T) {
	r := newRoom(t, 1, nil)
	p := r.proxy()
	if p.Patience != 19*time.Second {
		t.Errorf("it waits for %v", p.Patience)
	}
	p.Patience = time.Second
	client, server := r.open()
	if err := passes(client, server); err != nil {
		t.Fatal(err)
	}
	p.Lie(true)
	start := time.Now()
	for _, way := range []struct{ from, to *net.TCPConn }{{client, server}, {server, client}} {
		if err := passes(way.from, way.to); !isTimeout(err) {
			t.Errorf("%v to %v: %v, want silence", way.from.LocalAddr(), way.to.LocalAddr(), err)
		}
		r.acknowledged(way.from)
	}
	if err := hears(client, soon); err != io.EOF {
		t.Errorf("the client got %v, want a FIN", err)
	}
	if took := time.Since(start); took < p.Patience-tick || took > p.Patience+late {
		t.Errorf("the FIN came after %v", took)
	}
	if err := passes(client, server); !isTimeout(err) {
		t.Errorf("after the FIN: %v, want silence", err)
	}
	r.acknowledged(client)
}

func TestALiarReadsOnWhereItsOwnWritesWereStuck(t *testing.T) {
	r := newRoom(t, 1, nil)
	p := r.proxy()
	client, _ := r.open() // the server does not read
	client.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := client.Write(make([]byte, 64<<20)); !isTimeout(err) {
		t.Fatalf("the proxy took 64 MB: %v", err)
	}
	p.Lie(true)
	client.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if _, err := client.Write(make([]byte, 64<<20)); err != nil {
		t.Error(err)
	}
	r.acknowledged(client)
}

func TestALiarKeepsFINsToItself(t *testing.T) {
	r := newRoom(t, 1, nil)
	p := r.proxy()
	p.Patience = time.Second
	client, server := r.open()
	p.Lie(true)
	client.CloseWrite()
	if err := hears(server, late); !isTimeout(err) {
		t.Errorf("the server got %v, want silence", err)
	}
	if err := hears(client, soon); err != io.EOF {
		t.Errorf("the client got %v, want a FIN", err)
	}
}

func TestAnIdleConnectionHearsNothingFromALiar(t *testing.T) {
	r := newRoom(t, 1, nil)
	p := r.proxy()
	p.Patience = 10 * time.Millisecond
	client, _ := r.open()
	p.Lie(true)
	if err := hears(client, late); !isTimeout(err) {
		t.Errorf("the client got %v, want silence", err)
	}
}

func TestOnlyNewConnectionsAreHonestAgain(t *testing.T) {
	r := newRoom(t, 3, nil)
	p := r.proxy()
	before, atServer := r.open()
	p.Lie(true)
	during, duringAtServer := r.open()
	p.Lie(false)
	after, afterAtServer := r.open()
	if err := passes(before, atServer); !isTimeout(err) {
		t.Errorf("older than the lie: %v, want silence", err)
	}
	if err := passes(during, duringAtServer); !isTimeout(err) {
		t.Errorf("made during the lie: %v, want silence", err)
	}
	if err := passes(after, afterAtServer); err != nil {
		t.Errorf("made after the lie: %v", err)
	}
}

// Nobody need tell the proxy to lie: it does not know better.
func TestABlackHoleBehindAProxyMakesALiarOfIt(t *testing.T) {
	r := newRoom(t, 1, nil)
	r.proxy()
	client, server := r.open()
	if err := r.Blackhole(r.dst, true); err != nil {
		t.Fatal(err)
	}
	if err := passes(client, server); !isTimeout(err) {
		t.Errorf("write: %v, want silence", err)
	}
	r.acknowledged(client)
}

func TestAProxyMeetsAClosedPort(t *testing.T) {
	r := newRoom(t, 1, nil)
	closed := netip.AddrPortFrom(r.Server(0), 9)
	if err := r.Count(closed); err != nil {
		t.Fatal(err)
	}
	p, err := r.Proxy(closed)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := r.try(closed)
	if err == nil { // the RST may also be quicker than the news of the connection
		err = hears(c, soon)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a RST", err)
	}
}

func TestWithoutItsProxyADestinationIsReachedAgain(t *testing.T) {
	r := newRoom(t, 2, nil)
	p := r.proxy()
	if _, err := r.Proxy(r.dst); err == nil {
		t.Error("a second proxy for the same destination")
	}
	p.Lie(true)
	client, _ := r.open()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := hears(client, soon); err == nil || isTimeout(err) {
		t.Errorf("what went through the proxy goes on: %v", err)
	}
	again, server := r.open()
	if err := passes(again, server); err != nil {
		t.Error(err)
	}
}

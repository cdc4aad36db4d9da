package fauxnat_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
	"github.com/natwise/natwise/keepalive/netpath"
)

func TestOnLoopbackTheKernelsConnShowsThrough(t *testing.T) {
	nat, l := onLoopback(t, azure(128))
	near, err := nat.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	raw, err := near.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(uintptr) {}); err != nil {
		t.Errorf("Control: %v", err)
	}
	if err := near.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}); err != nil {
		t.Errorf("SetKeepAliveConfig: %v", err)
	}
	flows := nat.Flows()
	if len(flows) != 1 || flows[0].Source.String() != near.LocalAddr().String() || flows[0].Dest.String() != near.RemoteAddr().String() {
		t.Errorf("%v to %v is booked as %+v", near.LocalAddr(), near.RemoteAddr(), flows)
	}
	reset(near)
	if until := time.Until(nat.Flows()[0].Until); until > 15*time.Second {
		t.Errorf("a RST holds its port for %v", until)
	}
}

func TestInMemoryThereIsNoSyscallConn(t *testing.T) {
	near, _ := newLab(t, azure(1)).open(t)
	if _, ok := near.(syscall.Conn); ok {
		t.Error("but the conn says so")
	}
	near.Close()
}

func TestOnLoopbackARefusedDialHoldsItsPort(t *testing.T) {
	nat, l := onLoopback(t, azure(128))
	l.Close()
	if _, err := nat.DialContext(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the dial ended with %v", err)
	}
	if s := nat.Stats(); s.Held != 1 || s.Live != 0 {
		t.Errorf("the NAT counted %+v", s.Counts)
	}
}

func TestOnLoopbackAnHTTPClientRunsOutOfPorts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	defer server.Close()
	nat, _ := onLoopback(t, azure(3))
	dialing := t.Context() // not the request's: Transport lets a dial outlive it
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			return nat.DialContext(dialing, network, address)
		},
	}}
	get := func() error {
		resp, err := client.Get(server.URL)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return err
	}
	for range 3 {
		if err := get(); err != nil {
			t.Fatal(err)
		}
	}
	var giveUp context.CancelFunc
	dialing, giveUp = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer giveUp()
	if err := get(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the fourth request ended with %v", err)
	}
	if s := nat.Stats(); s.Held != 3 || s.RefusedSYNs != 1 {
		t.Errorf("the NAT counted %+v", s.Counts)
	}
}

func TestOnLoopbackASilentFlowIsForgotten(t *testing.T) {
	nat, l := onLoopback(t, fauxnat.Scale(azure(128), 240_000))
	near, err := nat.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	for nat.Stats().Held > 0 {
		runtime.Gosched()
	}
	if _, err := near.Write([]byte("lost")); err != nil {
		t.Errorf("Write: %v", err)
	}
	near.SetReadDeadline(time.Now().Add(time.Millisecond))
	if e, ok := errors.AsType[net.Error](read(near)); !ok || !e.Timeout() {
		t.Errorf("Read: %v", e)
	}
}

// onLoopback returns a NAT that counts loopback, and a listener that accepts
// nothing, as the kernel does that for it.
func onLoopback(t *testing.T, path netpath.Profile) (*fauxnat.NAT, net.Listener) {
	path.Exempt = netpath.NoExempt()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &fauxnat.NAT{Path: path}, l
}

package dialer_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// azure is an App Service's NAT with n ports.
func azure(n int) netpath.Profile {
	path := netpath.AzureAppService()
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: n}}
	return path
}

// echo listens on loopback and sends back what it gets.
func echo(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return ln
}

// until asks again and again whether something is so.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for tooLong := time.After(10 * time.Second); !done(); {
		select {
		case <-tooLong:
			t.Fatalf("after 10 s still not: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

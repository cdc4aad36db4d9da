package withsdk_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// waitFor has a dial to address wait for a port while f looks.
func (c *town) waitFor(address string, f func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.open(c.Context(), address)
	}()
	time.Sleep(time.Second)
	f()
	<-ended
}

func TestADialThatWaitsForAPortIsSeenByItsDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTown(newLens(t), 2)
		c.serveLines("20.1.2.9:7000")
		for range 2 {
			for _, address := range []string{lines, "20.1.2.9:7000"} {
				_, err := c.open(c.Context(), address)
				c.must(err)
			}
		}
		c.waitFor(lines, func() {
			r := c.read()
			r.want(1, wanted, at(lines)...)
			r.want(0, wanted, at("20.1.2.9:7000")...)
		})
		c.read().want(0, wanted)
	})
}

// A path may limit what one source address holds, and what all of them do: the flows are the same.
func TestWhereAPathLimitsBothTheDestinationIsAsFullAsItIs(t *testing.T) {
	l := newLens(t)
	_, d, to := l.loopback()
	d.Dial, d.Sources = nil, []dialer.Source{{Addr: to.Addr()}}
	d.Ledger.Path.Limits = []netpath.Limit{{Scope: netpath.SourceDestination, N: 28232}, {Scope: netpath.Destination, N: 4}}
	for range 3 {
		conn, err := d.DialContext(t.Context(), "tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	r := l.read()
	r.want(4, limit, at(to.String())...)
	r.want(3, usage, at(to.String())...)
	r.want(0.75, utilization)
}

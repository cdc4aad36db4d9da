package debug_test

import (
	"fmt"
	"io"
	"net/netip"
	"testing"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/internal/memnet"
)

// What a second costs while somebody looks, however many do.
func BenchmarkASecond(b *testing.B) {
	for _, destinations := range []int{5, 500} {
		b.Run(fmt.Sprint(destinations, " destinations of 4 connections"), func(b *testing.B) {
			var net memnet.Network
			d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: azure(128), Ramp: -1}, Dial: net.DialContext}
			for i := range destinations {
				at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 1, byte(i / 250), byte(i%250 + 1)}), 443).String()
				ln, err := net.Listen(at)
				if err != nil {
					b.Fatal(err)
				}
				defer ln.Close()
				for range 4 {
					c, err := d.DialContext(b.Context(), "tcp", at)
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					far, err := ln.Accept()
					if err != nil {
						b.Fatal(err)
					}
					defer far.Close()
					go io.Copy(io.Discard, far)
				}
			}
			page := &debug.Page{Ledger: d.Ledger}
			var plain, deflated int
			for b.Loop() {
				plain, deflated = page.Tick()
			}
			b.ReportMetric(float64(plain), "B/event")
			b.ReportMetric(float64(deflated), "B/deflated")
		})
	}
}

package dialer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

func ExampleDialer() {
	// One line in main: every Dialer that names no other ledger keeps to it.
	dialer.DefaultLedger.Path = netpath.AzureAppService()

	var d dialer.Dialer
	client := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	defer client.CloseIdleConnections()
}

func ExampleDialer_Reserve() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	d := dialer.Dialer{Ledger: new(dialer.Ledger)}

	// The wait for a port may end because nobody needs the connection any more.
	wait, enough := context.WithTimeout(context.Background(), 5*time.Second)
	defer enough()
	r, err := d.Reserve(wait, "tcp", ln.Addr().String())
	if errors.Is(err, dialer.ErrBudget) {
		log.Fatal("no port: ", err)
	} else if err != nil {
		log.Fatal(err)
	}

	// Whoever no longer wants it calls r.Release. The SYN is sent now:
	c, err := r.Dial(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println("connected to where the port was reserved:", c.RemoteAddr().String() == r.Remote().String())
	// Output: connected to where the port was reserved: true
}

func ExampleLedger_Accounts() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt() // count loopback too, to have something to show
	d := dialer.Dialer{Ledger: &dialer.Ledger{Path: path}}
	c, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	for _, a := range d.Ledger.Accounts() {
		fmt.Printf("%d of %d ports taken, %d active, %d waiting\n", a.Taken(), a.Limit, a.Active, a.Waiting)
	}
	// Output: 1 of 128 ports taken, 1 active, 0 waiting
}

func ExampleUnwrap() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	d := dialer.Dialer{Ledger: new(dialer.Ledger)}
	raw, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{ServerName: "example.com"}) // as a driver makes it
	defer c.Close()

	if conn, ok := dialer.Unwrap(c); ok {
		conn.EndSoonest() // the connection is between two exchanges
		fmt.Println("silent for less than a minute:", conn.Silence() < time.Minute)
	}
	// Output: silent for less than a minute: true
}

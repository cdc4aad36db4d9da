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
	fmt.Println(d.MaxConns(), "connections to one address at most")
	// Output: 127 connections to one address at most
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

// smallPath has two ports for each destination, and counts those on loopback too, to have
// something to show.
func smallPath() netpath.Profile {
	path := netpath.AzureLoadBalancer(2)
	path.Exempt = netpath.NoExempt()
	return path
}

// A ledger of its own is for what leaves the machine by another way than the rest.
func ExampleLedger() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	d := dialer.Dialer{Ledger: &dialer.Ledger{
		Path:    smallPath(),
		MaxWait: 10 * time.Millisecond, // instead of 30 s
		Ramp:    -1,                    // nobody was here before
	}}

	for range 3 {
		c, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
		var full *dialer.BudgetError
		switch {
		case errors.As(err, &full):
			fmt.Printf("no port: %d of %d are active\n", full.Account.Active, full.Account.Limit)
		case err != nil:
			log.Fatal(err)
		default:
			defer c.Close()
			fmt.Println("connected")
		}
	}
	// Output:
	// connected
	// connected
	// no port: 2 of 2 are active
}

// In shadow nothing is refused, and the account says what would have waited.
func ExampleLedger_shadow() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	d := dialer.Dialer{Ledger: &dialer.Ledger{Path: smallPath(), Shadow: true}}

	for range 5 {
		c, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
	}
	for _, a := range d.Ledger.Accounts() {
		fmt.Printf("%d of %d ports taken, %d dials beyond the limit\n", a.Taken(), a.Limit, a.Exceeded)
	}
	// Output: 5 of 2 ports taken, 3 dials beyond the limit
}

// Loopback and private addresses are not counted unless the path says so. Then the
// machine's own ports are what runs out.
func ExampleLedger_machine() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	path := netpath.AzurePublicIP() // which knows that they are held for 60 s
	path.Limits = []netpath.Limit{{Scope: netpath.Destination, N: 28_232}}
	path.Exempt = netpath.NoExempt()
	near := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path}}

	c, err := near.DialContext(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for _, a := range near.Ledger.Accounts() {
		fmt.Printf("%d of %d ports taken\n", a.Taken(), a.Limit)
	}
	// Output: 1 of 28232 ports taken
}

func ExampleSafeToRetry() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ln.Close() // nobody listens there any more
	d := dialer.Dialer{Ledger: new(dialer.Ledger)}
	_, err = d.DialContext(context.Background(), "tcp", ln.Addr().String())
	fmt.Println("it may have run:", !dialer.SafeToRetry(err))
	// Output: it may have run: false
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

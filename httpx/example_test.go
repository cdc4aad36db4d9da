package httpx_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/keepalive/netpath"
)

// One line in main tells every client of the program what its path is.
func ExampleNewClient() {
	dialer.DefaultLedger.Path = netpath.AzureAppService()

	client := httpx.NewClient(nil)
	client.Timeout = 10 * time.Second
	fmt.Printf("%T on %T\n", client, client.Transport)
	// Output: *http.Client on *httpx.Transport
}

// An SDK that wants an *http.Transport gets one that dials through natwise.
func ExampleInstall() {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: netpath.AzureAppService()}}
	if err := httpx.Install(tr, d); err != nil {
		fmt.Println(err)
	}
	fmt.Println(tr.MaxConnsPerHost, "connections a host, kept when idle:", tr.MaxIdleConnsPerHost)
	// Output: 127 connections a host, kept when idle: 127
}

// A program that has tuned its own *http.Transport keeps it.
func ExampleWrap() {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()

	tr := &http.Transport{ResponseHeaderTimeout: 5 * time.Second}
	client := &http.Client{Transport: httpx.Wrap(tr, &dialer.Dialer{Ledger: new(dialer.Ledger)})}
	defer client.CloseIdleConnections()

	resp, err := client.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 404 Not Found
}

// Two Transports that are alike, such as those of two SDKs, share their connections.
func ExampleTransport() {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	path := netpath.AzureAppService()
	path.Exempt = netpath.NoExempt() // count loopback too, to have something to show
	d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: path}}

	for range 2 {
		transport := &httpx.Transport{Dialer: d, MaxWait: 10 * time.Second}
		defer transport.Close(context.Background())

		resp, err := (&http.Client{Transport: transport}).Get(server.URL)
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body) // a body that was read leaves its connection to the next
		resp.Body.Close()
	}
	for _, a := range d.Ledger.Accounts() {
		fmt.Printf("%d of %d ports taken, %d idle\n", a.Taken(), a.Limit, a.Idle)
	}
	// Output: 1 of 128 ports taken, 1 idle
}

// A server that is overloaded for a moment is asked again, three times in all.
func ExampleRetry() {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()

	transport := &httpx.Transport{
		Dialer: &dialer.Dialer{Ledger: new(dialer.Ledger)},
		Retry: &httpx.Retry{
			First:    time.Millisecond,
			Methods:  []string{"PUT"}, // which this server takes twice
			Statuses: []int{429, 502, 503, 504},
		},
	}
	defer transport.Close(context.Background())

	req, err := http.NewRequest("PUT", server.URL, strings.NewReader("hello"))
	if err != nil {
		log.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode, "after", requests.Load(), "requests")
	// Output: 200 after 3 requests
}

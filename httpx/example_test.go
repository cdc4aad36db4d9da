package httpx_test

import (
	"fmt"
	"net/http"
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
	defer client.CloseIdleConnections()
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

func ExampleWrap() {
	tr := &http.Transport{TLSHandshakeTimeout: 5 * time.Second}
	client := &http.Client{Transport: httpx.Wrap(tr, nil)}
	defer client.CloseIdleConnections()
}

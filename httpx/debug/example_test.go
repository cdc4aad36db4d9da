package debug_test

import (
	"context"
	"net/http"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
	"github.com/natwise/natwise/keepalive/netpath"
)

// The page is for whoever runs the process, beside its other pages of that kind.
func ExamplePage() {
	dialer.DefaultLedger.Path = netpath.AzureAppService()

	inside := http.NewServeMux() // not the one that the world sees
	inside.Handle("/debug/natwise/", &debug.Page{})
	go http.ListenAndServe("localhost:6060", inside)
}

// In a container, whoever looks comes from outside, or through a proxy that makes everybody
// look like this machine: say yourself who may.
func ExamplePage_allow() {
	page := &debug.Page{Allow: func(r *http.Request) bool {
		return r.Header.Get("X-Forwarded-Email") == "operator@example.com"
	}}
	http.Handle("/debug/natwise/", page)
}

// A process that nobody looks at until something has happened keeps its last 15 minutes.
func ExamplePage_Record() {
	ctx, cancel := context.WithCancel(context.Background()) // which ends with the process
	defer cancel()
	page := new(debug.Page)
	go page.Record(ctx)
	http.Handle("/debug/natwise/", page)
}

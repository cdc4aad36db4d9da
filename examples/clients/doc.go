// Package clients shows how other people's HTTP clients are made to share one pool
// of connections: each file is one client, in the few lines that it takes, and its
// comments say what that client does by itself. Nobody imports this package; copy
// what you need. The README says where in each client's source that can be read.
//
// All of them take an http.RoundTripper, which is an *httpx.Transport or something
// around one (Traced). Make one for the program, give it to all, and close it last:
//
//	transport := new(httpx.Transport)
//	defer transport.Close(ctx)
//
// Transports that are made separately share their connections too, if their Dialer,
// their TLS configuration and their settings are the same.
package clients

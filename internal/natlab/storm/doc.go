// Storm sends the same work through the kernel lab with four clients, and lets
// the gateway count: a new http.Client for each request, http.DefaultTransport,
// an http.Transport tuned to the path's limit, and natwise.
//
//	go run ./internal/natlab/storm [-json] [-only NAME] [-full]
//
// It needs root or unprivileged user namespaces, and says so where there are
// neither. The exit status is zero only if every bound was kept.
//
// A bound on natwise beside another client, or beside its own steady work, is
// one on the ratio of pairs of runs that take turns: the median of three, or
// with -full the 95 % bound of ten. No other figure of a client is better than
// one run; natwise must not have failed in any.
//
// In the scenario close the gateway has room for twice as many flows of
// natwise's as the path allows, so that one too many is seen in its table. The
// others meet the limit itself, as everywhere; the kernel frees ports up to 1.4 s
// late (package natlab), which costs them something.
//
// Percentiles are of all requests, failed ones too. A client that is still at
// work when the scenario's time is over begins nothing more.
package main

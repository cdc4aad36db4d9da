// Package budget answers one question: may I open another flow of this
// account?
//
// Most programs need nothing of it: a dialer.Ledger keeps to the limits of its
// Path by itself. A Budget adds a bound that the path does not know, such as
// one shared with other processes. Who shares the ports depends on the NAT:
//
//   - The processes of one instance: Azure App Service, where the apps and
//     WebJobs of an instance have 128 together; the pods of a node behind Azure
//     Load Balancer. If their number is known, netpath.Profile.Sharers divides
//     the limit by it. Else Host gives each what the others leave.
//   - The instances behind one gateway: AWS NAT gateway, Azure NAT Gateway.
//     Sharers again, or package redisbudget, where there is a Redis.
//   - Nobody: a function or a container with ports of its own. Nothing is needed.
//
// PerKey is this process's own, for tests and smaller bounds, and All joins several.
//
// A Budget never blocks. Waiting, and remembering for how long a NAT holds the
// port of a closed flow, is the ledger's work; an Engine, which is shared, must
// know only how long that is at most, for those who are gone.
package budget

import "github.com/natwise/natwise/keepalive/netpath"

// A Budget hands out grants, one for each flow of an account. Its methods, and
// those of its grants, may be called by many goroutines and under other locks:
// they neither block, nor do I/O, nor call back. Package budgettest checks the
// contract.
type Budget interface {
	// Take returns a grant for one more flow of key, or false.
	Take(key netpath.Key) (Grant, bool)

	// Notify makes the budget send to c, without blocking, when a Take that
	// failed may succeed now and when a grant is revoked. A c of capacity one
	// misses nothing: whoever receives looks again at all that it holds and
	// wants. Like signal.Notify, it may be called for several channels.
	Notify(c chan<- struct{})
}

// A Grant is the permission to hold one port.
type Grant interface {
	// Release gives it back. Only the first call counts.
	Release()

	// Revoked reports whether the budget wants the grant back as soon as that
	// is possible without breaking anything. It does not matter which ones: a
	// budget that wants some says so of those about which it is asked first, and
	// stays with it. Ask first about what is missed least.
	Revoked() bool
}

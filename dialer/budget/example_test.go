package budget_test

import (
	"fmt"
	"log"
	"net/netip"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A Ledger asks its Budget for each flow, besides its Path: here for two to each
// destination, whatever the NAT would carry.
func ExamplePerKey() {
	b := budget.PerKey(2)
	key := netpath.Key{Dest: netip.MustParseAddrPort("203.0.113.7:443"), Network: "tcp"}
	for range 3 {
		_, ok := b.Take(key)
		fmt.Println(ok)
	}
	b.SetLimit(3)
	_, ok := b.Take(key)
	fmt.Println(ok, "since the limit has moved")
	// Output:
	// true
	// true
	// false
	// true since the limit has moved
}

// What is bounded twice needs the permission of both. What one has given is not kept if the
// other refuses.
func ExampleAll() {
	mine, ours := budget.PerKey(10), budget.PerKey(1)
	b := budget.All(mine, ours)
	key := netpath.Key{Dest: netip.MustParseAddrPort("203.0.113.7:443"), Network: "tcp"}

	grant, ok := b.Take(key)
	fmt.Println(ok)
	_, ok = b.Take(key)
	fmt.Println(ok)
	grant.Release()
	_, ok = b.Take(key)
	fmt.Println(ok)
	// Output:
	// true
	// false
	// true
}

// The processes of one instance share its ports: each of them begins like this.
func ExampleHost() {
	path := netpath.AzureAppService()
	shared, err := budget.Host("/dev/shm/natwise", path.Limit(netpath.Destination))
	if err != nil {
		log.Fatal(err) // or divide: path.Sharers = 4
	}
	defer shared.Close()
	dialer.DefaultLedger.Path = path
	dialer.DefaultLedger.Budget = shared
}

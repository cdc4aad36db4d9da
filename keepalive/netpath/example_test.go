package netpath_test

import (
	"fmt"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A web app reaches an Azure SQL database through the platform's load balancer
// and the database's gateway.
func ExampleChain() {
	p := netpath.Chain(netpath.AzureAppService(), netpath.AzureSQLGateway())
	fmt.Println(p.Idle, p.AtIdle, p.Counts)
	fmt.Println(p.Limit(netpath.Destination), p.Hold.FIN, p.Hold.RST)
	source, grade := p.Cite("Counts")
	fmt.Println(source, grade)
	// Output:
	// 4m0s drop bytes
	// 128 4m0s 15s
	// techcommunity 3268601, Microsoft Q&A 802133 reported
}

// A virtual machine behind a load balancer gets a NAT gateway: from then on
// the load balancer's ports no longer matter.
func ExampleAzureOutbound() {
	gateway, rule := netpath.AzureNATGateway(2), netpath.AzureLoadBalancer(1024)
	gateway.Sharers = 40 // machines in its subnets
	p := netpath.AzureOutbound(&gateway, &rule, nil)
	fmt.Println(p.Name, p.Limit(netpath.Destination))
	// Output: azure-nat-gateway 2250
}

func ExampleLookup() {
	p, err := netpath.Lookup("gcp-cloud-nat")
	fmt.Println(p, err)
	_, err = netpath.Lookup("openbsd")
	fmt.Println(err)
	// Output:
	// gcp-cloud-nat: 64 by destination; idle 1200s, then drop, counts segments; holds FIN 120s, RST 120s, SYN 30s, idle unknown <nil>
	// netpath: no profile "openbsd", there are openbsd-pf
}

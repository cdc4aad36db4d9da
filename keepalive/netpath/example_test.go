package netpath_test

import (
	"fmt"
	"net/netip"
	"time"

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

// How many connections to one address a path carries that live for a moment only: its
// ports, divided by how long each is held after a FIN.
func ExampleProfile_Limit() {
	aws, azure := netpath.AWSNATGateway(1), netpath.AzureNATGateway(1)
	aws.Sharers, azure.Sharers = 40, 40 // instances that use the gateway
	gcp := netpath.GCPCloudNAT(64)
	gcp.Sharers = 2 // processes on the machine

	for _, p := range []netpath.Profile{netpath.AzureAppService(), aws, azure, netpath.GCPCloudNAT(64), gcp} {
		ports := p.Limit(netpath.Destination)
		fmt.Printf("%s: %d ports, %.2f connections a second\n", p.Name, ports, float64(ports)/p.Hold.FIN.Seconds())
	}
	// Output:
	// azure-app-service: 128 ports, 0.53 connections a second
	// aws-nat-gateway: 1237 ports, 10.31 connections a second
	// azure-nat-gateway: 1125 ports, 17.31 connections a second
	// gcp-cloud-nat: 64 ports, 0.53 connections a second
	// gcp-cloud-nat: 28 ports, 0.23 connections a second
}

// A rule of the load balancer has been given more ports, and more patience, than most.
func ExampleProfile() {
	p := netpath.AzureLoadBalancer(8192)
	p.Idle = 15 * time.Minute
	p.Sharers = 4 // pods on the machine
	fmt.Println(p.Limit(netpath.Destination), "ports for each of them:", p.Validate())

	p.Sharers = -1
	fmt.Println(p.Validate())
	// Output:
	// 1843 ports for each of them: <nil>
	// netpath: profile "azure-load-balancer": Sharers is -1, want 0 or more
}

// A number that nobody published is marked as a guess.
func ExampleProfile_Cite() {
	p := netpath.AWSNATGateway(1)
	for _, field := range []string{"Idle", "Hold.FIN"} {
		source, grade := p.Cite(field)
		fmt.Printf("%s: %s (%s)\n", field, grade, source)
	}
	// Output:
	// Idle: documented (AWS: vpc-nat-gateway, nat-gateway-troubleshooting, vpc-nat-comparison (undated))
	// Hold.FIN: assumed (not documented; a cautious guess)
}

// What a NAT counts together: connections to one address and port. Private addresses it
// leaves alone.
func ExampleProfile_Keys() {
	p := netpath.AzureAppService()
	for _, dst := range []string{"20.1.2.3:443", "20.1.2.3:8443", "10.0.0.7:5432"} {
		fmt.Println(p.Keys(nil, netip.Addr{}, netip.MustParseAddrPort(dst), "tcp"))
	}
	// Output:
	// [tcp 20.1.2.3:443]
	// [tcp 20.1.2.3:8443]
	// []
}

// The 51st machine halves the ports of the others.
func ExampleAzureDefaultPorts() {
	for _, machines := range []int{50, 51} {
		fmt.Println(netpath.AzureDefaultPorts(machines))
	}
	// Output:
	// 1024 <nil>
	// 512 <nil>
}

func ExampleAll() {
	for p := range netpath.All() {
		if p.Counts == netpath.Requests {
			fmt.Println(p.Name, "forgets after", p.Idle, "without a request")
		}
	}
	// Output:
	// azure-front-door forgets after 1m1s without a request
	// azure-application-gateway forgets after 1m15s without a request
	// aws-alb forgets after 1m0s without a request
	// cloudflare-edge forgets after 6m40s without a request
}

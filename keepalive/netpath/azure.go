package netpath

import (
	"fmt"
	"time"
)

const (
	azureLBPages        = "Azure: load-balancer-outbound-connections, outbound-rules (2024-04), load-balancer-tcp-reset (2024-07)"
	azureLBHolds        = "Azure: load-balancer-outbound-connections, versions of 2018 to 2020; the page no longer says"
	azureAppServicePage = "Azure: troubleshoot-intermittent-outbound-connection-errors (2020-07-24)"
	azureNATPages       = "Azure: nat-gateway-resource (2023-07-10), nat-gateway-snat (2023-07)"

	// azureSmallPool is what each of up to 50 virtual machines gets.
	azureSmallPool = 1024
)

// AzureLoadBalancer is a Standard Load Balancer with an outbound rule that
// gives each instance this many ports, without TCP reset. AzureDefaultPorts
// tells the number where no rule does.
func AzureLoadBalancer(ports int) Profile {
	return Profile{
		Name:   "azure-load-balancer",
		Source: azureLBPages,
		Grade:  Documented,
		Limits: []Limit{{Destination, ports}},
		Idle:   240 * time.Second, // 4 minutes, the default; a rule may say more
		AtIdle: Drop,
		Hold:   Hold{FIN: 240 * time.Second, RST: 15 * time.Second, SYN: 240 * time.Second, Idle: None},
		Cites: append(guessed("Hold.SYN"),
			Cite{"Hold.FIN", azureLBHolds, Reported},
			Cite{"Hold.RST", azureLBHolds, Reported}),
	}
}

// AzureLoadBalancerReset is AzureLoadBalancer with TCP reset enabled: both ends
// of a silent flow get a RST at once.
func AzureLoadBalancerReset(ports int) Profile {
	p := AzureLoadBalancer(ports)
	p.Name = "azure-load-balancer-reset"
	p.AtIdle = ResetBoth
	return p
}

// AzureDefaultPorts returns how many ports the load balancer gives to each of
// so many virtual machines when no outbound rule says so. Ask for the largest
// pool that you will scale to: crossing a step takes ports away from machines
// that run already. Source: load-balancer-outbound-connections and the AKS page
// configure-load-balancer-standard.
func AzureDefaultPorts(vms int) (int, error) {
	if vms < 1 || vms > 1000 {
		return 0, fmt.Errorf("netpath: AzureDefaultPorts: vms is %d, want 1 to 1000", vms)
	}
	ports := azureSmallPool
	for _, step := range []int{50, 100, 200, 400, 800} {
		if vms > step {
			ports /= 2
		}
	}
	return ports, nil
}

// AzureDefaultOutbound is the access that Azure gives a virtual machine for
// which nobody chose another. How many ports it has is not published.
func AzureDefaultOutbound() Profile {
	return Profile{
		Name:   "azure-default-outbound",
		Source: "Azure: default-outbound-access (undated)",
		Grade:  Documented,
		Idle:   240 * time.Second,
		AtIdle: Drop,
		Hold:   Hold{FIN: 240 * time.Second, RST: 240 * time.Second, SYN: 240 * time.Second},
		Cites:  guessed("Hold.FIN", "Hold.RST", "Hold.SYN"),
	}
}

// AzureNATGateway is a NAT Gateway of the Standard SKU with this many public
// addresses. Its ports are shared by all machines in its subnets: set Sharers.
func AzureNATGateway(addresses int) Profile {
	return Profile{
		Name:   "azure-nat-gateway",
		Source: azureNATPages,
		Grade:  Documented,
		Limits: []Limit{{Destination, 50_000 * addresses}},
		Idle:   240 * time.Second, // 4 to 120 minutes
		AtIdle: ResetNext,
		Hold:   Hold{FIN: 65 * time.Second, RST: 16 * time.Second, SYN: 30 * time.Second},
	}
}

// AzureNATGatewayV2 is a NAT Gateway of the StandardV2 SKU. A single flow is
// held to 1 Gbps and 100,000 packets a second, so that one connection for
// everything has a ceiling.
func AzureNATGatewayV2(addresses int) Profile {
	p := AzureNATGateway(addresses)
	p.Name = "azure-nat-gateway-v2"
	p.Source = "Azure: nat-sku (2025-11, then a preview)"
	p.Grade = Reported
	p.Hold.RST = p.Hold.FIN // no table for V2: take the first version's, without its discount
	p.Cites = guessed("Hold.FIN", "Hold.RST", "Hold.SYN")
	return p
}

// AzureFirewall is Azure Firewall towards the internet with this many public
// addresses. Each of its instances, two or more, has 2,496 ports an address;
// flows need not spread evenly, so one instance is counted.
func AzureFirewall(addresses int) Profile {
	return Profile{
		Name:   "azure-firewall",
		Source: "Azure: tcp-session-behavior (2025-03), integrate-with-nat-gateway (undated)",
		Grade:  Documented,
		Limits: []Limit{{Destination, 2496 * addresses}},
		Idle:   240 * time.Second,
		AtIdle: ResetBoth,
		Hold:   Hold{FIN: 240 * time.Second, RST: 240 * time.Second, SYN: 240 * time.Second},
		Drain:  90 * time.Second, // from the start of a scale-in
		Cites:  guessed("Hold.FIN", "Hold.RST", "Hold.SYN"),
	}
}

// AzureFirewallEastWest is Azure Firewall between private networks, where it
// translates nothing unless told to, and sends no RST.
func AzureFirewallEastWest() Profile {
	return Profile{
		Name:   "azure-firewall-east-west",
		Source: "Azure: tcp-session-behavior (2025-03)",
		Grade:  Documented,
		Idle:   300 * time.Second, // fixed
		AtIdle: Drop,
		Hold:   noSNAT,
		Drain:  90 * time.Second,
		Cites:  guessed("Hold.FIN", "Hold.RST", "Hold.SYN", "Hold.Idle"),
	}
}

// AzurePublicIP is a virtual machine with its own public address: the machine's
// local ports are the limit (28,232 on Linux), and its own TIME_WAIT the hold.
func AzurePublicIP() Profile {
	const linux = "Linux: ip_local_port_range 32768 to 60999, TIME_WAIT 60 s"
	return Profile{
		Name:   "azure-vm-public-ip",
		Source: "Azure: load-balancer-tcp-reset (2024-07): 4 minutes, locked",
		Grade:  Reported,
		Limits: []Limit{{SourceDestination, 28_232}},
		Idle:   240 * time.Second,
		AtIdle: Drop,
		Hold:   Hold{FIN: 60 * time.Second, RST: None, SYN: 60 * time.Second, Idle: None},
		Cites: append(guessed("Hold.SYN", "Hold.Idle"),
			Cite{"Limits[0]", linux, Reported},
			Cite{"Hold.FIN", linux, Reported},
			Cite{"Hold.RST", linux, Reported}),
	}
}

// AzureAKS is a Kubernetes cluster behind its managed load balancer. The ports
// are the node's, shared by all its pods: set Sharers. AzureDefaultPorts tells
// how many, by the number of nodes, where AllocatedOutboundPorts is 0.
func AzureAKS(ports int) Profile {
	p := AzureLoadBalancerReset(ports)
	p.Name = "azure-aks"
	p.Source = "Azure: AKS, configure-load-balancer-standard (undated)"
	p.Idle = 30 * time.Minute // 4 to 120 minutes
	p.Cites = append(p.Cites, Cite{"Hold.Idle", azureLBPages, Documented})
	return p
}

// AzureAppService is a multi-tenant App Service plan: 128 ports an instance are
// guaranteed, shared by all apps and WebJobs on it. With VNet integration and
// a NAT gateway it is AzureNATGateway that counts.
func AzureAppService() Profile {
	p := AzureLoadBalancer(128)
	p.Name = "azure-app-service"
	p.Source = azureAppServicePage
	p.Cites = guessed("Hold.SYN")
	return p
}

// AzureFunctions is the Consumption plan of Functions: App Service's ports, and
// 600 active connections an instance.
func AzureFunctions() Profile {
	p := AzureAppService()
	p.Name = "azure-functions"
	p.Limits = append(p.Limits, Limit{Sockets, 600})
	p.Cites = append(p.Cites, Cite{"Limits[1]", "Azure: manage-connections (undated; its version of 2018 said 300)", Documented})
	return p
}

// AzureContainerApps is Container Apps. No number is published; users hit a
// limit at 120 to 160 connections a container.
func AzureContainerApps() Profile {
	return Profile{
		Name:   "azure-container-apps",
		Source: "not documented; users in microsoft/azure-container-apps#1422, #1042, #517; assumed to be like App Service",
		Grade:  Assumed,
		Limits: []Limit{{Destination, 128}},
		Idle:   240 * time.Second,
		AtIdle: Drop,
		Hold:   Hold{FIN: 240 * time.Second, RST: 240 * time.Second, SYN: 240 * time.Second},
	}
}

// AzureSQLGateway is what stands before an Azure SQL database that is reached
// by the Proxy policy. It counts the database protocol only: not TCP keepalive.
func AzureSQLGateway() Profile {
	return Profile{
		Name:   "azure-sql-gateway",
		Source: "techcommunity 3268601, Microsoft Q&A 802133",
		Grade:  Reported,
		Idle:   30 * time.Minute, // "about"
		AtIdle: Close,
		Counts: Bytes,
		Hold:   noSNAT,
	}
}

// AzureRedis is Azure Cache for Redis, which closes a client that sent no
// command for ten minutes.
func AzureRedis() Profile {
	return Profile{
		Name:   "azure-redis",
		Source: "Azure: cache-best-practices-connection (undated)",
		Grade:  Documented,
		Idle:   10 * time.Minute,
		AtIdle: Close,
		Counts: Bytes,
		Hold:   noSNAT,
	}
}

// AzureFrontDoor is Front Door as its client sees it.
func AzureFrontDoor() Profile {
	return Profile{
		Name:   "azure-front-door",
		Source: "Azure: front-door-limits (2021)",
		Grade:  Reported,
		Idle:   61 * time.Second,
		AtIdle: Close,
		Counts: Requests,
		Hold:   noSNAT,
		Cites:  guessed("Counts"),
	}
}

// AzureApplicationGateway is Application Gateway v2 as its client sees it.
func AzureApplicationGateway() Profile {
	return Profile{
		Name:   "azure-application-gateway",
		Source: "Azure: Application Gateway FAQ, a copy (undated)",
		Grade:  Reported,
		Idle:   75 * time.Second, // the HTTP keep-alive timer; v1: 120 s
		AtIdle: Close,
		Counts: Requests,
		Hold:   noSNAT,
		Cites:  guessed("Counts"),
	}
}

// AzureOutbound returns the one way out that Azure takes of those that a
// virtual machine has: the NAT gateway, else its own public address, else the
// load balancer's outbound rule, else default outbound access. Nil: it does not
// have that one. They replace each other and are never added up. A route
// through an appliance or a firewall goes before all of them. Source: Azure,
// nat-overview (2022-12-06), and outbound-rules.
func AzureOutbound(natGateway, outboundRule, publicIP *Profile) Profile {
	for _, p := range []*Profile{natGateway, publicIP, outboundRule} {
		if p != nil {
			return *p
		}
	}
	return AzureDefaultOutbound()
}

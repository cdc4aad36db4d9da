package netpath

import (
	"fmt"
	"iter"
	"strings"
)

// known makes every profile. Those that depend on a size come in their smallest
// or default one.
var known = []func() Profile{
	Unknown,

	func() Profile { return AzureLoadBalancer(azureSmallPool) },
	func() Profile { return AzureLoadBalancerReset(azureSmallPool) },
	AzureDefaultOutbound,
	func() Profile { return AzureNATGateway(1) },
	func() Profile { return AzureNATGatewayV2(1) },
	func() Profile { return AzureFirewall(1) },
	AzureFirewallEastWest,
	AzurePublicIP,
	func() Profile { return AzureAKS(azureSmallPool) },
	AzureAppService,
	AzureFunctions,
	AzureContainerApps,
	AzureSQLGateway,
	AzureRedis,
	AzureFrontDoor,
	AzureApplicationGateway,

	func() Profile { return AWSNATGateway(1) },
	AWSNLB,
	AWSALB,
	AWSGatewayLB,
	AWSNitro6,
	AWSLambdaVPC,

	func() Profile { return GCPCloudNAT(64) },
	GCPCloudNATDynamic,
	GCPFirewall,
	CloudflareEdge,

	func() Profile { return LinuxSNAT(64_512) },
	KubeProxy,
	KubeIPVS,
	OpenBSDPF,
	RFC5382,
}

// All returns every profile of this package, cloud by cloud. Those that depend
// on a size come as Lookup returns them.
func All() iter.Seq[Profile] {
	return func(yield func(Profile) bool) {
		for _, profile := range known {
			if !yield(profile()) {
				return
			}
		}
	}
}

// Lookup returns the profile of this name, such as "azure-app-service". Where a
// size matters it is the default: one address of a gateway, the 1,024 ports that
// a load balancer gives to each of up to 50 machines, Cloud NAT's 64. The error
// for an unknown name lists those that share a word with it, or all.
func Lookup(name string) (Profile, error) {
	var names, near []string
	for p := range All() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
		if shareWord(p.Name, name) {
			near = append(near, p.Name)
		}
	}
	if near == nil {
		near = names
	}
	return Profile{}, fmt.Errorf("netpath: no profile %q, there are %s", name, strings.Join(near, ", "))
}

func shareWord(known, asked string) bool {
	for word := range strings.SplitSeq(strings.ToLower(asked), "-") {
		if len(word) > 1 && strings.Contains(known, word) {
			return true
		}
	}
	return false
}

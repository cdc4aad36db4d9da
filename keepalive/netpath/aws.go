package netpath

import "time"

// AWSNATGateway is a NAT gateway with this many IPv4 addresses. Its ports are
// shared by all its subnets: set Sharers. How long it holds a port is not
// documented.
func AWSNATGateway(addresses int) Profile {
	return Profile{
		Name:   "aws-nat-gateway",
		Source: "AWS: vpc-nat-gateway, nat-gateway-troubleshooting, vpc-nat-comparison (undated)",
		Grade:  Documented,
		Limits: []Limit{{Destination, 55_000 * addresses}},
		Idle:   350 * time.Second, // fixed
		AtIdle: ResetNext,
		Hold:   Hold{FIN: 120 * time.Second, RST: 120 * time.Second, SYN: 120 * time.Second},
		Cites:  guessed("Hold.FIN", "Hold.RST", "Hold.SYN"),
	}
}

// AWSNLB is a TCP listener of a Network Load Balancer.
func AWSNLB() Profile {
	return Profile{
		Name:   "aws-nlb",
		Source: "AWS: network-load-balancers, update-idle-timeout (undated)",
		Grade:  Documented,
		Idle:   350 * time.Second, // 60 s to 6,000 s; fixed before 2024-09
		AtIdle: ResetNext,
		Hold:   noSNAT,
	}
}

// AWSALB is an Application Load Balancer. Neither TCP keepalive nor an HTTP/2
// PING breaks the silence.
func AWSALB() Profile {
	return Profile{
		Name:   "aws-alb",
		Source: "AWS: the pages of the classic and the application load balancer, in excerpts (undated)",
		Grade:  Reported,
		Idle:   60 * time.Second, // 1 s to 4,000 s
		AtIdle: Close,
		Counts: Requests,
		Hold:   noSNAT,
	}
}

// AWSGatewayLB is a Gateway Load Balancer: after the silence, the appliance
// behind it drops what is not a SYN.
func AWSGatewayLB() Profile {
	return Profile{
		Name:   "aws-gateway-lb",
		Source: "AWS: gateway/update-idle-timeout (undated)",
		Grade:  Documented,
		Idle:   350 * time.Second, // 60 s to 6,000 s
		AtIdle: Drop,
		Hold:   noSNAT,
	}
}

// AWSNitro6 is the tracking of security groups on an EC2 instance of the sixth
// Nitro generation. Older ones remember for five days.
func AWSNitro6() Profile {
	return Profile{
		Name:   "aws-ec2-nitro6",
		Source: "AWS: EC2 API ConnectionTrackingSpecification; AWS blog (2025-06)",
		Grade:  Reported, // one of the two was seen in excerpts only
		Idle:   350 * time.Second,
		AtIdle: Drop,
		Hold:   noSNAT,
	}
}

// AWSLambdaVPC is a function in a VPC: its network interface carries 65,000
// connections, shared by all functions with the same subnet and security group.
// Its sandbox is frozen between invocations.
func AWSLambdaVPC() Profile {
	return Profile{
		Name:    "aws-lambda-vpc",
		Source:  "AWS: vpc-nat-gateway (undated), for the gateway behind it",
		Grade:   Reported,
		Limits:  []Limit{{AllPorts, 65_000}},
		Idle:    350 * time.Second,
		AtIdle:  ResetNext,
		Freezes: true,
		Cites:   []Cite{{"Limits[0]", "AWS: Lambda developer guide (undated)", Documented}},
	}
}

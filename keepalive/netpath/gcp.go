package netpath

import "time"

const gcpNATPages = "Google: text of the RouterNat API and its Terraform resource (undated)"

// GCPCloudNAT is Cloud NAT with this many ports for each virtual machine, 64 by
// default. With endpoint-independent mapping they are for all destinations
// together: use the scope AllPorts.
func GCPCloudNAT(ports int) Profile {
	p := GCPCloudNATDynamic()
	p.Name = "gcp-cloud-nat"
	p.Limits = []Limit{{Destination, ports}}
	return p
}

// GCPCloudNATDynamic is Cloud NAT with dynamic port allocation. It gives a
// machine 32 ports or more, and further ones in steps while they are asked for,
// so that no limit is set here; the gateway's maximum is one to add.
func GCPCloudNATDynamic() Profile {
	return Profile{
		Name:   "gcp-cloud-nat-dynamic",
		Source: gcpNATPages,
		Grade:  Reported,
		Idle:   1200 * time.Second, // settable
		AtIdle: Drop,
		Hold:   Hold{FIN: 120 * time.Second, RST: 120 * time.Second, SYN: 30 * time.Second},
		Cites: append(guessed("Hold.RST"),
			Cite{"AtIdle", "blogs (2026-02)", Reported}),
	}
}

// GCPFirewall is the connection tracking of a VPC's firewall. It binds before
// Cloud NAT does, and is made anew by a packet from the client, not by one from
// the server.
func GCPFirewall() Profile {
	return Profile{
		Name:    "gcp-vpc-firewall",
		Source:  "Google: compute/docs/troubleshooting, in excerpts (undated)",
		Grade:   Reported,
		Idle:    600 * time.Second,
		AtIdle:  Drop,
		Hold:    noSNAT,
		Resumes: true,
	}
}

package netpath_test

import (
	"testing"

	"github.com/natwise/natwise/keepalive/netpath"
)

func TestAzureTakesPortsAwayAtEachStepOfThePool(t *testing.T) {
	tests := []struct{ vms, want int }{
		{1, 1024}, {50, 1024}, {51, 512}, {100, 512}, {101, 256}, {200, 256}, {201, 128},
		{400, 128}, {401, 64}, {800, 64}, {801, 32}, {1000, 32},
	}
	for _, tt := range tests {
		got, err := netpath.AzureDefaultPorts(tt.vms)
		if err != nil || got != tt.want {
			t.Errorf("%d machines: got %d, %v, want %d", tt.vms, got, err, tt.want)
		}
	}
}

func TestAPoolThatAzureDoesNotHaveIsAnError(t *testing.T) {
	_, err := netpath.AzureDefaultPorts(1001)
	if err == nil || err.Error() != "netpath: AzureDefaultPorts: vms is 1001, want 1 to 1000" {
		t.Errorf("got %v", err)
	}
	if _, err := netpath.AzureDefaultPorts(0); err == nil {
		t.Error("0 machines: no error")
	}
}

func TestAzureTakesOneWayOut(t *testing.T) {
	gateway, rule, public := netpath.AzureNATGateway(1), netpath.AzureLoadBalancer(1024), netpath.AzurePublicIP()
	tests := []struct {
		gateway, rule, public *netpath.Profile
		want                  string
	}{
		{&gateway, &rule, &public, "azure-nat-gateway"},
		{&gateway, nil, nil, "azure-nat-gateway"},
		{nil, &rule, &public, "azure-vm-public-ip"},
		{nil, &rule, nil, "azure-load-balancer"},
		{nil, nil, &public, "azure-vm-public-ip"},
		{nil, nil, nil, "azure-default-outbound"},
	}
	for _, tt := range tests {
		if got := netpath.AzureOutbound(tt.gateway, tt.rule, tt.public); got.Name != tt.want {
			t.Errorf("got %s, want %s", got.Name, tt.want)
		}
	}
}

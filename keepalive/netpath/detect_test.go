package netpath_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/natwise/natwise/keepalive/netpath"
)

func TestDetectKnowsAPlatformByItsMarker(t *testing.T) {
	const azureTag = "7783-7084-3265-9085-8269-3286-77\n"
	type files = map[string]string
	tests := []struct {
		name     string
		env      files
		firmware files
		want     string
		marker   string
	}{
		{"App Service", files{"WEBSITE_SITE_NAME": "shop"}, nil, "azure-app-service", "WEBSITE_SITE_NAME"},
		{"Functions, Consumption", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom", "WEBSITE_SKU": "Dynamic"},
			nil, "azure-functions", "FUNCTIONS_WORKER_RUNTIME"},
		{"Functions, plan unknown", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom"},
			nil, "azure-functions", "FUNCTIONS_WORKER_RUNTIME"},
		{"Functions, a plan without the limit", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom", "WEBSITE_SKU": "Standard"},
			nil, "azure-app-service", "WEBSITE_SITE_NAME"},
		{"Functions on Container Apps", files{"CONTAINER_APP_NAME": "f", "WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom"},
			nil, "azure-container-apps", "CONTAINER_APP_NAME"},
		{"Lambda", files{"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_EXECUTION_ENV": "AWS_Lambda_go"},
			nil, "aws-lambda-vpc", "AWS_LAMBDA_FUNCTION_NAME"},
		{"ECS", files{"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"}, nil, "aws-ec2-nitro6 + aws-nat-gateway", "AWS_EXECUTION_ENV"},
		{"Cloud Run", files{"K_SERVICE": "hello"}, nil, "unknown", "K_SERVICE"},
		{"Azure machine", nil, files{"chassis_asset_tag": azureTag}, "azure-default-outbound", "chassis_asset_tag"},
		{"EC2", nil, files{"sys_vendor": "Amazon EC2\n"}, "aws-ec2-nitro6 + aws-nat-gateway", "sys_vendor"},
		{"EC2 by its tag", nil, files{"board_asset_tag": "i-0af01c0123456789a\n"}, "aws-ec2-nitro6 + aws-nat-gateway", "board_asset_tag"},
		{"Compute Engine", nil, files{"product_name": "Google Compute Engine\n"}, "gcp-vpc-firewall + gcp-cloud-nat-dynamic", "product_name"},
		{"platform before machine", files{"WEBSITE_SITE_NAME": "shop"}, files{"chassis_asset_tag": azureTag},
			"azure-app-service", "WEBSITE_SITE_NAME"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			firmware := fstest.MapFS{}
			for name, text := range tt.firmware {
				firmware[name] = &fstest.MapFile{Data: []byte(text)}
			}
			p, ok := netpath.DetectIn(func(name string) string { return tt.env[name] }, firmware)
			if !ok || p.Name != tt.want {
				t.Fatalf("got %s, %v, want %s", p.Name, ok, tt.want)
			}
			if !strings.Contains(p.Source, tt.marker) {
				t.Errorf("the source does not name %s: %q", tt.marker, p.Source)
			}
			if err := p.Validate(); err != nil {
				t.Error(err)
			}
			if len(tt.env) == 0 && len(p.Limits) > 0 {
				t.Errorf("a limit for a way out that cannot be seen: %v", p)
			}
		})
	}
}

func TestDetectDoesNotGuess(t *testing.T) {
	hyperV := fstest.MapFS{
		"sys_vendor":   {Data: []byte("Microsoft Corporation\n")},
		"product_name": {Data: []byte("Virtual Machine\n")},
	}
	for _, firmware := range []fstest.MapFS{nil, hyperV} {
		p, ok := netpath.DetectIn(func(string) string { return "" }, firmware)
		if ok || p.String() != netpath.Unknown().String() {
			t.Errorf("got %v, %v", p, ok)
		}
	}
	local := map[string]string{"FUNCTIONS_WORKER_RUNTIME": "custom"} // Core Tools on a laptop set this
	if p, ok := netpath.DetectIn(func(name string) string { return local[name] }, fstest.MapFS{}); ok {
		t.Errorf("got %v", p)
	}
}

func TestAFrozenProcessIsDetectedAsSuch(t *testing.T) {
	p, _ := netpath.DetectIn(func(name string) string {
		if name == "K_SERVICE" {
			return "hello"
		}
		return ""
	}, fstest.MapFS{})
	if !p.Freezes {
		t.Error("Cloud Run may take the CPU away between requests")
	}
}

func TestDetectRunsOnThisMachine(t *testing.T) {
	p, _ := netpath.Detect()
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

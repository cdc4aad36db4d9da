package netpath_test

import (
	"os"
	"path/filepath"
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
		limits   int
	}{
		{"App Service", files{"WEBSITE_SITE_NAME": "shop"}, nil, "azure-app-service", "WEBSITE_SITE_NAME", 1},
		{"App Service Environment", files{"WEBSITE_SITE_NAME": "shop", "WEBSITE_SKU": "IsolatedV2"},
			nil, "azure-app-service", "WEBSITE_SKU", 0},
		{"Functions, Consumption", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom", "WEBSITE_SKU": "Dynamic"},
			nil, "azure-functions", "WEBSITE_SKU", 2},
		{"Functions, plan unknown", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom"},
			nil, "azure-app-service", "WEBSITE_SITE_NAME", 1},
		{"Functions, a plan without the limit", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom", "WEBSITE_SKU": "Standard"},
			nil, "azure-app-service", "WEBSITE_SITE_NAME", 1},
		{"Functions in a container with an instance of its own", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom",
			"CONTAINER_NAME": "c", "WEBSITE_INSTANCE_ID": "i"}, nil, "azure-app-service", "WEBSITE_SITE_NAME", 1},
		{"Functions, Flex before it knows its plan", files{"WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom",
			"CONTAINER_NAME": "c", "LEGION_SERVICE_HOST": "l"}, nil, "unknown", "LEGION_SERVICE_HOST", 0},
		{"Functions on Container Apps", files{"CONTAINER_APP_NAME": "f", "WEBSITE_SITE_NAME": "f", "FUNCTIONS_WORKER_RUNTIME": "custom"},
			nil, "azure-container-apps", "CONTAINER_APP_NAME", 1},
		{"Functions on a cluster", files{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "WEBSITE_SITE_NAME": "f", "WEBSITE_SKU": "Dynamic"},
			files{"chassis_asset_tag": azureTag}, "azure-default-outbound", "chassis_asset_tag", 0},
		{"Lambda", files{"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_EXECUTION_ENV": "AWS_Lambda_go"},
			nil, "aws-lambda-vpc", "AWS_LAMBDA_FUNCTION_NAME", 0},
		{"ECS", files{"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"}, nil, "aws-ec2-nitro6 + aws-nat-gateway", "AWS_EXECUTION_ENV", 0},
		{"Cloud Run", files{"K_SERVICE": "hello"}, nil, "unknown", "K_SERVICE", 0},
		{"Cloud Run job that sees its host", files{"CLOUD_RUN_JOB": "hello"}, files{"product_name": "Google Compute Engine\n"},
			"unknown", "CLOUD_RUN_JOB", 0},
		{"Cloud Run worker pool", files{"CLOUD_RUN_WORKER_POOL": "hello"}, nil, "unknown", "CLOUD_RUN_WORKER_POOL", 0},
		{"Knative on a cluster", files{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "K_SERVICE": "hello"},
			files{"product_name": "Google Compute Engine\n"}, "gcp-vpc-firewall + gcp-cloud-nat-dynamic", "product_name", 0},
		{"Azure machine", nil, files{"chassis_asset_tag": azureTag}, "azure-default-outbound", "chassis_asset_tag", 0},
		{"EC2", nil, files{"sys_vendor": "Amazon EC2\n"}, "aws-ec2-nitro6 + aws-nat-gateway", "sys_vendor", 0},
		{"EC2 by its tag", nil, files{"board_asset_tag": "i-0af01c0123456789a\n"}, "aws-ec2-nitro6 + aws-nat-gateway", "board_asset_tag", 0},
		{"Compute Engine", nil, files{"product_name": "Google Compute Engine\n"}, "gcp-vpc-firewall + gcp-cloud-nat-dynamic", "product_name", 0},
		{"platform before machine", files{"WEBSITE_SITE_NAME": "shop"}, files{"chassis_asset_tag": azureTag},
			"azure-app-service", "WEBSITE_SITE_NAME", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkDetected(t, marks{tt.env, tt.firmware}, tt.want, tt.marker, tt.limits)
		})
	}
}

// A documented marker need not be what a machine really has, so each file of
// testdata/markers is a machine that somebody wrote down, with its source.
func TestDetectKnowsEachRecordedPlatform(t *testing.T) {
	const (
		none = "" // not a platform that Detect knows
		aws  = "aws-ec2-nitro6 + aws-nat-gateway"
		gcp  = "gcp-vpc-firewall + gcp-cloud-nat-dynamic"
	)
	type expectation struct {
		profile string
		marker  string
		limits  int
	}
	want := map[string]expectation{
		"app-engine-flexible":           {none, "", 0},
		"app-engine-standard":           {"unknown", "GAE_ENV", 0},
		"app-runner":                    {aws, "AWS_EXECUTION_ENV", 0},
		"app-service-container":         {"azure-app-service", "WEBSITE_SITE_NAME", 1},
		"app-service-linux":             {"azure-app-service", "WEBSITE_SITE_NAME", 1},
		"app-service-windows-free":      {"azure-app-service", "WEBSITE_SITE_NAME", 1},
		"aws-execution-env-ec2":         {none, "", 0},
		"aws-execution-env-true":        {none, "", 0},
		"azure-arc-machine":             {none, "", 0},
		"azure-stack":                   {"azure-default-outbound", "chassis_asset_tag", 0},
		"azure-vm-gen1":                 {"azure-default-outbound", "chassis_asset_tag", 0},
		"azure-vm-gen2":                 {"azure-default-outbound", "chassis_asset_tag", 0},
		"azure-vm-megatrends":           {"azure-default-outbound", "chassis_asset_tag", 0},
		"batch-ec2":                     {aws, "AWS_EXECUTION_ENV", 0},
		"batch-fargate":                 {aws, "AWS_EXECUTION_ENV", 0},
		"cloud-functions-go111":         {none, "", 0},
		"cloud-run-job":                 {"unknown", "CLOUD_RUN_JOB", 0},
		"cloud-run-service":             {"unknown", "K_SERVICE", 0},
		"codebuild":                     {aws, "AWS_EXECUTION_ENV", 0},
		"container-apps":                {"azure-container-apps", "CONTAINER_APP_NAME", 1},
		"container-apps-job":            {"azure-container-apps", "CONTAINER_APP_JOB_NAME", 1},
		"container-apps-observed":       {"azure-container-apps", "CONTAINER_APP_NAME", 1},
		"ec2-nitro":                     {aws, "sys_vendor", 0},
		"ec2-nitro-tag":                 {aws, "board_asset_tag", 0},
		"ec2-xen":                       {aws, "bios_version", 0},
		"ecs-ec2":                       {aws, "AWS_EXECUTION_ENV", 0},
		"ecs-fargate":                   {aws, "AWS_EXECUTION_ENV", 0},
		"ecs-managed-instances":         {aws, "AWS_EXECUTION_ENV", 0},
		"eks-pod":                       {none, "", 0},
		"functions-consumption-linux":   {"azure-functions", "CONTAINER_NAME", 2},
		"functions-consumption-windows": {"azure-functions", "WEBSITE_SKU", 2},
		"functions-flex-fixture":        {"unknown", "WEBSITE_SKU", 0},
		"functions-image-local":         {none, "", 0},
		"functions-premium-linux":       {"azure-app-service", "WEBSITE_SITE_NAME", 1},
		"gce":                           {gcp, "product_name", 0},
		"gce-container":                 {gcp, "product_name", 0},
		"gce-old":                       {gcp, "product_name", 0},
		"google-search-appliance":       {none, "", 0},
		"hetzner":                       {none, "", 0},
		"hyper-v-2012":                  {none, "", 0},
		"hyper-v-gen2":                  {none, "", 0},
		"kvm":                           {none, "", 0},
		"lambda":                        {"aws-lambda-vpc", "AWS_LAMBDA_FUNCTION_NAME", 0},
		"laptop-surface":                {none, "", 0},
		"nutanix":                       {none, "", 0},
		"openstack":                     {none, "", 0},
		"rhev":                          {none, "", 0},
		"vmware":                        {none, "", 0},
		"wsl":                           {none, "", 0},
		"xen-open-telekom-cloud":        {none, "", 0},
	}
	files, err := filepath.Glob("testdata/markers/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		w, ok := want[name]
		delete(want, name)
		t.Run(name, func(t *testing.T) {
			if !ok {
				t.Fatal("nobody says what this is")
			}
			checkDetected(t, readMarks(t, file), w.profile, w.marker, w.limits)
		})
	}
	for name := range want {
		t.Errorf("no record of %s", name)
	}
}

// marks is what Detect looks at: the environment and the firmware's tables.
type marks struct{ env, dmi map[string]string }

// readMarks reads a record: "# source: ...", then "env NAME=value" and
// "dmi file: value".
func readMarks(t *testing.T, file string) marks {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	source, lines, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if !strings.HasPrefix(source, "# source: ") {
		t.Fatalf("no source, but %q", source)
	}
	m := marks{map[string]string{}, map[string]string{}}
	for line := range strings.Lines(lines) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		into, separator := m.env, "="
		if kind == "dmi" {
			into, separator = m.dmi, ": "
		}
		name, value, ok := strings.Cut(rest, separator)
		if !ok || kind != "env" && kind != "dmi" {
			t.Fatalf("neither env NAME=value nor dmi file: value: %q", line)
		}
		into[name] = value
	}
	if len(m.env)+len(m.dmi) == 0 {
		t.Fatal("an empty record proves nothing")
	}
	return m
}

// checkDetected wants so many limits, so that none is claimed which the marker
// does not prove. An empty name wants nothing detected.
func checkDetected(t *testing.T, m marks, want, marker string, limits int) {
	t.Helper()
	firmware := fstest.MapFS{}
	for name, text := range m.dmi {
		firmware[name] = &fstest.MapFile{Data: []byte(text)}
	}
	p, ok := netpath.DetectIn(func(name string) string { return m.env[name] }, firmware)
	if want == "" {
		if ok || p.String() != netpath.Unknown().String() {
			t.Fatalf("got %v, %v, want nothing detected", p, ok)
		}
		return
	}
	if !ok || p.Name != want {
		t.Fatalf("got %s, %v, want %s", p.Name, ok, want)
	}
	_, decided, _ := strings.Cut(p.Source, "path detected by ")
	if !strings.Contains(decided, marker) {
		t.Errorf("the source does not name %s: %q", marker, p.Source)
	}
	if len(p.Limits) != limits {
		t.Errorf("got limits %v, want %d", p.Limits, limits)
	}
	for _, c := range p.Cites {
		if limits == 0 && strings.HasPrefix(c.Field, "Limits") {
			t.Errorf("a source for a limit that is not there: %v", c)
		}
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
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
	for marker, want := range map[string]bool{
		"K_SERVICE=hello":            true, // may have its CPU taken between requests
		"AWS_LAMBDA_FUNCTION_NAME=f": true,
		"GAE_ENV=standard":           true,
		"CLOUD_RUN_JOB=hello":        false, // has no requests to wait for
		"WEBSITE_SITE_NAME=shop":     false,
	} {
		name, value, _ := strings.Cut(marker, "=")
		p, ok := netpath.DetectIn(func(asked string) string {
			if asked == name {
				return value
			}
			return ""
		}, fstest.MapFS{})
		if !ok || p.Freezes != want {
			t.Errorf("%s: freezes %v, %v, want %v", marker, p.Freezes, ok, want)
		}
	}
}

func TestDetectRunsOnThisMachine(t *testing.T) {
	p, _ := netpath.Detect()
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

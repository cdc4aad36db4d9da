package netpath

import (
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Detect returns the profile of where this process runs, as far as documented
// environment variables and the machine's firmware tell, and Unknown and false
// if they tell nothing. It reads both anew at each call and opens no connection.
// The returned Source names the marker that decided.
//
// The way out of a virtual network cannot be seen from inside. On a bare virtual
// machine Detect returns the cloud's most cautious timers and no limit; behind
// App Service it does not see a NAT gateway, and Azure Stack looks like Azure.
// Kubernetes has no profile: it shortens none of these timers. Whoever knows
// the path should say so instead.
func Detect() (Profile, bool) {
	return detect(os.Getenv, os.DirFS("/sys/class/dmi/id")) // Linux only; elsewhere it holds nothing
}

func detect(getenv func(string) string, firmware fs.FS) (Profile, bool) {
	p, marker := platform(getenv)
	if marker == "" {
		p, marker = machine(firmware)
	}
	if marker == "" {
		return Unknown(), false
	}
	p.Source += " (path detected by " + marker + ")"
	return p, true
}

// platform asks the environment. The order matters: Functions can run on
// Container Apps, and is App Service otherwise.
func platform(getenv func(string) string) (p Profile, marker string) {
	has := func(name string) bool { return getenv(name) != "" }
	// On somebody's own cluster the names of App Service and Cloud Run say who
	// packed the container, not how it gets out: azure-functions-host's
	// IsKubernetesManagedHosting, also for App Service on Arc, and Knative.
	// Google's own detector asks for Kubernetes first, too. Container Apps is
	// a cluster, but Azure's.
	cluster := has("KUBERNETES_SERVICE_HOST")
	switch {
	case has("CONTAINER_APP_NAME"): // Azure: container-apps/environment-variables
		return AzureContainerApps(), "CONTAINER_APP_NAME"
	case has("CONTAINER_APP_JOB_NAME"): // the same page
		return AzureContainerApps(), "CONTAINER_APP_JOB_NAME"
	case has("WEBSITE_SITE_NAME") && !cluster: // Azure: app-service/reference-app-settings (2026-02-26)
		return azureSite(getenv)
	case has("AWS_LAMBDA_FUNCTION_NAME"): // AWS: lambda configuration-envvars
		// Nothing says whether it is in a VPC, whose limit this would be.
		return unlimited(AWSLambdaVPC()), "AWS_LAMBDA_FUNCTION_NAME"
	case strings.HasPrefix(getenv("AWS_EXECUTION_ENV"), "AWS_ECS_"): // AWS: ecs-environment-variables
		return awsMachine(), "AWS_EXECUTION_ENV"
	case has("K_SERVICE") && !cluster: // Google: run/docs/container-contract
		// It may have a CPU during requests only (run/docs/configuring/services/cpu).
		return unknownNAT(true), "K_SERVICE"
	case has("CLOUD_RUN_JOB"): // the contract again: jobs have no K_SERVICE
		return unknownNAT(false), "CLOUD_RUN_JOB"
	case has("CLOUD_RUN_WORKER_POOL"): // Temporal's SDK and its sample for Cloud Run read it
		return unknownNAT(false), "CLOUD_RUN_WORKER_POOL"
	case getenv("GAE_ENV") == "standard": // Google: opentelemetry-operations-go, detectors/gcp
		// With automatic scaling it has no background (appengine/runtime, RunInBackground).
		return unknownNAT(true), "GAE_ENV"
	}
	return Profile{}, ""
}

// unknownNAT is a platform of whose NAT nothing is known. It is named all the
// same, because the firmware may show the host through it, with the timers of
// another path (google/gvisor#13517).
func unknownNAT(freezes bool) Profile {
	p := Unknown()
	p.Freezes = freezes
	return p
}

// azureSite tells Functions from App Service by the plan's WEBSITE_SKU (Azure:
// functions-app-settings (2018-09-22), azure-functions-host wiki (2017)). Only
// the Consumption plan has a limit on connections, so that it must be certain.
func azureSite(getenv func(string) string) (p Profile, marker string) {
	sku := strings.ToLower(getenv("WEBSITE_SKU"))
	switch {
	case sku == "dynamic":
		return AzureFunctions(), "WEBSITE_SKU"
	case sku == "flexconsumption", sku == "" && getenv("LEGION_SERVICE_HOST") != "":
		// A newer plan on other machines, told as azure-functions-host does
		// (IsFlexConsumptionSku). No number is published for it.
		return unknownNAT(false), "WEBSITE_SKU or LEGION_SERVICE_HOST"
	case strings.HasPrefix(sku, "isolated"): // an environment of one's own, whose ports follow its size
		return unlimited(AzureAppService()), "WEBSITE_SKU"
	case sku == "" && linuxConsumption(getenv):
		return AzureFunctions(), "CONTAINER_NAME"
	}
	return AzureAppService(), "WEBSITE_SITE_NAME"
}

// linuxConsumption knows the plan where WEBSITE_SKU is absent, as does
// azure-functions-host (IsLinuxConsumptionOnAtlas): by what else is absent.
func linuxConsumption(getenv func(string) string) bool {
	return getenv("FUNCTIONS_WORKER_RUNTIME") != "" && getenv("CONTAINER_NAME") != "" && getenv("WEBSITE_INSTANCE_ID") == ""
}

// machine asks the firmware's tables (DMI).
func machine(firmware fs.FS) (p Profile, marker string) {
	read := func(file string) string {
		b, _ := fs.ReadFile(firmware, file) // absent is as good as empty
		return strings.TrimSpace(string(b))
	}
	// cloud-init's Azure source; an Azure page on dmidecode has the same number.
	// The vendor, Microsoft, is that of any Hyper-V guest and of a Surface.
	if read("chassis_asset_tag") == "7783-7084-3265-9085-8269-3286-77" {
		return AzureDefaultOutbound(), "DMI chassis_asset_tag"
	}
	// AWS: identify_ec2_instances has the tag of Nitro machines; the detectors
	// whatsthis and clock-bound look at the vendor
	if read("sys_vendor") == "Amazon EC2" || strings.HasPrefix(read("board_asset_tag"), "i-") {
		return awsMachine(), "DMI sys_vendor or board_asset_tag"
	}
	// Machines before Nitro: "4.2.amazon" (WoTTsecurity/agent#260, as well as
	// netbox-agent#99). Their vendor, Xen, and product are other clouds' too.
	if strings.HasSuffix(read("bios_version"), ".amazon") {
		return awsMachine(), "DMI bios_version"
	}
	// Google: google-cloud-env, ComputeSMBIOS; grpc-go does the same
	if name := read("product_name"); name == "Google Compute Engine" || name == "Google" {
		return Chain(GCPFirewall(), GCPCloudNATDynamic()), "DMI product_name"
	}
	return Profile{}, ""
}

// awsMachine assumes a NAT gateway, for its timers, but not its limit: the
// machine may as well have an address of its own.
func awsMachine() Profile {
	return Chain(AWSNitro6(), unlimited(AWSNATGateway(1)))
}

// unlimited takes away limits that a marker does not prove, with their sources.
func unlimited(p Profile) Profile {
	p.Limits = nil
	p.Cites = slices.DeleteFunc(p.Cites, func(c Cite) bool { return strings.HasPrefix(c.Field, "Limits") })
	return p
}

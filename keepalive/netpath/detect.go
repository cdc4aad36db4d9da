package netpath

import (
	"io/fs"
	"os"
	"strings"
)

// Detect returns the profile of where this process runs, as far as documented
// environment variables and the machine's firmware tell, and Unknown and false
// if they tell nothing. It reads both anew at each call and opens no connection.
// The returned Source names the marker that decided.
//
// The way out of a virtual network cannot be seen from inside. On a bare virtual
// machine Detect returns the cloud's most cautious timers and no limit; behind
// App Service it does not see a NAT gateway. Kubernetes is not looked for: it
// shortens none of these timers. Whoever knows the path should say so instead.
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
	switch {
	case getenv("CONTAINER_APP_NAME") != "": // Azure: container-apps/environment-variables
		return AzureContainerApps(), "CONTAINER_APP_NAME"
	case getenv("WEBSITE_SITE_NAME") != "": // Azure: app-service/reference-app-settings (2026-02-26)
		return azureSite(getenv)
	case getenv("AWS_LAMBDA_FUNCTION_NAME") != "": // AWS: lambda configuration-envvars
		return AWSLambdaVPC(), "AWS_LAMBDA_FUNCTION_NAME"
	case strings.HasPrefix(getenv("AWS_EXECUTION_ENV"), "AWS_ECS_"): // AWS: ecs-environment-variables
		return awsMachine(), "AWS_EXECUTION_ENV"
	case getenv("K_SERVICE") != "": // Google: run/docs/container-contract
		// Nothing is known of its NAT, only that it may have a CPU during
		// requests only (run/docs/configuring/services/cpu).
		p = Unknown()
		p.Freezes = true
		return p, "K_SERVICE"
	}
	return Profile{}, ""
}

// azureSite tells Functions from App Service. Only the Consumption plan has its
// limit on connections; that plan's WEBSITE_SKU is Dynamic (Azure:
// functions-app-settings (2018-09-22), azure-functions-host wiki (2017)).
func azureSite(getenv func(string) string) (p Profile, marker string) {
	sku := getenv("WEBSITE_SKU")
	if getenv("FUNCTIONS_WORKER_RUNTIME") != "" && (sku == "" || strings.EqualFold(sku, "Dynamic")) {
		return AzureFunctions(), "FUNCTIONS_WORKER_RUNTIME"
	}
	return AzureAppService(), "WEBSITE_SITE_NAME"
}

// machine asks the firmware's tables (DMI).
func machine(firmware fs.FS) (p Profile, marker string) {
	read := func(file string) string {
		b, _ := fs.ReadFile(firmware, file) // absent is as good as empty
		return strings.TrimSpace(string(b))
	}
	// cloud-init's Azure source; an Azure page on dmidecode has the same number
	if read("chassis_asset_tag") == "7783-7084-3265-9085-8269-3286-77" {
		return AzureDefaultOutbound(), "DMI chassis_asset_tag"
	}
	// AWS: identify_ec2_instances has the tag of Nitro machines; the detectors
	// whatsthis and clock-bound look at the vendor
	if read("sys_vendor") == "Amazon EC2" || strings.HasPrefix(read("board_asset_tag"), "i-") {
		return awsMachine(), "DMI sys_vendor or board_asset_tag"
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
	gateway := AWSNATGateway(1)
	gateway.Limits = nil
	return Chain(AWSNitro6(), gateway)
}

// Package withsdk holds natwise's telemetry against OpenTelemetry's own SDK. It is a module
// of its own, so that the SDK is no dependency of natwise, and has tests only.
//
// TestWhatIsEmitted writes ../metrics.md:
//
//	go -C internal/telemetry/withsdk test . -run TestWhatIsEmitted -update
package withsdk

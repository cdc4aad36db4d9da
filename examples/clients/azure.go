package clients

import (
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// Azure returns the options that make a client of the Azure SDK send through rt. Give
// them to every client, and as ClientOptions to those of azidentity, which fetch
// tokens: what has none of its own uses a second pool, which all such clients of the
// process share.
//
// azcore tries four times, whatever the method, after any error and after 408, 429,
// 500, 502, 503 and 504, with Retry-After. Its services are made for that, so it keeps
// its retries, and Transport.Retry stays nil. To be stricter set Retry.ShouldRetry,
// which can ask dialer.SafeToRetry; to have none, Retry.MaxRetries = -1.
func Azure(rt http.RoundTripper) policy.ClientOptions {
	return policy.ClientOptions{Transport: &http.Client{Transport: patient{rt}}}
}

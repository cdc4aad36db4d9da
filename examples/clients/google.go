package clients

import (
	"net/http"

	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"
	"google.golang.org/api/option"
)

// Google returns the option for NewService that makes a Google API client send through
// rt, and fetch its tokens too. By itself each client has two pools, one for each.
//
// option.WithHTTPClient alone would send no credentials at all: what puts them in is
// around rt here. Which they are says creds; the zero DetectOptions are the default
// ones of the machine. Only NewService knows the scopes of its API, so say them.
//
// They retry nothing, so that Transport.Retry may. Only uploads to storage they try
// again, until the request's context ends: give it a deadline.
func Google(rt http.RoundTripper, creds credentials.DetectOptions) (option.ClientOption, error) {
	creds.Client = &http.Client{Transport: rt}
	authorized, err := httptransport.NewClient(&httptransport.Options{
		BaseRoundTripper: rt,
		DetectOpts:       &creds,
		DisableTelemetry: true, // or each request is traced twice, if rt traces it already
	})
	if err != nil {
		return nil, err
	}
	return option.WithHTTPClient(authorized), nil
}

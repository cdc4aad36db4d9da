package clients

import (
	"context"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
)

// AWS loads a configuration whose service clients send through rt, and those that
// fetch credentials too. By itself each configuration has a pool, and each service
// client has one where a defaults mode is set.
//
// The SDK tries three times, within a budget of its own. It keeps its retries, and
// Transport.Retry stays nil: its requests have no GetBody, so that nobody else can
// send one with a body again. To have none: config.WithRetryer and aws.NopRetryer.
//
// What the SDK says to a client of its own it does not say to this one: timeouts are
// the Transport's, a defaults mode changes none, and a metadata service that is not
// there is not given up after 250 ms (AWS_EC2_METADATA_DISABLED spares the wait). It
// refuses this one where AWS_CA_BUNDLE is set: name the authorities in Transport.TLS
// instead, or see AWSInstalled.
func AWS(ctx context.Context, rt http.RoundTripper, opts ...func(*config.LoadOptions) error) (aws.Config, error) {
	client := &http.Client{Transport: patient{rt}, CheckRedirect: sameMethod}
	return config.LoadDefaultConfig(ctx, append(opts, config.WithHTTPClient(client))...)
}

// sameMethod follows redirects as the SDK's own client does: only those that keep the
// method, and not with the session's token to another host.
func sameMethod(req *http.Request, via []*http.Request) error {
	switch req.Response.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 { // as many as http.Client follows by itself
		return http.ErrUseLastResponse
	}
	if req.URL.Host != via[len(via)-1].URL.Host {
		req.Header.Del("X-Amz-Security-Token")
	}
	return nil
}

// AWSInstalled is AWS for a program that needs the SDK's own *http.Transport, as
// AWS_CA_BUNDLE does. Its connections are counted with those of all others, but not
// shared with them: load one configuration.
func AWSInstalled(ctx context.Context, d *dialer.Dialer, opts ...func(*config.LoadOptions) error) (aws.Config, error) {
	var bad error
	client := awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		bad = httpx.Install(tr, d)
	})
	if bad != nil {
		return aws.Config{}, bad
	}
	cfg, err := config.LoadDefaultConfig(ctx, append(opts, config.WithHTTPClient(client))...)
	if own, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		// Or a defaults mode gives each service client a copy with a dialer of the
		// SDK's in place of d. Those that fetch credentials have theirs by now.
		cfg.HTTPClient = own.Freeze()
	}
	return cfg, err
}

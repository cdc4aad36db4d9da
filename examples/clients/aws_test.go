package clients_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/natwise/natwise/examples/clients"
)

func TestARedirectOfAWSLosesTheTokenOnAnotherHostAndNeverItsMethod(t *testing.T) {
	from, to := newOrigin(t), newOrigin(t)
	fakeAccounts(t, from.URL)
	var tokens []string
	redirect := func(url string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			tokens = append(tokens, r.Header.Get("X-Amz-Security-Token"))
			http.Redirect(w, r, url, status)
		}
	}
	from.answers(redirect(to.URL, http.StatusTemporaryRedirect))
	to.answers(redirect(from.URL, http.StatusFound)) // which would turn a POST into a GET
	cfg, err := clients.AWS(t.Context(), newTransport(t, behindNAT(4)))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", from.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Security-Token", "fake")
	resp, err := cfg.HTTPClient.Do(req)
	if err := finish(resp, err); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusFound || len(tokens) != 2 || tokens[0] != "fake" || tokens[1] != "" {
		t.Errorf("got %s; the hosts got the tokens %q", resp.Status, tokens)
	}
}

func TestACABundleNeedsTheSDKsOwnTransport(t *testing.T) {
	o := startOrigin(t, (*httptest.Server).StartTLS)
	fakeAccounts(t, o.URL)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
	if err := os.WriteFile(bundle, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)

	d := behindNAT(4)
	if _, err := clients.AWS(t.Context(), newTransport(t, d)); err == nil {
		t.Error("the SDK took another client after all: AWSInstalled is not needed any more")
	}
	cfg, err := clients.AWSInstalled(t.Context(), d, config.WithDefaultsMode(aws.DefaultsModeInRegion))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if booked := d.Ledger.Accounts(); len(booked) != 1 || int64(booked[0].Taken()) != o.opened.Load() {
		t.Errorf("%d connections; booked are %v", o.opened.Load(), booked)
	}
}

// The SDK closes the body of a request when its answer has come. Where the answer is
// fast, an http.Transport is not done with that yet, and throws the connection away.
func TestAFastAnswerCostsAWSNoConnection(t *testing.T) {
	post300 := func(rt http.RoundTripper) (opened int64) {
		o := newOrigin(t)
		fakeAccounts(t, o.URL)
		post := awsPost(t, o, rt)
		for range 300 {
			if err := post(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return o.opened.Load()
	}
	standard := new(http.Transport)
	defer standard.CloseIdleConnections()
	t.Logf("an http.Transport opened %d connections for 300 requests in turn", post300(standard))
	if opened := post300(newTransport(t, behindNAT(4))); opened != 1 {
		t.Errorf("%d connections for 300 requests in turn", opened)
	}
}

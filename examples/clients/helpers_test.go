package clients_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx"
	"github.com/natwise/natwise/internal/leak"
	"github.com/natwise/natwise/keepalive/netpath"
)

// An origin is a server that counts, and speaks as much of each service's language as
// its client needs.
type origin struct {
	*httptest.Server
	opened atomic.Int64                     // connections
	served atomic.Int64                     // requests, but for tokens
	answer atomic.Pointer[http.HandlerFunc] // instead, if not nil
}

func newOrigin(t *testing.T) *origin { return startOrigin(t, (*httptest.Server).Start) }

// startOrigin is newOrigin with another way to start, such as StartTLS.
func startOrigin(t *testing.T, start func(*httptest.Server)) *origin {
	o := new(origin)
	o.Server = httptest.NewUnstartedServer(o)
	o.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			o.opened.Add(1)
		}
	}
	start(o.Server)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	if r.URL.Path == "/token" {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token": "fake", "token_type": "Bearer", "expires_in": 3600}`)
		return
	}
	o.served.Add(1)
	if answer := o.answer.Load(); answer != nil {
		(*answer)(w, r)
		return
	}
	if r.URL.Path == "/" {
		w.Header().Set("Content-Type", "text/xml")
		io.WriteString(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, "{}")
}

// answers makes o answer every request in this way.
func (o *origin) answers(f http.HandlerFunc) { o.answer.Store(&f) }

// hangsUp ends the connection of a request that has come, without an answer.
func hangsUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// answersWith answers with a status and nothing else.
func answersWith(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// behindNAT returns a Dialer that stands behind a NAT with so many ports, which counts
// connections to loopback too.
func behindNAT(ports int) *dialer.Dialer {
	path := netpath.AzureLoadBalancer(ports)
	path.Exempt = netpath.NoExempt()
	return &dialer.Dialer{Ledger: &dialer.Ledger{Path: path, Ramp: -1, MaxWait: patience}}
}

// patience is how long a test waits for what should come soon.
const patience = 10 * time.Second

// newTransport returns a Transport that is closed when the test ends.
func newTransport(t *testing.T, d *dialer.Dialer) *httpx.Transport {
	tr := &httpx.Transport{Dialer: d, MaxWait: d.Ledger.MaxWait}
	t.Cleanup(func() { closeNow(t, tr) })
	return tr
}

func closeNow(t *testing.T, tr *httpx.Transport) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // t.Context() has ended in a Cleanup
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		t.Error(err)
	}
}

// A counter counts how often a client tries.
type counter struct {
	http.RoundTripper
	tries atomic.Int64
}

func (c *counter) RoundTrip(req *http.Request) (*http.Response, error) {
	c.tries.Add(1)
	return c.RoundTripper.RoundTrip(req)
}

// fakeKey is the private key of an account that does not exist.
var fakeKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
})

// fakeAccounts makes the environment name accounts that do not exist, and nothing
// else: no file of this machine, no metadata service. Tokens come from url.
func fakeAccounts(t *testing.T, url string) {
	t.Helper()
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "fake@example.com", "private_key_id": "1",
		"private_key": fakeKey(), "token_uri": url + "/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "google.json")
	if err := os.WriteFile(file, account, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, set := range os.Environ() {
		if strings.HasPrefix(set, "AWS_") || strings.HasPrefix(set, "GOOGLE_") {
			name, _, _ := strings.Cut(set, "=")
			t.Setenv(name, "")
		}
	}
	for name, value := range map[string]string{
		"GOOGLE_APPLICATION_CREDENTIALS": file,
		"AWS_ACCESS_KEY_ID":              "fake",
		"AWS_SECRET_ACCESS_KEY":          "fake",
		"AWS_SESSION_TOKEN":              "fake",
		"AWS_REGION":                     "eu-central-1",
		"AWS_ENDPOINT_URL":               url,
		"AWS_CONFIG_FILE":                os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE":    os.DevNull,
		"AWS_EC2_METADATA_DISABLED":      "true",
	} {
		t.Setenv(name, value)
	}
}

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

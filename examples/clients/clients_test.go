package clients_test

import (
	"context"
	"io"
	"net/http"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/auth/credentials"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-resty/resty/v2"
	"github.com/hashicorp/go-retryablehttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/api/oauth2/v2"
	"google.golang.org/api/option"

	"github.com/natwise/natwise/examples/clients"
	"github.com/natwise/natwise/internal/leak"
)

// A post sends one POST to the origin and reads the answer.
type post func(ctx context.Context) error

// A kind is one of the clients.
type kind struct {
	name string
	// client makes one that sends through rt; nil: as it is made by itself.
	client func(t *testing.T, o *origin, rt http.RoundTripper) post
	pools  int // connections that two of them open by themselves
	tries  int // how often it sends a POST that fails
}

var kinds = []kind{
	{name: "otelhttp", client: otelPost, pools: 1, tries: 1},               // http.DefaultTransport is one
	{name: "azcore", client: azurePost, pools: 1, tries: 4},                // so is azcore's own
	{name: "aws-sdk-go-v2", client: awsPost, pools: 2, tries: 3},           // one a configuration
	{name: "google-api-go-client", client: googlePost, pools: 4, tries: 1}, // one for tokens, too
	{name: "go-retryablehttp", client: retryablePost, pools: 2, tries: 1},
	{name: "resty", client: restyPost, pools: 2, tries: 1},
}

func otelPost(t *testing.T, o *origin, rt http.RoundTripper) post {
	c := http.Client{Transport: otelhttp.NewTransport(nil)}
	if rt != nil {
		c.Transport = clients.Traced(rt)
	}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, "POST", o.URL+"/otel", strings.NewReader("hello"))
		if err != nil {
			return err
		}
		return finish(c.Do(req))
	}
}

func azurePost(t *testing.T, o *origin, rt http.RoundTripper) post {
	var options policy.ClientOptions
	if rt != nil {
		options = clients.Azure(rt)
	}
	options.Retry.RetryDelay = time.Nanosecond // a negative one, meant as none, is a minute in azcore v1.24.0
	pipeline := runtime.NewPipeline("clients", "v0.0.1", runtime.PipelineOptions{}, &options)
	return func(ctx context.Context) error {
		req, err := runtime.NewRequest(ctx, "POST", o.URL+"/azure")
		if err != nil {
			return err
		}
		return finish(pipeline.Do(req))
	}
}

func awsPost(t *testing.T, o *origin, rt http.RoundTripper) post {
	load := func() (cfg aws.Config, err error) { return config.LoadDefaultConfig(t.Context()) }
	if rt != nil {
		load = func() (aws.Config, error) { return clients.AWS(t.Context(), rt) }
	}
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	c := sts.NewFromConfig(cfg, impatient)
	return func(ctx context.Context) error {
		_, err := c.GetCallerIdentity(ctx, nil)
		return err
	}
}

// impatient has a client wait next to nothing between two tries.
func impatient(o *sts.Options) {
	o.Retryer = retry.AddWithMaxBackoffDelay(o.Retryer, time.Millisecond)
}

func googlePost(t *testing.T, o *origin, rt http.RoundTripper) post {
	opts := []option.ClientOption{option.WithEndpoint(o.URL)}
	if rt != nil {
		with, err := clients.Google(rt, credentials.DetectOptions{Scopes: []string{oauth2.OpenIDScope}})
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, with)
	}
	service, err := oauth2.NewService(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) error {
		_, err := service.Tokeninfo().Context(ctx).Do()
		return err
	}
}

func retryablePost(t *testing.T, o *origin, rt http.RoundTripper) post {
	c := retryablehttp.NewClient()
	if rt != nil {
		c = clients.Retryable(rt)
	}
	c.Logger = nil
	c.RetryWaitMin, c.RetryWaitMax = time.Millisecond, time.Millisecond
	return func(ctx context.Context) error {
		req, err := retryablehttp.NewRequestWithContext(ctx, "POST", o.URL+"/retryable", strings.NewReader("hello"))
		if err != nil {
			return err
		}
		return finish(c.Do(req))
	}
}

func restyPost(t *testing.T, o *origin, rt http.RoundTripper) post {
	c := resty.New()
	if rt != nil {
		c = clients.Resty(rt)
	}
	return func(ctx context.Context) error {
		_, err := c.R().SetContext(ctx).SetBody("hello").Post(o.URL + "/resty")
		return err
	}
}

// twoOfEach are twelve clients, made separately: each has a Transport of its own.
func twoOfEach(t *testing.T, o *origin, transport func() http.RoundTripper) (posts []post) {
	for _, k := range kinds {
		posts = append(posts, k.client(t, o, transport()), k.client(t, o, transport()))
	}
	return posts
}

func TestTwelveClientsMadeSeparatelyShareOneConnection(t *testing.T) {
	o := newOrigin(t)
	fakeAccounts(t, o.URL)
	d := behindNAT(4)
	posts := twoOfEach(t, o, func() http.RoundTripper { return newTransport(t, d) })
	for range 3 {
		for _, post := range posts {
			if err := post(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if opened, served := o.opened.Load(), o.served.Load(); opened != 1 || served != 36 {
		t.Errorf("%d connections for %d requests in turn", opened, served)
	}
}

// If this fails, a client has changed what it does by itself: the README says it too.
func TestByThemselvesTheyOpenAConnectionEach(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			o := newOrigin(t)
			fakeAccounts(t, o.URL)
			for _, post := range []post{k.client(t, o, nil), k.client(t, o, nil)} {
				if err := post(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if opened := o.opened.Load(); opened != int64(k.pools) {
				t.Errorf("two opened %d connections, want %d", opened, k.pools)
			}
		})
	}
}

func TestAHerdOfAllKindsTakesNoMoreThanThePorts(t *testing.T) {
	o := newOrigin(t)
	fakeAccounts(t, o.URL)
	d := behindNAT(8)
	posts := twoOfEach(t, o, func() http.RoundTripper { return newTransport(t, d) })
	var herd sync.WaitGroup
	for _, post := range posts {
		for range 10 {
			herd.Go(func() {
				if err := post(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	herd.Wait()
	if opened, served := o.opened.Load(), o.served.Load(); opened > 8 || served != 120 {
		t.Errorf("%d connections for %d requests at once, of 8 ports", opened, served)
	}
}

func TestNoGoroutineIsLeftAfterClose(t *testing.T) {
	o := newOrigin(t)
	fakeAccounts(t, o.URL)
	before := goruntime.NumGoroutine()
	tr := newTransport(t, behindNAT(4))
	for _, post := range twoOfEach(t, o, func() http.RoundTripper { return tr }) {
		if err := post(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	closeNow(t, tr)
	if stacks := leak.Beyond(before); stacks != "" {
		t.Errorf("goroutines left behind:\n%s", stacks)
	}
}

func TestRetriesAreThoseOfOneLayer(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"hung up": hangsUp, "503": answersWith(503)} {
		for _, k := range kinds {
			t.Run(k.name+" "+name, func(t *testing.T) {
				o := newOrigin(t)
				fakeAccounts(t, o.URL)
				o.answers(answer)
				k.client(t, o, newTransport(t, behindNAT(8)))(t.Context()) // some call a 503 an error, others do not
				if served := o.served.Load(); served != int64(k.tries) {
					t.Errorf("the origin was asked %d times, want %d", served, k.tries)
				}
			})
		}
	}
}

func TestAPortThatDoesNotComeFreeIsWaitedForOnce(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			o := newOrigin(t)
			fakeAccounts(t, o.URL)
			d := behindNAT(1)
			d.Ledger.MaxWait = 50 * time.Millisecond
			hog, err := d.DialContext(t.Context(), "tcp", o.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer hog.Close()
			c := &counter{RoundTripper: newTransport(t, d)}
			if err := k.client(t, o, c)(t.Context()); !clients.OutOfPorts(err) {
				t.Errorf("got %v", err)
			}
			if tries := c.tries.Load(); tries != 1 {
				t.Errorf("it waited %d times", tries)
			}
		})
	}
}

// finish reads an answer to its end.
func finish(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

package clients_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/natwise/natwise/examples/clients"
)

// quick returns a go-retryablehttp client that waits next to nothing between two tries.
func quick(rt http.RoundTripper) *retryablehttp.Client {
	c := clients.Retryable(rt)
	c.Logger = nil
	c.RetryWaitMin, c.RetryWaitMax = time.Millisecond, time.Millisecond
	return c
}

func TestWhatMayRunTwiceIsTriedAgain(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"hung up": hangsUp, "503": answersWith(503)} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t)
			o.answers(answer)
			if err := finish(quick(newTransport(t, behindNAT(8))).Get(o.URL)); err == nil {
				t.Error("it was answered")
			}
			if served := o.served.Load(); served != 5 {
				t.Errorf("the origin was asked %d times, want 5", served)
			}
		})
	}
}

// A refusal is a request that fails once, before a byte of it was sent.
type refusal struct {
	http.RoundTripper
	refused bool
}

type notSent struct{ error }

func (notSent) SafeToRetry() bool { return true }

func (r *refusal) RoundTrip(req *http.Request) (*http.Response, error) {
	if !r.refused {
		r.refused = true
		return nil, notSent{errors.New("refused")}
	}
	return r.RoundTripper.RoundTrip(req)
}

func TestWhatWasNeverSentIsTriedAgainWhateverItsMethod(t *testing.T) {
	o := newOrigin(t)
	c := quick(&refusal{RoundTripper: newTransport(t, behindNAT(4))})
	if err := finish(c.Post(o.URL+"/", "text/plain", []byte("hello"))); err != nil {
		t.Error(err)
	}
	if served := o.served.Load(); served != 1 {
		t.Errorf("the origin was asked %d times", served)
	}
}

func TestGivingUpOnARequestCostsNoConnection(t *testing.T) {
	o := newOrigin(t)
	c := quick(newTransport(t, behindNAT(4)))
	o.answers(answersWith(503))
	if err := finish(c.Get(o.URL)); err == nil {
		t.Error("it was answered")
	}
	o.answers(answersWith(200))
	if err := finish(c.Get(o.URL)); err != nil {
		t.Error(err)
	}
	if opened := o.opened.Load(); opened != 1 {
		t.Errorf("%d connections, want 1", opened)
	}
}

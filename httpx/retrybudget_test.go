package httpx_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/httpx"
)

// A retryLoad is what one client asks of an origin, and what comes of it.
type retryLoad struct {
	*httpx.Retry
	fakeOrigin
	failing float64 // the share of attempts that fail
	failed  int     // requests
}

func (l *retryLoad) run(t *testing.T, requests int, every time.Duration) {
	l.fail = func(int, *http.Request) (*http.Response, error) {
		if rand.Float64() < l.failing {
			return nil, errReset
		}
		return nil, nil
	}
	req := newGet(t)
	for range requests {
		if _, err := l.Do(req, l.send); err != nil {
			l.failed++
		}
		time.Sleep(every)
	}
}

// attempts returns how many there were since it was asked last.
func (l *retryLoad) attempts() int {
	defer func() { l.at = nil }()
	return len(l.at)
}

func TestAnOriginThatFailsHalfItsRequestsSeesATenthMoreAtMost(t *testing.T) {
	for _, c := range []struct {
		failing, budget float64 // budget: of the load
		retry           *httpx.Retry
	}{
		{0.5, 0.1, new(httpx.Retry)},
		{0.2, 0.1, new(httpx.Retry)},
		{0.9, 0.1, new(httpx.Retry)},
		{0.5, 0.02, &httpx.Retry{Budget: 0.02}},
		{0.5, 0.3, &httpx.Retry{Budget: 0.3, Attempts: 10}},
	} {
		t.Run(fmt.Sprintf("%.0f%% fail, budget %v", 100*c.failing, c.budget), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const requests = 5000
				l := retryLoad{Retry: c.retry, failing: c.failing}
				l.run(t, requests, 10*time.Millisecond)
				retries := l.attempts() - requests
				t.Logf("%d requests, %d retries: %.3f x the load; %d failed", requests, retries, 1+float64(retries)/requests, l.failed)
				if most := int(c.budget * requests); retries > most {
					t.Errorf("%d retries, want %d at most", retries, most)
				}
				if least := int(0.9 * c.budget * (1 - c.failing) * requests); retries < least {
					t.Errorf("%d retries, want %d at least: the budget was there", retries, least)
				}
			})
		})
	}
}

func TestWhatFailsNowAndThenSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests = 5000
		l := retryLoad{Retry: new(httpx.Retry), failing: 0.05}
		l.run(t, requests, 10*time.Millisecond)
		if l.failed > 15 { // 0.6 are expected: one in 8000 fails three times
			t.Errorf("%d of %d requests failed", l.failed, requests)
		}
	})
}

func TestAnOriginThatIsDownSeesLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := retryLoad{Retry: new(httpx.Retry)}
		l.run(t, 2000, time.Millisecond)
		if n := l.attempts(); n != 2000 {
			t.Fatalf("%d attempts for 2000 requests of an origin in good health", n)
		}
		l.failing = 1
		before := 0
		for i := range 10 {
			l.run(t, 100, time.Millisecond)
			n := l.attempts()
			t.Logf("requests %d to %d: %d attempts", 100*i+1, 100*i+100, n)
			switch {
			case i == 0 && n != 100+100:
				t.Errorf("%d attempts for the first 100 requests, want a hundred more, as was saved up", n)
			case i == 0:
			case n > before:
				t.Errorf("%d attempts after %d", n, before)
			case i == 9 && n != 100:
				t.Errorf("%d attempts for 100 requests in the end", n)
			}
			before = n
		}
	})
}

func TestANewDestinationHasAFewRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := retryLoad{Retry: new(httpx.Retry), failing: 1}
		l.run(t, 50, time.Second)
		if n := l.attempts(); n != 50+10 {
			t.Errorf("%d attempts for 50 requests, want 10 more", n)
		}
		l.run(t, 50, time.Second)
		if n := l.attempts(); n != 50 {
			t.Errorf("%d attempts for 50 requests, want no more", n)
		}
	})
}

func TestABudgetIsThatOfOneDestination(t *testing.T) {
	down := func(*http.Request) (*http.Response, error) { return nil, errReset }
	for name, c := range map[string]struct {
		url    string
		shared bool
	}{
		"the same":                {"http://origin.example/elsewhere?q", true},
		"with its port":           {"http://origin.example:80/", true},
		"in capitals":             {"http://Origin.Example/", true},
		"another port":            {"http://origin.example:8080/", false},
		"another port, by scheme": {"https://origin.example/", false},
		"another host":            {"http://www.origin.example/", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := new(httpx.Retry)
				for range 20 {
					r.Do(newGet(t), down)
				}
				o := &fakeOrigin{fail: failAlways(errReset)}
				r.Do(newRequest(t, "GET", c.url, nil), o.send)
				want := 3
				if c.shared {
					want = 1
				}
				if len(o.at) != want {
					t.Errorf("%d attempts, want %d", len(o.at), want)
				}
			})
		})
	}
}

func TestWithoutABudgetAllAttemptsAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := retryLoad{Retry: &httpx.Retry{Budget: -1}, failing: 1}
		l.run(t, 100, 0)
		if n := l.attempts(); n != 300 {
			t.Errorf("%d attempts for 100 requests, want 300", n)
		}
		if n := l.Destinations(); n != 0 {
			t.Errorf("%d destinations are counted", n)
		}
	})
}

// visitHosts sends a request each to n hosts of their own kind.
func visitHosts(t *testing.T, r *httpx.Retry, kind string, n int, err error) (attempts int) {
	req := newGet(t)
	for i := range n {
		req.URL.Host = fmt.Sprintf("%s%d.example", kind, i)
		r.Do(req, func(*http.Request) (*http.Response, error) {
			attempts++
			if err != nil {
				return nil, err
			}
			return answerOf(200), nil
		})
	}
	return attempts
}

func TestDestinationsAreForgottenWhenTheyAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(httpx.Retry)
		visitHosts(t, r, "up", 100, nil)
		visitHosts(t, r, "down", 10, errReset)
		if n := r.Destinations(); n != 110 {
			t.Errorf("%d destinations are remembered of 110", n)
		}
		time.Sleep(2 * time.Minute)
		visitHosts(t, r, "first", 1, nil)
		if n := r.Destinations(); n != 11 {
			t.Errorf("%d destinations are remembered after two minutes, want the ten that have retried, and one", n)
		}
		time.Sleep(time.Hour)
		visitHosts(t, r, "second", 1, nil)
		if n := r.Destinations(); n != 1 {
			t.Errorf("%d destinations are remembered after an hour, want one", n)
		}
	})
}

func TestADestinationInUseIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(httpx.Retry)
		attempts := 0
		for i := range 10 {
			attempts += visitHosts(t, r, "down", 1, errReset)
			time.Sleep(59 * time.Minute)
			visitHosts(t, r, fmt.Sprint("up", i, "of"), 1, nil) // a new one: others may be forgotten
		}
		if want := 10 + 10; attempts != want {
			t.Errorf("%d attempts for 10 requests, one an hour, want %d", attempts, want)
		}
	})
}

func TestTheDestinationsInMemoryAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(httpx.Retry)
		visitHosts(t, r, "down", httpx.MaxBudgets+1000, errReset)
		if n := r.Destinations(); n != httpx.MaxBudgets {
			t.Errorf("%d destinations are remembered, want %d", n, httpx.MaxBudgets)
		}
		if n := visitHosts(t, r, "new", 100, errReset); n != 100 {
			t.Errorf("%d attempts for 100 requests to destinations beyond the bound, want no retries", n)
		}
		time.Sleep(time.Hour)
		if n := visitHosts(t, r, "new", 1, errReset); n != 3 {
			t.Errorf("%d attempts after an hour, want 3", n)
		}
	})
}

package clients

import (
	"net/http"

	"github.com/go-resty/resty/v2"
)

// Resty returns a resty client that sends through rt. It retries nothing until
// SetRetryCount is called, and then any method after any error: leave that at 0 and
// set Transport.Retry. Proxies and TLS are the Transport's matter too, since resty's
// own settings for them need an *http.Transport.
func Resty(rt http.RoundTripper) *resty.Client {
	return resty.New().SetTransport(rt)
}

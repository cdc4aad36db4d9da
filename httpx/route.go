package httpx

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpguts"
)

// A route is the way to an origin, or to a proxy: connections on the same route are
// as good as each other.
type route struct {
	scheme string // of the request: http or https
	host   string // host:port, as the URL has it; "" where the proxy is asked for any
	proxy  string // its URL; "": none
	only1  bool   // HTTP/1.1 is needed: Upgrade
}

var errNoHost = errors.New("http: no Host in request URL")

// check finds what would be a waste of a connection.
func check(req *http.Request) error {
	switch {
	case req.URL == nil:
		return errors.New("http: nil Request.URL")
	case req.Header == nil:
		return errors.New("http: nil Request.Header")
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return fmt.Errorf("unsupported protocol scheme %q", req.URL.Scheme)
	case req.Method != "" && !httpguts.ValidHeaderFieldName(req.Method): // a token, too
		return fmt.Errorf("net/http: invalid method %q", req.Method)
	case req.URL.Host == "":
		return errNoHost
	}
	if err := checkFields("header", req.Header); err != nil {
		return err
	}
	return checkFields("trailer", req.Trailer)
}

func checkFields(where string, h http.Header) error {
	for k, values := range h {
		if !httpguts.ValidHeaderFieldName(k) {
			return fmt.Errorf("net/http: invalid %s field name %q", where, k)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) { // which may be a secret: it is not shown
				return fmt.Errorf("net/http: invalid %s field value for %q", where, k)
			}
		}
	}
	return nil
}

// route returns the way of req.
func (t *Transport) route(req *http.Request) (route, error) {
	proxy := t.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	through, err := proxy(req)
	if err != nil {
		return route{}, err
	}
	r := route{scheme: req.URL.Scheme, only1: upgrades(req)}
	if through != nil {
		switch through.Scheme {
		case "http", "https", "socks5", "socks5h":
		default:
			return route{}, fmt.Errorf("httpx: unsupported proxy scheme %q", through.Scheme)
		}
		r.proxy = through.String()
		if r.scheme == "http" && (through.Scheme == "http" || through.Scheme == "https") {
			return r, nil
		}
	}
	r.host = hostPort(req.URL)
	return r, nil
}

// upgrades reports whether req asks to switch protocols, which only HTTP/1.1 can.
func upgrades(req *http.Request) bool {
	return len(req.Header["Upgrade"]) > 0 && httpguts.HeaderValuesContainsToken(req.Header["Connection"], "Upgrade")
}

var ports = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// hostPort is where u leads.
func hostPort(u *url.URL) string {
	if ascii, err := httpguts.PunycodeHostPort(u.Host); err == nil && ascii != u.Host {
		u = &url.URL{Scheme: u.Scheme, Host: ascii}
	}
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), ports[u.Scheme])
}

// dials returns the address of the other end of the connection, which is what costs a
// port.
func (r route) dials() (string, error) {
	if r.proxy == "" {
		return r.host, nil
	}
	u, err := r.through()
	if err != nil {
		return "", err
	}
	return hostPort(u), nil
}

func (r route) through() (*url.URL, error) {
	if r.proxy == "" {
		return nil, nil
	}
	return url.Parse(r.proxy)
}

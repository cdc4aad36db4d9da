package dialer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"
)

// proxyAddress returns where the proxy of a URL listens.
func proxyAddress(u *url.URL) (host string, port uint16, err error) {
	standard, known := map[string]uint16{"http": 80, "socks5": 1080, "socks5h": 1080}[u.Scheme]
	if !known {
		return "", 0, fmt.Errorf("dialer: Proxy has the scheme %q, want http, socks5 or socks5h", u.Scheme)
	}
	if u.Hostname() == "" {
		return "", 0, errors.New("dialer: Proxy has no host")
	}
	if u.Port() == "" {
		return u.Hostname(), standard, nil
	}
	port, err = portNumber(context.Background(), "tcp", u.Port())
	return u.Hostname(), port, err
}

// A proxyError is what a proxy says, or that it says nothing.
type proxyError struct {
	at  string // its host and port, without its user
	err error
}

func (e *proxyError) Error() string { return "proxy " + e.at + ": " + e.err.Error() }
func (e *proxyError) Unwrap() error { return e.err }

// tunnel asks the proxy at the other end of c for a connection to address, of which c is
// this end from then on. A name is looked up by the proxy.
func tunnel(ctx context.Context, c net.Conn, via *url.URL, address string) error {
	if until, ok := ctx.Deadline(); ok {
		c.SetDeadline(until)
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	connect := connectBySOCKS
	if via.Scheme == "http" {
		connect = connectByHTTP
	}
	err := connect(ctx, c, via, address)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return &proxyError{via.Host, err}
	}
	return c.SetDeadline(time.Time{})
}

// maxAnswer is more than a proxy's answer to CONNECT can reasonably be.
const maxAnswer = 64 << 10

func connectByHTTP(_ context.Context, c net.Conn, via *url.URL, address string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: make(http.Header)}
	if u := via.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(c); err != nil {
		return err
	}
	// Byte by byte: what follows the answer is the server's, who may speak first.
	var head bytes.Buffer
	for one := make([]byte, 1); !bytes.HasSuffix(head.Bytes(), []byte("\r\n\r\n")); head.Write(one) {
		if head.Len() == maxAnswer {
			return fmt.Errorf("its answer has no end after %d bytes", maxAnswer)
		}
		if _, err := io.ReadFull(c, one); err != nil {
			return err
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(&head), req)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	return nil
}

func connectBySOCKS(ctx context.Context, c net.Conn, via *url.URL, address string) error {
	var auth *proxy.Auth
	if u := via.User; u != nil {
		password, _ := u.Password()
		auth = &proxy.Auth{User: u.Username(), Password: password}
	}
	socks, err := proxy.SOCKS5("tcp", via.Host, auth, connected{c})
	if err != nil {
		return err
	}
	_, err = socks.(proxy.ContextDialer).DialContext(ctx, "tcp", address) // it is c, in a wrapper
	if op, ok := err.(*net.OpError); ok {
		err = op.Err // the rest names the proxy again
	}
	return err
}

// connected dials what is connected already.
type connected struct{ net.Conn }

func (c connected) Dial(string, string) (net.Conn, error) { return c.Conn, nil }
func (c connected) DialContext(context.Context, string, string) (net.Conn, error) {
	return c.Conn, nil
}

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
	"os"
	"strconv"
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
	if port, err = portNumber(context.Background(), "tcp", u.Port()); err != nil {
		err = fmt.Errorf("dialer: Proxy: %w", err)
	}
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
// this end from then on. A name is looked up by the proxy. It ends when ctx does.
func tunnel(ctx context.Context, c net.Conn, via *url.URL, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	number, err := portNumber(ctx, "tcp", port)
	if err != nil {
		return err
	}
	address = net.JoinHostPort(host, strconv.Itoa(int(number))) // "https" means nothing to a proxy
	connect := connectBySOCKS
	if via.Scheme == "http" {
		connect = connectByHTTP
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err = connect(c, via, address)
	if !stop() && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		err = context.Cause(ctx)
	}
	if err != nil {
		return &proxyError{via.Host, err}
	}
	return nil
}

// maxAnswer is more than a proxy's answer to CONNECT can reasonably be.
const maxAnswer = 64 << 10

func connectByHTTP(c net.Conn, via *url.URL, address string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: make(http.Header)}
	if u := via.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(c); err != nil {
		return err
	}
	return readAnswer(c)
}

// readAnswer reads what a proxy answers to CONNECT. It reads byte by byte, since what follows
// is the server's, who may speak first.
func readAnswer(r io.Reader) error {
	var head bytes.Buffer
	for one := make([]byte, 1); !isWhole(head.Bytes()); head.Write(one) {
		if head.Len() == maxAnswer {
			return fmt.Errorf("its answer has no end after %d bytes", maxAnswer)
		}
		if _, err := io.ReadFull(r, one); err != nil {
			return err
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(&head), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	return nil
}

// isWhole reports whether a head ends with an empty line.
func isWhole(head []byte) bool {
	return bytes.HasSuffix(head, []byte("\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n"))
}

func connectBySOCKS(c net.Conn, via *url.URL, address string) error {
	var auth *proxy.Auth
	if u := via.User; u != nil {
		password, _ := u.Password()
		auth = &proxy.Auth{User: u.Username(), Password: password}
	}
	socks, err := proxy.SOCKS5("tcp", via.Host, auth, connected{c})
	if err != nil {
		return err
	}
	_, err = socks.(proxy.ContextDialer).DialContext(context.Background(), "tcp", address) // it is c, in a wrapper
	if op, ok := err.(*net.OpError); ok {
		err = op.Err // the rest names the proxy again
	}
	return err
}

// connected dials what is connected already, and leaves its end to whoever has connected it.
type connected struct{ net.Conn }

func (c connected) Dial(string, string) (net.Conn, error)                         { return c, nil }
func (c connected) DialContext(context.Context, string, string) (net.Conn, error) { return c, nil }
func (c connected) Close() error                                                  { return nil }

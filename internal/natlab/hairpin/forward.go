package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The forward proxies' addresses, in the gateway's namespace: no backend of any balancer.
const (
	connectProxy = "10.78.1.1:3128"
	socksProxy   = "10.78.1.1:1080"
)

// forward starts forward proxies in the gateway: one is told by CONNECT where to, the other
// by SOCKS5.
func (st *stage) forward() error {
	for address, greet := range map[string]func(net.Conn) (to string, rest io.Reader, err error){
		connectProxy: greetConnect, socksProxy: greetSOCKS,
	} {
		var ln net.Listener
		if err := st.Inside("gateway", func() (err error) {
			ln, err = net.Listen("tcp4", address)
			return err
		}); err != nil {
			return err
		}
		go st.accept(ln, greet)
	}
	return nil
}

func (st *stage) accept(ln net.Listener, greet func(net.Conn) (string, io.Reader, error)) {
	st.origin.keep(ln)
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			st.origin.keep(c)
			defer st.origin.forget(c)
			c.SetDeadline(time.Now().Add(soon))
			if to, rest, err := greet(c); err == nil {
				c.SetDeadline(time.Time{})
				st.relay(c, rest, to)
			}
		}()
	}
}

// relay connects from the gateway to a port of the service's balancer, and hands on what comes
// until either end has enough.
func (st *stage) relay(c net.Conn, rest io.Reader, to string) {
	to, known := strings.CutPrefix(to, serviceName)
	if !known {
		return
	}
	to = vip(0, 0).Addr().String() + to
	var far net.Conn
	err := st.Inside("gateway", func() (err error) {
		far, err = net.DialTimeout("tcp4", to, soon)
		return err
	})
	if err != nil {
		return
	}
	st.origin.keep(far)
	defer st.origin.forget(far)
	var both sync.WaitGroup
	pass := func(to net.Conn, from io.Reader) {
		io.Copy(to, from)
		to.(*net.TCPConn).CloseWrite()
	}
	both.Go(func() { pass(c, far) })
	both.Go(func() { pass(far, rest) })
	both.Wait()
}

// greetConnect learns from a CONNECT where to, and says yes.
func greetConnect(c net.Conn) (string, io.Reader, error) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return "", nil, err
	}
	if req.Method != http.MethodConnect {
		return "", nil, fmt.Errorf("method %s", req.Method)
	}
	_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	return req.Host, r, err
}

// greetSOCKS learns it by SOCKS5 (RFC 1928), without a password, and says yes.
func greetSOCKS(c net.Conn) (string, io.Reader, error) {
	head := make([]byte, 2) // version, how many methods
	if _, err := io.ReadFull(c, head); err != nil {
		return "", nil, err
	}
	if _, err := io.ReadFull(c, make([]byte, head[1])); err != nil {
		return "", nil, err
	}
	if _, err := c.Write([]byte{5, 0}); err != nil {
		return "", nil, err
	}
	request := make([]byte, 5) // version, CONNECT, 0, a name, its length
	if _, err := io.ReadFull(c, request); err != nil {
		return "", nil, err
	}
	if request[1] != 1 || request[3] != 3 {
		return "", nil, errors.New("neither CONNECT nor a name")
	}
	to := make([]byte, int(request[4])+2)
	if _, err := io.ReadFull(c, to); err != nil {
		return "", nil, err
	}
	name, port := to[:request[4]], binary.BigEndian.Uint16(to[request[4]:])
	_, err := c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return net.JoinHostPort(string(name), strconv.Itoa(int(port))), c, err
}

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/keepalive"
)

// frozenEnv marks the environment of the process that is to be frozen. Its value
// is where its parent listens.
const frozenEnv = "NATWISE_LIVENESS_FROZEN"

const (
	frozenConns = 50
	frozenFor   = 8 * time.Second // longer than the path remembers
)

// A freezer is what the process is told that is to be frozen.
type freezer struct {
	Servers []netip.Addr
	Root    []byte // a certificate
}

// frozen stops a process that has connections parked, for longer than the path
// remembers them. Its kernel goes on, and with it the probes; without probes it
// is as in a machine that is frozen as a whole.
func frozen(r *work.Report) (err error) {
	st, err := open(natlab.Config{Path: roomy(), Servers: 8})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	ln, err := st.ListenClient("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), work.Path().Idle+frozenFor+30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := st.Exec(ctx, "client", "env", frozenEnv+"="+ln.Addr().String(), self)
		ln.Close() // it may not have come so far
		ended <- err
	}()
	found, err := st.freeze(ctx, ln)
	if err != nil {
		cancel()
	}
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	for _, m := range found {
		r.Note(m)
	}
	return nil
}

// freeze lets the process that dials ln park its connections, stops it for a
// while, and returns what it has measured then.
func (st *stage) freeze(ctx context.Context, ln net.Listener) (found []work.Measurement, err error) {
	c, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	order := freezer{Servers: st.servers(8), Root: st.origin.tls.Certificates[0].Certificate[0]}
	if err := json.NewEncoder(c).Encode(order); err != nil {
		return nil, err
	}
	from := json.NewDecoder(c)
	var pid int
	if err := from.Decode(&pid); err != nil {
		return nil, fmt.Errorf("the process to be frozen: %w", err)
	}
	if err := st.signal(ctx, "STOP", pid); err != nil {
		return nil, err
	}
	time.Sleep(work.Path().Idle + frozenFor)
	if err := st.signal(ctx, "CONT", pid); err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte("{}\n")); err != nil {
		return nil, err
	}
	err = from.Decode(&found)
	return found, err
}

// signal is the shell's kill: not every system that this is built for has SIGSTOP.
func (st *stage) signal(ctx context.Context, name string, pid int) error {
	_, err := st.Exec(ctx, "client", "sh", "-c", fmt.Sprintf("kill -%s %d", name, pid))
	return err
}

// beFrozen is what the process does that is to be frozen. It returns its status.
func beFrozen(parent string, stderr io.Writer) int {
	c, err := net.Dial("tcp", parent)
	if err == nil {
		err = parkAndUse(c, c)
		c.Close()
	}
	if err != nil {
		fmt.Fprintln(stderr, "liveness, frozen:", err)
		return 1
	}
	return 0
}

func parkAndUse(from io.Reader, to io.Writer) error {
	orders := json.NewDecoder(from)
	var order freezer
	if err := orders.Decode(&order); err != nil {
		return err
	}
	root, err := x509.ParseCertificate(order.Root)
	if err != nil {
		return err
	}
	client := clientTLS(root)
	ours := func(plan keepalive.Plan) *dialer.Dialer {
		return &dialer.Dialer{Ledger: &dialer.Ledger{Path: roomy(), Ramp: -1}, Plan: plan}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	probed := newRows(ours(keepalive.Plan{}), new(net.Dialer).DialContext, client, order.Servers[:4])
	silent := newRows(ours(keepalive.Plan{Idle: -1}), (&net.Dialer{KeepAlive: -1}).DialContext, client, order.Servers[4:])
	for _, w := range append(probed, silent...) {
		defer w.close()
		if err := w.open(ctx, frozenConns); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(to).Encode(os.Getpid()); err != nil {
		return err
	}
	if err := orders.Decode(&struct{}{}); err != nil { // it is over
		return err
	}
	var found []work.Measurement
	for _, w := range probed {
		w.use(ctx, frozenConns, answerDue)
		found = append(found, w.failed(tuned).At(w.over, "probes go on"))
	}
	for _, w := range silent {
		w.use(ctx, frozenConns, answerDue)
		found = append(found, w.failed(tunedSilent).At(w.over, "no probes"), w.stale().At(w.over, "no probes"))
	}
	return json.NewEncoder(to).Encode(found)
}

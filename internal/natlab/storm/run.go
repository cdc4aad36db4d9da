package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
)

// A Client is what one kind of client did in one run.
type Client struct {
	Name       string  `json:"name"`
	Requests   int     `json:"requests"`
	OK         int     `json:"ok"`
	Failed     int     `json:"failed"`
	Opened     int     `json:"flows_opened"` // SYNs of new flows that the gateway admitted
	PeakPorts  int     `json:"peak_ports"`   // in the gateway's table
	RefusedSYN int     `json:"refused_syn"`  // dropped by the gateway, retransmissions included
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Rate       float64 `json:"rate"` // answered a second
	Seconds    float64 `json:"seconds"`
	Error      string  `json:"error,omitempty"` // the first failure

	booked int // flows in natwise's ledger
}

// perform runs a scenario with one kind of client in a lab of its own.
func perform(s work.Scenario, kind string) (c Client, err error) {
	st, err := work.Open(s, kind)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()

	peak := watchPeak(st.Lab)
	load := st.Play()
	highest, err := peak()
	if err != nil {
		return c, err
	}
	counts, err := st.Lab.Counts()
	if err != nil {
		return c, err
	}
	c = figures(kind, load)
	c.Opened, c.RefusedSYN, c.PeakPorts = counts.Admitted, counts.Refused, highest
	c.booked = st.Booked()
	if c.Opened == 0 {
		return c, fmt.Errorf("%s: no flow has passed the gateway", kind)
	}
	return c, nil
}

func figures(kind string, load work.Load) Client {
	c := Client{
		Name: kind, Requests: load.Requests, OK: load.OK, Failed: load.Failed,
		P50:     milliseconds(work.Percentile(load.Took, 0.5)),
		P99:     milliseconds(work.Percentile(load.Took, 0.99)),
		Rate:    float64(load.OK) / load.Lasted.Seconds(),
		Seconds: load.Lasted.Seconds(),
	}
	if load.Error != nil {
		c.Error = load.Error.Error()
	}
	return c
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// watchPeak looks at the gateway's table until the function that it returns is
// called, which tells the most flows that were in it.
func watchPeak(lab *natlab.Lab) (peak func() (int, error)) {
	stop, done := make(chan struct{}), make(chan struct{})
	highest := 0
	var failed error
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var flows []natlab.Flow
		for failed == nil {
			if flows, failed = lab.Flows(flows[:0]); failed == nil {
				highest = max(highest, len(flows))
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() (int, error) {
		close(stop)
		<-done
		return highest, failed
	}
}

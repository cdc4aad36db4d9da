package work

import (
	"errors"
	"fmt"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// A Result is what one kind of client did in one run, and what the gateway saw of it.
// Percentiles are of all requests, the failed ones too.
type Result struct {
	Name       string  `json:"name"`
	Requests   int     `json:"requests"`
	OK         int     `json:"ok"`
	Failed     int     `json:"failed"`
	Opened     int     `json:"flows_opened"` // SYNs of new flows that the gateway admitted
	PeakPorts  int     `json:"peak_ports"`   // in the gateway's table
	RefusedSYN int     `json:"refused_syn"`  // dropped by the gateway, retransmissions included
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
	Rate       float64 `json:"rate"` // answered a second
	Seconds    float64 `json:"seconds"`
	Error      string  `json:"error,omitempty"` // the first failure

	Booked int `json:"-"` // flows in natwise's ledger
}

// Perform plays a scenario on the stage that open opens, and closes that.
func Perform(name string, open func() (*Stage, error)) (r Result, err error) {
	st, err := open()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()

	peak := watchPeak(st.Lab)
	load := st.Play()
	highest, err := peak()
	if err != nil {
		return r, err
	}
	counts, err := st.Lab.Counts()
	if err != nil {
		return r, err
	}
	r = figures(name, load)
	r.Opened, r.RefusedSYN, r.PeakPorts = counts.Admitted, counts.Refused, highest
	r.Booked = st.Booked()
	if r.Opened == 0 {
		return r, fmt.Errorf("%s: no flow has passed the gateway", name)
	}
	return r, nil
}

func figures(name string, load Load) Result {
	r := Result{
		Name: name, Requests: load.Requests, OK: load.OK, Failed: load.Failed,
		P50:     Milliseconds(Percentile(load.Took, 0.5)),
		P99:     Milliseconds(Percentile(load.Took, 0.99)),
		P999:    Milliseconds(Percentile(load.Took, 0.999)),
		Rate:    float64(load.OK) / load.Lasted.Seconds(),
		Seconds: load.Lasted.Seconds(),
	}
	if load.Error != nil {
		r.Error = load.Error.Error()
	}
	return r
}

// Milliseconds returns d with two decimals.
func Milliseconds(d time.Duration) float64 {
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

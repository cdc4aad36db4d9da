package debug

import (
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive/netpath"
)

// ports are how many of an account are in which state.
type ports struct {
	Limit   count `json:"limit"` // null: there is none
	Taken   int   `json:"taken"`
	Active  int   `json:"active"`
	Idle    int   `json:"idle"`
	Dialing int   `json:"dialing"`
	Cooling int   `json:"cooling"`
	Free    count `json:"free"` // null where there is no limit
}

func (p *ports) count(f dialer.State) {
	switch f {
	case dialer.Asked, dialer.Dialing:
		p.Dialing++
	case dialer.Active:
		p.Active++
	case dialer.Idle:
		p.Idle++
	default: // until the last FIN is known to have got there, a port cools no less
		p.Cooling++
	}
}

func (p *ports) add(q ports) {
	p.Active += q.Active
	p.Idle += q.Idle
	p.Dialing += q.Dialing
	p.Cooling += q.Cooling
}

// settle fills in what follows from the rest.
func (p *ports) settle() {
	p.Taken = p.Active + p.Idle + p.Dialing + p.Cooling
	p.Free = netpath.None
	if p.Limit != netpath.None {
		p.Free = max(0, p.Limit-count(p.Taken)) // in shadow more may be taken
	}
}

// utilization is negative where there is no limit.
func (p ports) utilization() float64 {
	if p.Limit == netpath.None {
		return -1
	}
	return float64(p.Taken) / float64(max(1, p.Limit))
}

const (
	step  = 10 * time.Second // of a forecast
	steps = 24
)

// A forecast says when the ports that cool come free.
type forecast struct {
	Next  *seconds   `json:"next_free_seconds"` // null: none cools
	All   *seconds   `json:"all_free_seconds"`
	Freed [steps]int `json:"freed"` // in each of the next 24 times 10 s
	Later int        `json:"freed_later"`
}

// comes says that a port comes free then.
func (f *forecast) comes(free time.Duration) {
	s := seconds(max(0, free))
	if f.Next == nil || s < *f.Next {
		f.Next = &s
	}
	if f.All == nil || s > *f.All {
		f.All = &s
	}
	// What comes free in exactly 10 s does so in the first of them.
	if at := int((s - 1) / seconds(step)); at < steps {
		f.Freed[max(0, at)]++
	} else {
		f.Later++
	}
}

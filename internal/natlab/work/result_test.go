package work

import (
	"errors"
	"testing"
	"time"
)

func TestAResultTellsPercentilesInMillisecondsAndTheFirstFailure(t *testing.T) {
	load := Load{Requests: 1000, OK: 999, Failed: 1, Lasted: 2 * time.Second, Error: errors.New("no port")}
	for i := range 1000 {
		load.Took = append(load.Took, time.Duration(1000-i)*time.Millisecond)
	}
	r := figures("somebody", load)
	if r.P50 != 500 || r.P99 != 990 || r.P999 != 999 {
		t.Errorf("percentiles %v, %v, %v", r.P50, r.P99, r.P999)
	}
	if r.Name != "somebody" || r.Requests != 1000 || r.OK != 999 || r.Failed != 1 || r.Rate != 499.5 || r.Seconds != 2 || r.Error != "no port" {
		t.Errorf("%+v", r)
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"
)

// opened is how many connections four at once, five times, take: two idle ones are all
// that database/sql keeps by itself.
var opened = map[string]uint64{"plain": 4 + 4*2, "tuned": 4, "open": 4}

func TestEachDriverByEachDoorIsBooked(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			dsn := dsns[k.name](t)
			for door, opened := range opened {
				if k.connector == nil && door != "open" {
					continue // it has its own
				}
				t.Run(door, func(t *testing.T) {
					d := behindNAT()
					p, err := work{kind: k, dsn: dsn, door: door}.open(t.Context(), d)
					if err != nil {
						t.Fatal(err)
					}
					for range 5 {
						if err := p.together(t.Context(), 4); err != nil {
							t.Error(err)
						}
					}
					a := account(t, d)
					if a.Opened != opened || a.Taken() != int(opened) {
						t.Errorf("%d connections were opened, want %d: %v", a.Opened, opened, a)
					}
					p.close()
					until(t, "every port is held by what has ended", func() bool {
						a := account(t, d)
						return cooling(a) == a.Taken() && a.Taken() == int(opened)
					})
				})
			}
		})
	}
}

func TestTheCommandSaysWhatItNeeds(t *testing.T) {
	var out, errs bytes.Buffer
	if status := run(t.Context(), nil, &out, &errs); status != 0 {
		t.Errorf("status %d: %s", status, &errs)
	}
	for _, k := range kinds {
		if want := k.dsn; !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, &out)
		}
	}
}

func TestTheCommandShowsTheAccountOfAServer(t *testing.T) {
	var out, errs bytes.Buffer
	dsn := dsns["pgx"](t)
	args := []string{"-dsn", dsn, "-path", "azure-app-service", "-door", "plain"}
	if status := run(t.Context(), args, &out, &errs); status != 0 {
		t.Errorf("status %d: %s", status, &errs)
	}
	for _, want := range []string{"12 of 128 ports taken (2 active, ", "12 opened, 0 failed", "after it"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

func TestTheCommandRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, args := range [][]string{{"-driver", "oracle"}, {"-door", "back"}, {"-conns", "0"}, {"-path", "nowhere"}, {"more"}} {
		var out, errs bytes.Buffer
		status := run(t.Context(), args, &out, &errs)
		if status != 2 || !strings.Contains(errs.String(), args[len(args)-1]) {
			t.Errorf("%q: status %d, %q", args, status, &errs)
		}
	}
}

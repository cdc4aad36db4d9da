package main

import (
	"fmt"
	"time"

	"github.com/natwise/natwise/internal/terminal"
)

// span returns d as people write it: 250 ms, 4 s.
func span(d time.Duration) string {
	if d < time.Second {
		return milliseconds(d)
	}
	return fmt.Sprintf("%g s", d.Seconds())
}

func milliseconds(d time.Duration) string { return terminal.Thousands(int(d.Milliseconds())) + " ms" }

// counted returns one of the three: "no flow", "one flow", "12 flows".
func counted(n int, none, one, many string) string {
	switch n {
	case 0:
		return none
	case 1:
		return one
	}
	return terminal.Thousands(n) + " " + many
}

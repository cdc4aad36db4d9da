package main

import (
	"fmt"
	"time"

	"github.com/natwise/natwise/internal/terminal"
)

// span returns d as people write it: 250 ms, 4 s.
func span(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%g ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%g s", d.Seconds())
}

// counted returns one of the two: "a flow", or "12 flows".
func counted(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return terminal.Thousands(n) + " " + many
}

package terminal_test

import (
	"testing"

	"github.com/natwise/natwise/internal/terminal"
)

func TestAClippedLineEndsAtItsColumnAndInItsOwnColour(t *testing.T) {
	term := terminal.Terminal{Colour: true}
	painted := "ab" + term.Paint(terminal.Red, "▓▓▓") + "c"
	for cols, want := range map[int]string{
		-1: "\x1b[31m\x1b[0m",
		0:  "\x1b[31m\x1b[0m",
		1:  "…\x1b[31m\x1b[0m",
		4:  "ab\x1b[31m▓…\x1b[0m",
		6:  painted,
		60: painted,
	} {
		if got := terminal.Clip(painted, cols); got != want {
			t.Errorf("in %d columns: %q, want %q", cols, got, want)
		}
	}
}

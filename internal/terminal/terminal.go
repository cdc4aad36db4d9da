// Package terminal is what the examples draw on.
package terminal

import (
	"fmt"
	"os"
	"runtime"
)

// A Terminal is what an output can do. The zero Terminal is paper.
type Terminal struct {
	Live   bool                    // lines can be drawn over
	Colour bool                    // and painted
	Size   func() (cols, rows int) // it may change; nil, or zeros: the usual size
}

// Of looks at f and the environment: NO_COLOR takes the colours, TERM=dumb all.
func Of(f *os.File) Terminal {
	if _, _, ok := windowSize(f); !ok || os.Getenv("TERM") == "dumb" {
		return Terminal{}
	}
	if runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return Terminal{} // a console that may print the codes instead of obeying them
	}
	return Terminal{Live: true, Colour: os.Getenv("NO_COLOR") == "", Size: func() (cols, rows int) {
		cols, rows, _ = windowSize(f)
		return cols, rows
	}}
}

// What a terminal has, if nobody knows.
const usualCols, usualRows = 80, 24

// Room is how many columns may be written to, and how many rows.
func (t Terminal) Room() (cols, rows int) {
	if t.Size != nil {
		cols, rows = t.Size()
	}
	if cols <= 0 {
		cols = usualCols
	}
	if rows <= 0 {
		rows = usualRows
	}
	return cols - 1, rows // the last column is not to be relied on
}

// A Colour is the number of its code.
type Colour int

// The colours, and what else text can be.
const (
	Bold    Colour = 1
	Faint   Colour = 2
	Red     Colour = 31
	Green   Colour = 32
	Yellow  Colour = 33
	Blue    Colour = 34
	Magenta Colour = 35
	Cyan    Colour = 36
)

// Paint returns the text in that colour, if there are any.
func (t Terminal) Paint(c Colour, text string) string {
	if !t.Colour || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}

package main

import (
	"fmt"
	"os"
	"runtime"
)

// A terminal is what the output can do. The zero terminal is paper.
type terminal struct {
	live   bool                    // lines can be drawn over
	colour bool                    // and painted
	size   func() (cols, rows int) // it may change; nil, or zeros: the usual size
}

// terminalOf looks at f and the environment: NO_COLOR takes the colours, TERM=dumb all.
func terminalOf(f *os.File) terminal {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("TERM") == "dumb" {
		return terminal{}
	}
	if runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return terminal{} // a console that may print the codes instead of obeying them
	}
	if _, _, ok := windowSize(f); !ok {
		return terminal{} // some other device: /dev/null
	}
	return terminal{live: true, colour: os.Getenv("NO_COLOR") == "", size: func() (cols, rows int) {
		cols, rows, _ = windowSize(f)
		return cols, rows
	}}
}

// What a terminal has, if nobody knows.
const usualCols, usualRows = 80, 24

// room is how many columns may be written to, and how many rows.
func (t terminal) room() (cols, rows int) {
	if t.size != nil {
		cols, rows = t.size()
	}
	if cols <= 0 {
		cols = usualCols
	}
	if rows <= 0 {
		rows = usualRows
	}
	return cols - 1, rows // the last column is not to be relied on
}

// A colour is the number of its code.
type colour int

const (
	bold    colour = 1
	faint   colour = 2
	red     colour = 31
	green   colour = 32
	yellow  colour = 33
	blue    colour = 34
	magenta colour = 35
	cyan    colour = 36
)

func (t terminal) paint(c colour, text string) string {
	if !t.colour || text == "" {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, text)
}

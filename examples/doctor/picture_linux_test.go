package main

import (
	"fmt"
	"html"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var (
	code = regexp.MustCompile("\x1b\\[([0-9;?]*)[a-zA-Z]")
	inks = map[string]string{
		"0": "fill='#d0d4dc'", "1": "fill='#ffffff' font-weight='bold'", "2": "fill='#79818f'",
		"31": "fill='#ff7b72'", "32": "fill='#56d364'", "33": "fill='#e3b341'", "34": "fill='#79c0ff'", "35": "fill='#d2a8ff'",
	}
)

// draw writes the last frame that a terminal was sent as a picture of that terminal.
func draw(t *testing.T, sent string) {
	t.Helper()
	const wide, high, pad = 8.4, 19, 14
	frame := sent[strings.LastIndex(sent, "\x1b[H"):strings.LastIndex(sent, "\x1b[J")]
	lines := strings.Split(strings.TrimRight(frame, "\n"), "\n")
	var text strings.Builder
	cols := 0
	for row, line := range lines {
		col, ink, at := 0, inks["0"], 0
		for _, c := range append(code.FindAllStringSubmatchIndex(line, -1), []int{len(line), len(line), 0, 0}) {
			run := line[at:c[0]]
			n := utf8.RuneCountInString(run)
			if strings.TrimSpace(run) != "" {
				fmt.Fprintf(&text, "<text x='%.1f' y='%d' textLength='%.1f' lengthAdjust='spacingAndGlyphs' %s>%s</text>\n",
					pad+wide*float64(col), pad+high*row+high-5, wide*float64(n), ink, strings.ReplaceAll(html.EscapeString(run), " ", "\u00a0"))
			}
			if known, ok := inks[line[c[2]:c[3]]]; ok {
				ink = known
			}
			col, at = col+n, c[1]
		}
		cols = max(cols, col)
	}
	w, h := 2*pad+int(wide*float64(cols))+1, 2*pad+high*len(lines)
	svg := fmt.Sprintf("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' "+
		"font-family='DejaVu Sans Mono, Menlo, Consolas, monospace' font-size='14'>\n"+
		"<rect width='100%%' height='100%%' rx='8' fill='#0d1117'/>\n%s</svg>\n", w, h, w, h, &text)
	if err := os.WriteFile(*picture, []byte(svg), 0o644); err != nil {
		t.Fatal(err)
	}
}

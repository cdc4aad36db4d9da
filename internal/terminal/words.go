package terminal

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Wrap breaks text into lines of at most so many columns, each with the indent in front.
func Wrap(text, indent string, cols int) string {
	var out strings.Builder
	used := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
			out.WriteString(indent)
			used = len(indent)
		case used+1+n > cols:
			out.WriteString("\n" + indent)
			used = len(indent)
		default:
			out.WriteByte(' ')
			used++
		}
		out.WriteString(word)
		used += n
	}
	return out.String()
}

// Clip shortens a line to so many columns; it may be painted.
func Clip(line string, cols int) string {
	if utf8.RuneCountInString(paint.ReplaceAllString(line, "")) <= cols {
		return line
	}
	var out strings.Builder
	for used := 1; line != ""; {
		if code := paint.FindStringIndex(line); code != nil && code[0] == 0 { // what is painted ends, too
			out.WriteString(line[:code[1]])
			line = line[code[1]:]
			continue
		}
		r, n := utf8.DecodeRuneInString(line)
		switch {
		case used < cols:
			out.WriteRune(r)
		case used == cols:
			out.WriteRune('…') // or a number would be another one
		}
		line, used = line[n:], used+1
	}
	return out.String()
}

var paint = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// Thousands returns n as people write it: 20,000.
func Thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// Frame returns what replaces the lines that were drawn last, so many of them, in one write:
// or it flickers.
func Frame(drawn int, lines []string) []byte {
	var frame bytes.Buffer
	if drawn > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA", drawn)
	}
	for _, line := range lines {
		fmt.Fprintf(&frame, "\r\x1b[2K%s\n", line)
	}
	if drawn > len(lines) { // the window has become smaller
		frame.WriteString("\x1b[J")
	}
	return frame.Bytes()
}

//go:build !linux && !darwin

package terminal

import "os"

// windowSize does not know: the standard library does not ask here. A character device
// is a terminal, or nothing that would mind.
func windowSize(f *os.File) (cols, rows int, ok bool) {
	info, err := f.Stat()
	return 0, 0, err == nil && info.Mode()&os.ModeCharDevice != 0
}

//go:build !linux && !darwin

package main

import "os"

// windowSize does not know: the standard library does not ask here.
func windowSize(*os.File) (cols, rows int, ok bool) { return 0, 0, true }

//go:build !linux

package main

import (
	"fmt"
	"io"
)

// playWatch measures nothing: there is no Watcher for this system.
func playWatch(int, int, int, io.Writer) (map[string][]turn, error) {
	return nil, fmt.Errorf("%w: a keepalive.Watcher watches on Linux", errUnavailable)
}

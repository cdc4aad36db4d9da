package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// martians is how many packets the kernel has dropped because they came from an address of
// their receiver's: in_martian_src, of the whole machine. 0: it does not say.
func martians() (n int) {
	b, _ := os.ReadFile("/proc/net/stat/rt_cache")
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "in_martian_src")
	for _, cpu := range lines[1:] {
		if counters := strings.Fields(cpu); column >= 0 && column < len(counters) {
			v, _ := strconv.ParseUint(counters[column], 16, 32)
			n += int(v)
		}
	}
	return n
}

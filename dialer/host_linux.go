package dialer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// strays is the kernel's counter in_martian_src, which has a line for each processor. It
// counts what comes from outside with a source address of this machine's (Linux,
// fib_validate_source). It is the machine's, not the network namespace's.
func strays() (uint64, bool) {
	b, err := os.ReadFile("/proc/net/stat/rt_cache")
	if err != nil {
		return 0, false
	}
	return parseStrays(b)
}

func parseStrays(b []byte) (sum uint64, ok bool) {
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	column := slices.IndexFunc(bytes.Fields(lines[0]), func(name []byte) bool { return string(name) == "in_martian_src" })
	if column < 0 || len(lines) < 2 {
		return 0, false
	}
	for _, line := range lines[1:] {
		fields := bytes.Fields(line)
		if column >= len(fields) {
			return 0, false
		}
		n, err := strconv.ParseUint(string(fields[column]), 16, 32)
		if err != nil {
			return 0, false
		}
		sum += n
	}
	return sum, true
}

func listening() (ports []uint16) {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if f, err := os.Open(file); err == nil {
			ports = append(ports, parseListening(f)...)
			f.Close()
		}
	}
	return ports
}

// parseListening reads the sockets that listen, which stand before all others, and leaves out
// those that only this machine reaches.
func parseListening(r io.Reader) (ports []uint16) {
	lines := bufio.NewScanner(r)
	lines.Scan() // the titles
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != "0A" {
			break
		}
		at, number, found := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(number, 16, 16)
		if !found || err != nil || loopback(at) {
			continue
		}
		ports = append(ports, uint16(port))
	}
	return ports
}

// loopback reports whether an address is the machine's own, given in words of hexadecimal
// digits of its own byte order.
func loopback(at string) bool {
	var raw []byte
	for ; len(at) >= 8; at = at[8:] {
		word, err := strconv.ParseUint(at[:8], 16, 32)
		if err != nil {
			return false
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(word))
	}
	a, ok := netip.AddrFromSlice(raw)
	return ok && a.Unmap().IsLoopback()
}

// linearSYNs is how many times the kernel repeats a SYN after the same second, before it
// doubles that (since 6.5).
var linearSYNs = sync.OnceValue(func() int {
	b, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_syn_linear_timeouts")
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
})

// localPorts says how many there are.
func localPorts() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return ""
	}
	var first, last int
	if _, err := fmt.Sscan(string(b), &first, &last); err != nil {
		return ""
	}
	return fmt.Sprintf("net.ipv4.ip_local_port_range has %d for each destination and source address", last-first+1)
}

package dialer

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/natwise/natwise/internal/natlab"
)

func TestWhoListensForOthersIsKnown(t *testing.T) {
	for _, test := range []struct {
		network, address string
		multipath, want  bool
	}{
		{"tcp4", "0.0.0.0:0", false, true},
		{"tcp4", "0.0.0.0:0", true, true}, // Go's default
		{"tcp6", "[::]:0", false, true},
		{"tcp4", "127.0.0.1:0", false, false},
		{"tcp4", "127.0.1.9:0", false, false},
		{"tcp6", "[::1]:0", false, false},
		{"tcp6", "[::ffff:127.0.0.1]:0", false, false},
	} {
		var cfg net.ListenConfig
		cfg.SetMultipathTCP(test.multipath)
		ln, err := cfg.Listen(t.Context(), test.network, test.address)
		if err != nil {
			t.Logf("%s: %v", test.address, err)
			continue
		}
		port := uint16(ln.Addr().(*net.TCPAddr).Port)
		if got := slices.Contains(listening(), port); got != test.want {
			t.Errorf("%s %s (multipath %t) is known: %t", test.network, test.address, test.multipath, got)
		}
		ln.Close()
	}
}

func TestWhoListensIsAskedAgainAfterAWhile(t *testing.T) {
	asked := 0
	who := remembered(func() []uint16 { asked++; return []uint16{443, 80, 443} })
	for range 3 {
		if got := who(); !slices.Equal(got, []uint16{80, 443}) {
			t.Errorf("got %v", got)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

const titles = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// socket is a line of /proc/net/tcp.
func socket(n int, local string, state string) string {
	return fmt.Sprintf("%4d: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000000000000000 100 0 0 10 0\n", n, local, state, 1000+n)
}

func TestTheKernelsTableOfListenersIsRead(t *testing.T) {
	const established = "01"
	for _, test := range []struct {
		table string
		want  []uint16
	}{
		{"", nil},
		{titles, nil},
		{titles + socket(0, "00000000:0050", "0A") + socket(1, "0201A8C0:1F90", "0A"), []uint16{80, 8080}},
		{titles + socket(0, "00000000:0050", "0A") + socket(1, "0201A8C0:1F90", established) + socket(2, "00000000:01BB", "0A"), []uint16{80}},
		{titles + socket(0, "0100007F:0050", "0A") + socket(1, "00000000:01BB", "0A"), []uint16{443}},
		{titles + socket(0, "00000000000000000000000001000000:0050", "0A"), nil},
		{titles + socket(0, "0000000000000000FFFF00000100007F:0050", "0A"), nil},
		{titles + socket(0, "0000000000000000FFFF00000201A8C0:0050", "0A"), []uint16{80}},
		{titles + socket(0, "00000000:FFFFF", "0A") + socket(1, "00000000:01BB", "0A"), []uint16{443}},
		{titles + "garbage", nil},
	} {
		if got := parseListening(strings.NewReader(test.table)); !slices.Equal(got, test.want) {
			t.Errorf("%q: %v, want %v", test.table, got, test.want)
		}
	}
}

func TestTheKernelsCountersOfStraysAreSummed(t *testing.T) {
	if _, counted := strays(); !counted {
		t.Error("this kernel does not count them")
	}
	for _, test := range []struct {
		table string
		want  uint64
		ok    bool
	}{
		{"entries  in_hit in_martian_dst in_martian_src\n00000011 00000000 00000001 0000000a\n00000011 00000000 00000000 ffffffff\n", 0xa + 0xffffffff, true},
		{"in_martian_src\n5\n", 5, true},
		{"in_martian_src\n", 0, false},
		{"entries in_hit\n1 1\n", 0, false},
		{"entries in_martian_src\n1 1\n1\n", 0, false},
		{"entries in_martian_src\n1 -1\n", 0, false},
		{"", 0, false},
	} {
		if got, ok := parseStrays([]byte(test.table)); got != test.want || ok != test.ok {
			t.Errorf("%q: %d, %t", test.table, got, ok)
		}
	}
}

// FuzzListening wants what comes after the first socket that does not listen to change nothing.
func FuzzListening(f *testing.F) {
	f.Add(titles + socket(0, "00000000:0050", "0A") + socket(1, "0201A8C0:1F90", "06"))
	f.Add(titles + socket(0, "0000000000000000FFFF00000100007F:0050", "0A"))
	f.Add("\n\n0: :50 : 0A\n")
	f.Fuzz(func(t *testing.T, table string) {
		ports := parseListening(strings.NewReader(table))
		if n := strings.Count(table, "0A"); len(ports) > n {
			t.Fatalf("%d ports of %d sockets that listen", len(ports), n)
		}
		more := table + "\n" + socket(1, "00000000:0051", "01") + socket(2, "00000000:0052", "0A")
		if again := parseListening(strings.NewReader(more)); !slices.Equal(again, ports) {
			t.Fatalf("%v, and with two more sockets %v", ports, again)
		}
	})
}

// FuzzStrays wants another processor to add what it counts.
func FuzzStrays(f *testing.F) {
	f.Add([]byte("entries in_martian_src out_hit\n00000011 0000000a 1\n"))
	f.Add([]byte("in_martian_src"))
	f.Fuzz(func(t *testing.T, table []byte) {
		sum, ok := parseStrays(table)
		if !ok {
			if sum != 0 {
				t.Fatalf("%d of nothing", sum)
			}
			return
		}
		columns := len(bytes.Fields(bytes.SplitN(bytes.TrimSpace(table), []byte("\n"), 2)[0]))
		more := append(bytes.TrimSpace(table), "\n"+strings.Repeat(" 00000007", columns)...)
		if got, ok := parseStrays(more); !ok || got != sum+7 {
			t.Fatalf("%d, and with 7 more %d, %t", sum, got, ok)
		}
	})
}

// FuzzAnswer wants nothing to be read of what follows a proxy's answer, and little if it
// never ends.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\n\r\n220 mail.example\r\n\r\n", "HTTP/1.0 200\n\n", "HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", "\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, says []byte) {
		r := bytes.NewReader(says)
		err := readAnswer(r)
		read := says[:len(says)-r.Len()]
		end := -1
		for i := range read {
			if isWhole(read[:i+1]) {
				end = i + 1
				break
			}
		}
		switch {
		case len(read) > maxAnswer:
			t.Fatalf("%d bytes were read", len(read))
		case end >= 0 && end != len(read):
			t.Fatalf("%d bytes of %q were read, it ends after %d", len(read), says, end)
		case err == nil && (end < 0 || !bytes.HasPrefix(read, []byte("HTTP/")) || !bytes.Contains(read, []byte(" 2"))):
			t.Fatalf("%q means yes", read)
		}
	})
}

// The kernel says how often it has sent a SYN again.
func TestSYNsAreCountedAsTheKernelSendsThem(t *testing.T) {
	t.Parallel()
	lab := natlab.Need(t, natlab.Config{})
	dst := netip.AddrPortFrom(lab.Server(0), 443)
	if err := errors.Join(lab.Count(dst), lab.Blackhole(dst, true)); err != nil {
		t.Fatal(err)
	}
	var fd int
	err := lab.Inside("client", func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(dst.Port()), Addr: dst.Addr().As4()})
	})
	defer unix.Close(fd)
	if !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	start := time.Now()
	for time.Since(start) < 6*time.Second {
		time.Sleep(time.Second / 2)
		before := time.Since(start)
		i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		// Its timers are late by a fortieth of a second for each.
		if sent, low, high := int(i.Total_retrans)+1, synsIn(before-before/20-10*time.Millisecond), synsIn(time.Since(start)); sent < low || sent > high {
			t.Errorf("after %v the kernel has sent %d SYNs, expected were %d to %d", before, sent, low, high)
		}
	}
}

// BenchmarkListening reads a table of 20,000 connections, behind the few sockets that listen.
func BenchmarkListening(b *testing.B) {
	table := func(listeners int) string {
		var t strings.Builder
		t.WriteString(titles)
		for i := range 20_000 {
			state := "01"
			if i < listeners {
				state = "0A"
			}
			t.WriteString(socket(i, fmt.Sprintf("0201A8C0:%04X", 1024+i), state))
		}
		return t.String()
	}
	for _, listeners := range []int{20, 20_000} {
		b.Run(fmt.Sprintf("%d listen", listeners), func(b *testing.B) {
			text := table(listeners)
			b.ReportAllocs()
			for b.Loop() {
				if n := len(parseListening(strings.NewReader(text))); n != listeners {
					b.Fatal(n)
				}
			}
		})
	}
	b.Run("of this machine", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			listening()
		}
	})
}

// BenchmarkHost is what a dial that hangs asks for each of its source ports.
func BenchmarkHost(b *testing.B) {
	thisHost.listening()
	b.ReportAllocs()
	for b.Loop() {
		thisHost.strays()
		thisHost.listening()
	}
}

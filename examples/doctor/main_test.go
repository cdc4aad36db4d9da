package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natwise/natwise/internal/terminal"
	"github.com/natwise/natwise/keepalive/netpath"
)

var update = flag.Bool("update", false, "write what is printed to testdata")

func TestABadFlagIsNamedWithItsValue(t *testing.T) {
	m := newMachine(t)
	for args, want := range map[string]string{
		"-for 10ms":     "-for 10ms: must be within 1s and 8760h0m0s",
		"-for -1s":      "-for -1s: must be within",
		"-for soon":     `invalid value "soon" for flag -for: parse error`,
		"-every 1ms":    "-every 1ms: must be within 20ms and 10s",
		"-pid -4":       "-pid -4: must be that of a process",
		"-pid 4711":     "-pid 4711: there is no such process",
		"-pid 0x":       `invalid value "0x" for flag -pid: parse error`,
		"-watch -json":  "-watch and -json: it is one or the other",
		"-path nowhere": `-path nowhere: netpath: no profile "nowhere"`,
		"now":           `unexpected argument "now": there are only flags`,
		"-fro 1m":       "flag provided but not defined: -fro",
	} {
		status, out, errs := m.examineAs(pathOf, terminal.Terminal{}, args)
		if status != 2 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, output %q, error %q, want %q", args, status, out, errs, want)
		}
	}
}

func TestAProcessInAnotherNamespaceIsRefusedWithTheWayThere(t *testing.T) {
	m := newMachine(t)
	m.process(77, "box")
	for process, ns := range map[string]string{"77": "net:[2]", "self": "net:[1]"} {
		m.write(process+"/ns/mnt", "")
		if err := os.Symlink(ns, filepath.Join(m.root, process, "ns/net")); err != nil {
			t.Fatal(err)
		}
	}
	status, _, errs := m.examine(azure, terminal.Terminal{}, "-pid 77")
	if status != 2 || !strings.Contains(errs, "-pid 77: it lives in another network namespace: nsenter -t 77 -n") {
		t.Errorf("status %d, %q", status, errs)
	}
}

func TestHelpIsNoError(t *testing.T) {
	if status, out, errs := newMachine(t).examine(azure, terminal.Terminal{}, "-help"); status != 0 || out != "" || !strings.Contains(errs, "-every") {
		t.Errorf("status %d, output %q, error %q", status, out, errs)
	}
}

// A system that does not tell of sockets, and a kernel that stops to do so.
func TestWhereNothingIsToBeSeenThePathIsToldAllTheSame(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		m.failed = errors.New("no such kernel")
		status, out, errs := m.examine(azure, terminal.Terminal{}, "")
		if status != 1 || errs != "doctor: no such kernel\n" || !strings.Contains(out, "carries 128 connections, counted by destination (documented)") {
			t.Errorf("status %d, %q:\n%s", status, errs, out)
		}
		if strings.Contains(out, "Nothing wrong") || strings.Contains(out, "watch") {
			t.Errorf("it claims to have looked:\n%s", out)
		}
	})
}

func TestTheWatchLastsForOneHoldAndAnInterruptEndsIt(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		for path, want := range map[string]time.Duration{"azure-app-service": 240 * time.Second, "openbsd-pf": time.Minute} {
			start := time.Now()
			m.examineAs(pathOf, terminal.Terminal{}, "-path "+path)
			if took := time.Since(start); took != want {
				t.Errorf("%s: %v, want %v", path, took, want)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		m.ctx = ctx
		start := time.Now()
		status, out, _ := m.examine(azure, terminal.Terminal{}, "-watch")
		if status != 0 || time.Since(start) != time.Hour || !strings.Contains(out, "watched for 60 min") {
			t.Errorf("status %d after %v:\n%s", status, time.Since(start), out)
		}
	})
}

// The whole of what people read, of a machine with a bit of everything.
func TestWhatIsPrinted(t *testing.T) {
	for file, c := range map[string]struct {
		args string
		term terminal.Terminal
	}{
		"report.txt":  {"-for 61s", terminal.Terminal{}},
		"report.json": {"-for 61s -json", terminal.Terminal{}},
		"screen.txt":  {"-for 61s -watch", terminal.Terminal{Live: true, Size: func() (int, int) { return 100, 16 }}},
	} {
		inVirtualTime(t, func(t *testing.T, m *machine) {
			path := azure.said
			path.Source = "a page (2026-01-01)" // not to depend on the profile's text
			programs := map[int]func(*machine, int){
				41: oneARequest, 42: abandoning, 43: func(m *machine, pid int) { pooled(m, pid, 2) },
			}
			var doing []func()
			for pid, name := range []string{41: "shop", 42: "mailer", 43: "crawler"} {
				if name != "" {
					m.process(pid, name)
					doing = append(doing, func() {
						time.Sleep(time.Duration(pid) * time.Millisecond)
						programs[pid](m, pid)
					})
				}
			}
			status, out, errs := m.examine(newPathway(path, true), c.term, c.args, doing...)
			if status != 1 || errs != "" {
				t.Fatalf("status %d: %s", status, errs)
			}
			golden(t, file, out)
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s: %v; got\n%s", file, err, got)
	}
}

func TestATerminalGetsItsContentsBackAndPaperNoCodes(t *testing.T) {
	for _, live := range []bool{true, false} {
		inVirtualTime(t, func(t *testing.T, m *machine) {
			_, out, _ := m.examine(azure, terminal.Terminal{Live: live, Colour: live}, "-watch -for 5s")
			on, off := strings.Count(out, "\x1b[?1049h"), strings.Count(out, "\x1b[?7h\x1b[?25h\x1b[?1049l")
			if live && (on != 1 || off != 1 || strings.Index(out, "\x1b[?1049l") > strings.Index(out, "The path:")) {
				t.Errorf("%d on, %d off", on, off)
			}
			if !live && strings.Contains(out, "\x1b") {
				t.Errorf("codes on paper: %q", out)
			}
		})
	}
}

func TestTheViewFitsEveryWindow(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, m *machine) {
		for pid := range 30 {
			m.process(100+pid, "a-very-long-name")
			m.dial(100+pid, netip.AddrPortFrom(netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1234:5678"), uint16(1+pid)), established)
		}
		for _, size := range [][2]int{{200, 60}, {80, 24}, {60, 10}, {20, 3}, {0, 0}} {
			_, out, _ := m.examine(azure, terminal.Terminal{Live: true, Size: func() (int, int) { return size[0], size[1] }}, "-watch -for 1s")
			frame := out[strings.LastIndex(out, "\x1b[H"):strings.LastIndex(out, "\x1b[J")]
			if rows := strings.Count(frame, "\n"); size[1] >= 4 && rows >= size[1] {
				t.Errorf("%v: %d rows", size, rows)
			}
		}
	})
}

func TestSettingsThatHurtAreToldAndThoseThatDoNotAreNot(t *testing.T) {
	m := newMachine(t)
	p := newProc(m.root)
	gateway := newPathway(netpath.AzureNATGateway(1), true)
	got := ""
	for _, w := range p.warnings(gateway) {
		got += fmt.Sprintf("%s=%s ", w.Setting, w.Value)
	}
	if want := "net.ipv4.tcp_keepalive_time=7200 net.ipv4.tcp_retries2=15 net.ipv4.ip_local_port_range=32768 60999 net.netfilter.nf_conntrack_max=262144 "; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for file, text := range map[string]string{"tcp_keepalive_time": "60", "tcp_retries2": "8", "ip_local_port_range": "1024 65535"} {
		m.write("sys/net/ipv4/"+file, text)
	}
	m.write("sys/net/netfilter/nf_conntrack_count", "12")
	if ws := p.warnings(gateway); len(ws) > 0 {
		t.Errorf("got %+v", ws)
	}
	if ws := newProc(t.TempDir()).warnings(gateway); len(ws) > 0 { // a system without
		t.Errorf("got %+v", ws)
	}
}

func TestTimesAreWrittenAsPeopleWriteThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 12 * time.Millisecond: "12 ms", 4200 * time.Millisecond: "4.2 s", 240 * time.Second: "240 s",
		40 * time.Minute: "40 min", 2 * time.Hour: "2 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

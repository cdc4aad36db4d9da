package netpath

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// String returns "destination", "source and destination", "all ports" or
// "sockets".
func (s Scope) String() string {
	return nameOf("Scope", s, "destination", "source and destination", "all ports", "sockets")
}

// String returns "drop", "reset next", "reset both" or "close".
func (a IdleAction) String() string {
	return nameOf("IdleAction", a, "drop", "reset next", "reset both", "close")
}

// String returns "segments", "bytes" or "requests".
func (t Traffic) String() string {
	return nameOf("Traffic", t, "segments", "bytes", "requests")
}

// String returns "assumed", "reported", "learned", "measured" or "documented".
func (g Grade) String() string {
	return nameOf("Grade", g, "assumed", "reported", "learned", "measured", "documented")
}

func nameOf[T ~uint8](kind string, v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", kind, uint8(v))
}

// String returns p in one line, for people: its limits, its timers in seconds
// and what refreshes them. The sources are left out.
func (p Profile) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s; ", p.Name, limitsText(p.Limits))
	if p.Sharers > 1 {
		fmt.Fprintf(&b, "shared by %d; ", p.Sharers)
	}
	fmt.Fprintf(&b, "idle %s, then %s, counts %s; ", seconds(p.Idle), p.AtIdle, p.Counts)
	fmt.Fprintf(&b, "holds FIN %s, RST %s, SYN %s, idle %s",
		seconds(p.Hold.FIN), seconds(p.Hold.RST), seconds(p.Hold.SYN), seconds(p.Hold.Idle))
	if p.Drain > 0 {
		fmt.Fprintf(&b, "; drains in %s", seconds(p.Drain))
	}
	if p.Freezes {
		b.WriteString("; freezes")
	}
	if p.Resumes {
		b.WriteString("; resumes")
	}
	return b.String()
}

func limitsText(limits []Limit) string {
	if len(limits) == 0 {
		return "no limit known"
	}
	var texts []string
	for _, l := range limits {
		n := strconv.Itoa(l.N)
		if l.N == None {
			n = "no limit"
		}
		texts = append(texts, n+" by "+l.Scope.String())
	}
	return strings.Join(texts, ", ")
}

func seconds(d time.Duration) string {
	switch d {
	case None:
		return "none"
	case 0:
		return "unknown"
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

package keepalive

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

// A Plan is what the kernel is told about one connection, and how much silence
// its path forgives. For derives one from a profile. In a Plan that overrides
// another, zero leaves a field as derived; in any Plan, a negative value leaves
// it to the kernel. A Plan is a value and may be used by many goroutines.
type Plan struct {
	// Idle is the silence before the first keepalive probe, Interval the time
	// from probe to probe, Count how many may stay unanswered. Kernels take
	// whole seconds from 1 to 32,767 (Linux, tcp.h: MAX_TCP_KEEPIDLE): fractions
	// are cut off. A negative Idle switches the probes off.
	Idle, Interval time.Duration
	Count          int

	// UserTimeout is how long sent data may stay unacknowledged. With keepalive
	// on it also replaces Count, so that a short one kills a healthy connection
	// for one lost probe. Linux has milliseconds, darwin and windows seconds;
	// an MPTCP connection has none.
	UserTimeout time.Duration

	// RTOMax bounds the time between retransmissions, so that a path that
	// heals is noticed soon. Linux 6.15 and later, 1 s to 120 s; elsewhere it
	// has no effect. It is set only with a UserTimeout: alone it would shorten
	// the life of a connection.
	RTOMax time.Duration

	// Forgets is the silence after which the path has forgotten the
	// connection. Unpark keeps a margin below it. Negative: it never forgets.
	Forgets time.Duration

	// Linger is how long Close keeps the socket open in the background, until
	// the peer's FIN has come and ours is acknowledged: only then does the
	// path's hold begin. Linux only; elsewhere, and if it is negative, the hold
	// counts from Close.
	Linger time.Duration
}

const (
	maxKernelSeconds = 32767
	maxKernelProbes  = 127 // Linux, tcp.h: MAX_TCP_KEEPCNT
	minUserTimeout   = 90 * time.Second
	maxLinger        = 60 * time.Second    // as long as Linux keeps FIN_WAIT_2: tcp_fin_timeout
	maxUserTimeout   = 24 * 24 * time.Hour // Linux holds it in a 32-bit count of milliseconds
)

// For derives the Plan that fits a path: the first probe after a quarter of
// its idle timeout and at most 60 s, then one every sixteenth of it (1 s to
// 5 s), three of them. Two probes may be lost and the third still arrives well
// before the path forgets. Close lingers where the path has limits.
func For(p netpath.Profile) Plan {
	p = p.Effective()
	plan := Plan{
		Idle:     60 * time.Second,
		Interval: 5 * time.Second,
		Count:    3,
		RTOMax:   time.Second,
		Forgets:  -1,
	}
	if p.Idle != netpath.None {
		plan.Idle = max(time.Second, min(p.Idle/4, plan.Idle).Truncate(time.Second))
		plan.Interval = max(time.Second, min(p.Idle/16, plan.Interval).Truncate(time.Second))
		plan.Forgets = p.Idle
	}
	if len(p.Limits) > 0 {
		plan.Linger = maxLinger
	}
	plan.UserTimeout = max(minUserTimeout, plan.Idle+3*plan.Interval)
	return plan
}

// Over returns p with the zero fields taken from derived.
func (p Plan) Over(derived Plan) Plan {
	orElse := func(d *time.Duration, other time.Duration) {
		if *d == 0 {
			*d = other
		}
	}
	orElse(&p.Idle, derived.Idle)
	orElse(&p.Interval, derived.Interval)
	orElse(&p.UserTimeout, derived.UserTimeout)
	orElse(&p.RTOMax, derived.RTOMax)
	orElse(&p.Forgets, derived.Forgets)
	orElse(&p.Linger, derived.Linger)
	if p.Count == 0 {
		p.Count = derived.Count
	}
	return p
}

// MaxSilence is how silent a parked connection may have been and still be lent:
// Forgets less a quarter of it, at most 10 s less. Zero: any silence will do.
func (p Plan) MaxSilence() time.Duration {
	if p.Forgets <= 0 {
		return 0
	}
	return p.Forgets - min(10*time.Second, p.Forgets/4)
}

// KeepAlive returns the probes for the KeepAliveConfig of a net.Dialer or a
// net.ListenConfig, which would overwrite anything that was set in their Control
// function. Where Idle is negative, set their KeepAlive to -1 too: package net
// takes a disabled configuration for an absent one, and probes after 15 s.
func (p Plan) KeepAlive() net.KeepAliveConfig {
	if p.Idle < 0 {
		return net.KeepAliveConfig{}
	}
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     wholeSeconds(p.Idle),
		Interval: wholeSeconds(p.Interval),
		Count:    min(p.Count, maxKernelProbes),
	}
}

// Apply sets the plan's options on a TCP connection that was dialed or
// accepted. Call it after connect: a user timeout set before would cut the
// connect short. What a system does not have is left out without an error; an
// error names the option that the kernel refused.
func (p Plan) Apply(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("keepalive: apply plan: %w", err)
	}
	p.UserTimeout = min(p.UserTimeout, maxUserTimeout)
	var refused error
	if err := raw.Control(func(fd uintptr) { refused = p.apply(fd) }); err != nil {
		return fmt.Errorf("keepalive: apply plan: %w", err)
	}
	return refused
}

// wholeSeconds keeps d within what kernels take. Negative and zero pass: they
// mean "leave it" and "the default" to package net too.
func wholeSeconds(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	return max(time.Second, min(d, maxKernelSeconds*time.Second).Truncate(time.Second))
}

// seconds is d for a socket option; zero or less: leave it to the kernel.
func seconds(d time.Duration) int { return int(wholeSeconds(d) / time.Second) }

// An option is one socket option with the value to set.
type option struct {
	name       string
	level, opt int
	value      int
	optional   bool // not every kernel or connection has it
}

// names is what a system calls the keepalive options.
type names struct{ socket, keepalive, tcp, idle, interval, count int }

func (p Plan) keepaliveOptions(n names) []option {
	if p.Idle == 0 {
		return nil
	}
	if p.Idle < 0 {
		return []option{{"SO_KEEPALIVE", n.socket, n.keepalive, 0, false}}
	}
	options := []option{
		{"SO_KEEPALIVE", n.socket, n.keepalive, 1, false},
		{"keepalive idle", n.tcp, n.idle, seconds(p.Idle), false},
	}
	if p.Interval > 0 {
		options = append(options, option{"keepalive interval", n.tcp, n.interval, seconds(p.Interval), false})
	}
	if p.Count > 0 {
		options = append(options, option{"keepalive count", n.tcp, n.count, min(p.Count, maxKernelProbes), false})
	}
	return options
}

// setAll sets options one after another and stops at the first refusal.
func setAll(options []option, set func(level, opt, value int) error) error {
	for _, o := range options {
		err := set(o.level, o.opt, o.value)
		if err != nil && !(o.optional && absent(err)) {
			return fmt.Errorf("keepalive: set %s to %d: %w", o.name, o.value, err)
		}
	}
	return nil
}

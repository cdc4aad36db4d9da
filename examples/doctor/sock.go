package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// The states of a TCP socket, as Linux numbers them (include/net/tcp_states.h).
const (
	established = iota + 1
	synSent
	synReceived
	finWait1
	finWait2
	timeWait
	closed
	closeWait
	lastAck
	listening
	closing
)

// An ending is how a connection has ended, as far as its path must know.
type ending uint8

const (
	unclear    ending = iota // by a FIN or by a RST
	finished                 // by a FIN of ours that was acknowledged
	reset                    // by a RST from either end
	refused                  // by a RST in answer to its SYN
	unanswered               // before anybody answered its SYN
)

// A sock is one TCP socket, as the kernel's sock_diag tells of it.
type sock struct {
	local, remote netip.AddrPort // remote: zero where it has none
	cookie        uint64         // the kernel's own number for it
	inode         uint32         // zero: no process holds it
	uid           int            // negative: it is not told
	state         uint8

	keepalive bool          // its next timer is that of the keepalive probes
	expires   time.Duration // until its next timer fires
	unread    uint32        // bytes that wait for the process
	lookedAt  bool          // the kernel told what follows
	silent    time.Duration // since the last segment
	mute      time.Duration // since the last byte
	sent      time.Duration // since the last byte of ours
	answered  bool          // nothing of ours waits for a first byte, as far as can be seen
	how       ending        // how it ended, of one that is destroyed
}

var errMessage = errors.New("a netlink message that makes no sense")

// What linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h have, and other systems
// do not: the parser compiles, and is fuzzed, everywhere.
const (
	nlmsgHeader = 16
	nlmsgError  = 2
	nlmsgDone   = 3
	byFamily    = 20 // SOCK_DIAG_BY_FAMILY
	diagSize    = 72 // struct inet_diag_msg
	attrInfo    = 2  // INET_DIAG_INFO: a struct tcp_info

	timerKeepalive = 2
	familyIPv4     = 2
)

// parseSocks appends the sockets of one datagram of the kernel's to socks. Done says that no
// more of them follow.
func parseSocks(socks []sock, b []byte) (_ []sock, done bool, err error) {
	native := binary.NativeEndian
	for len(b) >= nlmsgHeader {
		size, kind := int(native.Uint32(b)), native.Uint16(b[4:])
		if size < nlmsgHeader || size > len(b) {
			return socks, done, errMessage
		}
		body := b[nlmsgHeader:size]
		b = b[min(len(b), (size+3)&^3):]
		switch kind {
		case nlmsgDone:
			done = true
		case nlmsgError:
			if len(body) < 4 {
				return socks, done, errMessage
			}
			if errno := int32(native.Uint32(body)); errno != 0 {
				return socks, done, fmt.Errorf("sock_diag: %w", syscall.Errno(-errno))
			}
		case byFamily:
			if len(body) < diagSize {
				return socks, done, errMessage
			}
			socks = append(socks, newSock(body))
		}
	}
	return socks, done, nil
}

// newSock reads a struct inet_diag_msg and what follows it.
func newSock(b []byte) sock {
	native := binary.NativeEndian
	s := sock{
		local:   address(b[0], b[8:24], b[4:]),
		remote:  address(b[0], b[24:40], b[6:]),
		cookie:  native.Uint64(b[44:]),
		expires: time.Duration(native.Uint32(b[52:])) * time.Millisecond,
		unread:  native.Uint32(b[56:]),
		uid:     int(native.Uint32(b[64:])),
		inode:   native.Uint32(b[68:]),
		state:   b[1],
	}
	s.keepalive = b[2] == timerKeepalive
	if s.state == timeWait {
		s.uid = -1 // what is there is a zero that means nothing
	}
	for b = b[diagSize:]; len(b) >= 4; {
		size, kind := int(native.Uint16(b)), native.Uint16(b[2:])
		if size < 4 || size > len(b) {
			break
		}
		if kind == attrInfo {
			s.inform(b[4:size])
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return s
}

func address(family byte, ip, port []byte) netip.AddrPort {
	a := netip.AddrFrom16([16]byte(ip)).Unmap()
	if family == familyIPv4 {
		a = netip.AddrFrom4([4]byte(ip[:4]))
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// inform reads a struct tcp_info, whose end an older kernel leaves out.
func (s *sock) inform(b []byte) {
	native := binary.NativeEndian
	if len(b) < 60 {
		return
	}
	ago := func(at int) time.Duration { return time.Duration(native.Uint32(b[at:])) * time.Millisecond }
	sent, received, acked := ago(44), ago(52), ago(56) // tcpi_last_data_sent, _data_recv, _ack_recv
	s.lookedAt = true
	s.mute, s.sent, s.answered = min(sent, received), sent, received <= sent
	s.silent = min(s.mute, acked)
	if len(b) < 216 {
		return
	}
	if in, out := native.Uint32(b[152:]), native.Uint32(b[156:]); in == 0 && out > 0 {
		s.answered = false // of one that was never heard of, received is when it connected
	}
	acknowledged, segmentsIn := native.Uint64(b[120:]), native.Uint32(b[140:])
	sentBytes, again := native.Uint64(b[200:]), native.Uint64(b[208:])
	switch {
	case acknowledged == 0 && segmentsIn == 0:
		s.how = unanswered
	case acknowledged == 0:
		s.how = refused
	case acknowledged-(sentBytes-again) == 2:
		// tcpi_bytes_acked counts the SYN as a byte, and the FIN as another.
		s.how = finished
	default:
		s.how = reset
	}
}

// idle reports whether the process has its answer and has been silent for a while since.
func (s *sock) idle(a time.Duration) bool {
	return s.lookedAt && s.state == established && s.answered && s.mute >= a
}

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	sockDiag     = 4   // NETLINK_SOCK_DIAG
	tcpDestroyed = 1   // SKNLGRP_INET_TCP_DESTROY, as a mask of groups
	receiveForce = 33  // SO_RCVBUFFORCE
	eventRoom    = 8e6 // bytes for events between two looks, where we may

	// All states but those of sockets that are not yet accepted or have no flow.
	askedFor = (1<<(closing+1) - 1) &^ (1<<closed | 1<<synReceived)
)

// A kernel answers what sockets there are in this network namespace, and tells which
// were destroyed since it was asked last.
type kernel struct {
	questions, events int // files; events is negative where the kernel tells of none
	buf               []byte
}

func openKernel() (*kernel, error) {
	questions, err := netlink(0)
	if err != nil {
		return nil, err
	}
	// A kernel that stops in the middle of an answer must not stop us.
	if err := syscall.SetsockoptTimeval(questions, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 5}); err != nil {
		syscall.Close(questions)
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	events, err := netlink(tcpDestroyed)
	if err != nil {
		events = -1
	} else if syscall.SetsockoptInt(events, syscall.SOL_SOCKET, receiveForce, eventRoom) != nil {
		syscall.SetsockoptInt(events, syscall.SOL_SOCKET, syscall.SO_RCVBUF, eventRoom) // cut to what anybody may have
	}
	return &kernel{questions, events, make([]byte, 64<<10)}, nil
}

func netlink(groups uint32) (int, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, sockDiag)
	if err != nil {
		return -1, fmt.Errorf("sock_diag: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: groups}); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("sock_diag: %w", err)
	}
	return fd, nil
}

func (k *kernel) tellsEnds() bool { return k.events >= 0 }

// cpu is what the calling thread has used, or nothing if the kernel does not tell.
func (k *kernel) cpu() time.Duration {
	const ofThisThread = 1 // RUSAGE_THREAD
	var used syscall.Rusage
	if syscall.Getrusage(ofThisThread, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func (k *kernel) close() {
	syscall.Close(k.questions)
	if k.events >= 0 {
		syscall.Close(k.events)
	}
}

// look returns what there is, in slices that are good until the next look.
func (k *kernel) look(s *sight) error {
	s.seen, s.gone, s.lost = s.seen[:0], s.gone[:0], false
	if err := k.drain(s); err != nil {
		return err
	}
	for _, family := range []byte{syscall.AF_INET, syscall.AF_INET6} {
		if err := k.ask(family); err != nil {
			return err
		}
		for done := false; !done; {
			n, _, err := syscall.Recvfrom(k.questions, k.buf, 0)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("sock_diag: %w", err)
			}
			s.seen, done, err = parseSocks(s.seen, k.buf[:n])
			if family == syscall.AF_INET6 && errors.Is(err, syscall.ENOENT) {
				break // a kernel without IPv6
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// drain reads what has ended. What the kernel had no room for is lost.
func (k *kernel) drain(s *sight) error {
	for k.events >= 0 {
		n, _, err := syscall.Recvfrom(k.events, k.buf, syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return nil
		case errors.Is(err, syscall.ENOBUFS):
			s.lost = true
			continue
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("sock_diag: %w", err)
		}
		if s.gone, _, err = parseSocks(s.gone, k.buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// ask asks for all sockets of a family: a struct nlmsghdr and a struct inet_diag_req_v2.
func (k *kernel) ask(family byte) error {
	var q [nlmsgHeader + 56]byte
	native := binary.NativeEndian
	native.PutUint32(q[0:], uint32(len(q)))
	native.PutUint16(q[4:], byFamily)
	native.PutUint16(q[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	q[16], q[17], q[18] = family, syscall.IPPROTO_TCP, 1<<(attrInfo-1)
	native.PutUint32(q[20:], askedFor)
	if err := syscall.Sendto(k.questions, q[:], 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	return nil
}

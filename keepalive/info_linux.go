package keepalive

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

func (l *life) info() (Info, error) {
	if l.raw == nil {
		return l.infoInMemory()
	}
	var info Info
	var refused error
	err := l.raw.Control(func(fd uintptr) { info, refused = tcpInfoOf(int(fd)) })
	if errors.Is(err, net.ErrClosed) {
		return Info{}, net.ErrClosed
	}
	return info, errors.Join(err, refused)
}

func tcpInfoOf(fd int) (Info, error) {
	k, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Info{}, errors.ErrUnsupported // not TCP
	}
	if k.State == tcpClose {
		return Info{}, net.ErrClosed
	}
	i := Info{
		RTT: microseconds(k.Rtt), RTTVar: microseconds(k.Rttvar), RTO: microseconds(k.Rto),
		LastProof: milliseconds(k.Last_data_recv), LastAck: milliseconds(min(k.Last_ack_recv, k.Last_data_recv)),
		PeerWindow: int(k.Snd_wnd), Retransmits: int(k.Retransmits), Probes: int(k.Probes), Retransmitted: int(k.Total_retrans),
		SegmentsIn: int(k.Segs_in), SegmentsOut: int(k.Segs_out),
		lastSent: milliseconds(k.Last_data_sent), judged: true,
	}
	if k.Backoff > 0 || k.Retransmits > 0 { // doubled by now; rttvar is a quarter of the kernel's own
		i.RTO = i.RTT + max(minRTO, 4*i.RTTVar)
	}
	i.Unread, _ = unix.IoctlGetInt(fd, unix.SIOCINQ)
	i.Unacked, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	i.stalled = k.Unacked == 0 && i.Unacked > 0 // segments, bytes
	return i, nil
}

// kernelProves: the kernel remembers when payload came.
const kernelProves = true

package keepalive

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

func (l *life) info() (i Info, err error) {
	if l.raw == nil {
		return l.infoInMemory()
	}
	var refused error
	err = l.raw.Control(func(fd uintptr) { i, refused = tcpInfoOf(int(fd)) })
	if errors.Is(err, net.ErrClosed) {
		return Info{}, net.ErrClosed
	}
	i.LastProof = l.sinceProof()
	return i, errors.Join(err, refused)
}

// tcpInfoOf reads TCP_CONNECTION_INFO, bsd/netinet/tcp.h, whose times are
// milliseconds.
func tcpInfoOf(fd int) (Info, error) {
	k, err := unix.GetsockoptTCPConnectionInfo(fd, unix.IPPROTO_TCP, unix.TCP_CONNECTION_INFO)
	if err != nil {
		return Info{}, errors.ErrUnsupported // not TCP
	}
	milliseconds := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
	i := Info{
		RTT: milliseconds(k.Srtt), RTTVar: milliseconds(k.Rttvar), RTO: milliseconds(k.Rto),
		Unacked: int(k.Snd_sbbytes), PeerWindow: int(k.Snd_wnd), Retransmitted: int(k.Txretransmitpackets),
		SegmentsIn: int(k.Rxpackets), SegmentsOut: int(k.Txpackets),
	}
	i.Unread, _ = unix.IoctlGetInt(fd, fionread)
	return i, nil
}

const kernelProves = false

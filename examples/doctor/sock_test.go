package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// message is one of the kernel's.
func message(kind uint16, body []byte) []byte {
	b := make([]byte, nlmsgHeader, nlmsgHeader+len(body))
	binary.NativeEndian.PutUint32(b, uint32(nlmsgHeader+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return append(b, body...)
}

// diagnosed is an IPv4 socket from 10.0.0.7:4711 to 198.51.100.1:443 with a struct tcp_info.
func diagnosed(state, timer byte, info []byte) []byte {
	b := make([]byte, diagSize, diagSize+4+len(info))
	native := binary.NativeEndian
	b[0], b[1], b[2] = familyIPv4, state, timer
	binary.BigEndian.PutUint16(b[4:], 4711)
	binary.BigEndian.PutUint16(b[6:], 443)
	copy(b[8:], []byte{10, 0, 0, 7})
	copy(b[24:], []byte{198, 51, 100, 1})
	native.PutUint64(b[44:], 99)
	native.PutUint32(b[52:], 7500)
	native.PutUint32(b[56:], 12)
	native.PutUint32(b[64:], 33)
	native.PutUint32(b[68:], 555)
	if info != nil {
		b = native.AppendUint16(b, uint16(4+len(info)))
		b = append(native.AppendUint16(b, attrInfo), info...)
	}
	return b
}

// informed is a struct tcp_info.
func informed(acked, sent, again uint64, segmentsIn, dataSent, dataReceived, ackReceived uint32) []byte {
	b := make([]byte, 280)
	native := binary.NativeEndian
	native.PutUint32(b[44:], dataSent)
	native.PutUint32(b[52:], dataReceived)
	native.PutUint32(b[56:], ackReceived)
	native.PutUint64(b[120:], acked)
	native.PutUint32(b[140:], segmentsIn)
	native.PutUint32(b[152:], 1)
	native.PutUint64(b[200:], sent)
	native.PutUint64(b[208:], again)
	return b
}

func TestASocketIsReadAsTheKernelTellsOfIt(t *testing.T) {
	b := message(byFamily, diagnosed(established, timerKeepalive, informed(7, 5, 0, 4, 900, 800, 300)))
	b = append(b, message(nlmsgDone, make([]byte, 4))...)
	socks, done, err := parseSocks(nil, b)
	want := sock{
		local: netip.MustParseAddrPort("10.0.0.7:4711"), remote: netip.MustParseAddrPort("198.51.100.1:443"),
		cookie: 99, inode: 555, uid: 33, state: established, keepalive: true, expires: 7500 * time.Millisecond, unread: 12,
		lookedAt: true, silent: 300 * time.Millisecond, mute: 800 * time.Millisecond, sent: 900 * time.Millisecond, answered: true, how: finished,
	}
	if err != nil || !done || len(socks) != 1 || socks[0] != want {
		t.Errorf("%v, %v: %+v", err, done, socks)
	}
}

func TestWhatTheKernelDoesNotSayIsNotTaken(t *testing.T) {
	asked := informed(3, 2, 0, 2, 400, 400, 400)
	binary.NativeEndian.PutUint32(asked[152:], 0) // segments with data: none has come,
	binary.NativeEndian.PutUint32(asked[156:], 1) // one was sent, in the tick of the handshake
	b := append(message(byFamily, diagnosed(established, 1, asked)), message(byFamily, diagnosed(timeWait, 3, nil))...)
	socks, _, err := parseSocks(nil, b)
	if err != nil || len(socks) != 2 || socks[0].answered || socks[0].idle(0) || socks[1].uid >= 0 {
		t.Errorf("%v: %+v", err, socks)
	}
}

// The figures are what Linux 6.18 told of sockets on loopback that ended in these ways.
func TestTheEndOfADestroyedSocketIsInItsCounters(t *testing.T) {
	for name, c := range map[string]struct {
		info []byte
		want ending
	}{
		"closed by us, nothing was said":   {informed(2, 0, 0, 2, 4, 4, 0), finished},
		"closed by us, five bytes":         {informed(7, 5, 0, 4, 244, 244, 0), finished},
		"five bytes, sent twice":           {informed(7, 10, 5, 4, 244, 244, 0), finished},
		"closed by the server":             {informed(2, 0, 0, 3, 200, 200, 0), finished},
		"reset by the server":              {informed(1, 0, 0, 2, 200, 200, 200), reset},
		"closed with an answer unread":     {informed(1, 0, 0, 3, 200, 200, 200), reset},
		"refused":                          {informed(0, 0, 0, 1, 0, 0, 0), refused},
		"nobody answered":                  {informed(0, 0, 0, 0, 0, 0, 0), unanswered},
		"a kernel that has fewer counters": {informed(7, 5, 0, 4, 244, 244, 0)[:200], unclear},
	} {
		socks, _, err := parseSocks(nil, message(byFamily, diagnosed(closed, 0, c.info)))
		if err != nil || len(socks) != 1 || socks[0].how != c.want {
			t.Errorf("%s: %v, %+v, want %d", name, err, socks, c.want)
		}
	}
}

func TestAnErrorOfTheKernelsIsToldWithItsNumber(t *testing.T) {
	errno := int32(-2)
	_, _, err := parseSocks(nil, message(nlmsgError, binary.NativeEndian.AppendUint32(nil, uint32(errno))))
	if !errors.Is(err, syscall.Errno(2)) {
		t.Error(err)
	}
	for _, bad := range [][]byte{
		message(byFamily, make([]byte, diagSize-1)), message(nlmsgError, nil), {200, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, _, err := parseSocks(nil, bad); !errors.Is(err, errMessage) {
			t.Errorf("% x: %v", bad, err)
		}
	}
}

func FuzzParseSocks(f *testing.F) {
	f.Add(message(byFamily, diagnosed(established, 2, informed(7, 5, 0, 4, 900, 800, 300))))
	f.Add(append(message(byFamily, diagnosed(timeWait, 3, nil)), message(nlmsgDone, nil)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		socks, _, _ := parseSocks(nil, b)
		if len(socks)*(nlmsgHeader+diagSize) > len(b) {
			t.Errorf("%d sockets in %d bytes", len(socks), len(b))
		}
		for _, s := range socks {
			if !s.local.IsValid() || !s.remote.IsValid() || s.mute < 0 || s.silent > s.mute {
				t.Errorf("got %+v", s)
			}
		}
	})
}

func FuzzReadProc(f *testing.F) {
	f.Add("socket:[4711]", "Ip: A\nIp: 1\nTcp: RtoMin ActiveOpens\nTcp: 200 17\n")
	f.Add("socket:[0]", "Tcp:\nTcp: 1")
	f.Add("socket:[99999999999]", "Tcp: ActiveOpens\nTcp: -1")
	f.Fuzz(func(t *testing.T, link, snmp string) {
		if inode, ok := socketInode(link); ok && inode == 0 {
			t.Errorf("%q is socket 0", link)
		}
		if n, ok := activeOpens(snmp); ok && n < 0 {
			t.Errorf("%q has %d connections", snmp, n)
		}
	})
}

func TestProcIsRead(t *testing.T) {
	for link, want := range map[string]uint32{"socket:[4711]": 4711, "socket:[x]": 0, "pipe:[4711]": 0, "socket:[4711": 0, "socket:[0]": 0} {
		if inode, ok := socketInode(link); inode != want && ok || ok != (want != 0) {
			t.Errorf("%s: %d, %v", link, inode, ok)
		}
	}
	if n, ok := activeOpens("Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens\nTcp: 200 17\n"); n != 17 || !ok {
		t.Errorf("%d, %v", n, ok)
	}
	if n, ok := activeOpens("Tcp: RtoMin\nTcp: 200 17\n"); ok {
		t.Errorf("%d connections of a system that does not tell", n)
	}
}

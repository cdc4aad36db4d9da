package natlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tableName   = "lab"
	knownSet    = "known"
	finishedSet = "finished"
	resetSet    = "resets"
)

// What linux/netfilter has in its headers and x/sys has not.
const (
	nftaListElem = 1  // NFTA_LIST_ELEM
	nftaSetCount = 20 // NFTA_SET_COUNT, which older kernels do not have

	nftablesMessage  = unix.NFNL_SUBSYS_NFTABLES << 8
	conntrackMessage = unix.NFNL_SUBSYS_CTNETLINK << 8
	conntrackDelete  = 2 // IPCTNL_MSG_CT_DELETE
)

const (
	messageHeader   = unix.SizeofNlMsghdr
	familyHeader    = 4 // struct nfgenmsg
	attributeHeader = unix.SizeofNlAttr
	attributeKind   = 1<<14 - 1 // NLA_TYPE_MASK: without the nested and byte order flags
)

// answerTimeout is how long the kernel may take for the next part of an answer.
var answerTimeout = unix.Timeval{Sec: 5}

// errInterrupted says that the rules changed while the kernel listed them.
var errInterrupted = errors.New("natlab: the list changed meanwhile")

// A table reads the gateway's sets and counters by netlink.
type table struct {
	forgets bool // ports may outlive what is known of their flow

	mu     sync.Mutex // guards the fields below; held while the kernel is asked
	fd     int
	seq    uint32
	req    []byte
	buf    []byte
	names  []flowName // of the flows just listed, in order
	listed map[flowName]bool
	states map[flowName]State
}

// openTable opens the table of the calling thread's namespace.
func openTable(forgets bool) (*table, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("natlab: netlink: %w", err)
	}
	t := &table{forgets: forgets, fd: fd, buf: make([]byte, 64<<10), states: make(map[flowName]State), listed: make(map[flowName]bool)}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &answerTimeout); err != nil {
		return nil, errors.Join(fmt.Errorf("natlab: netlink: %w", err), t.close())
	}
	return t, nil
}

func (t *table) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd := t.fd
	if t.fd = -1; fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// Flows appends to into the flows that hold a port, and returns the extended
// slice. One answer of the kernel has room for about 400 flows; of an account
// that is larger a flow may be missed while others come and go.
func (l *Lab) Flows(into []Flow) ([]Flow, error) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		flows, err := t.flowsLocked(into, l.known())
		if !errors.Is(err, errInterrupted) {
			return flows, err
		}
	}
}

func (t *table) flowsLocked(into []Flow, accounts []account) ([]Flow, error) {
	flows := into
	t.names = t.names[:0]
	clear(t.listed)
	for i := range accounts {
		err := t.listLocked(accounts[i].ports, func(name flowName, left time.Duration) {
			if t.listed[name] {
				return // the kernel lists a flow twice while it resizes the set
			}
			t.listed[name] = true
			t.names = append(t.names, name)
			flows = append(flows, Flow{Source: name.source(), Dest: accounts[i].dest, Left: left})
		})
		if err != nil {
			return into, err
		}
	}
	if err := t.statesLocked(); err != nil {
		return into, err
	}
	for i, name := range t.names {
		state, known := t.states[name]
		if t.forgets && !known {
			state = Forgotten
		}
		flows[len(into)+i].State = state
	}
	return flows, nil
}

// statesLocked learns the state of every flow that is not simply open.
func (t *table) statesLocked() error {
	clear(t.states)
	learn := func(set string, s State) error {
		return t.listLocked(set, func(name flowName, _ time.Duration) { t.states[name] = s })
	}
	if t.forgets {
		if err := learn(knownSet, Open); err != nil {
			return err
		}
	}
	if err := learn(finishedSet, Finished); err != nil {
		return err
	}
	return learn(resetSet, Reset)
}

// listLocked calls each for every live element of a set.
func (t *table) listLocked(set string, each func(flowName, time.Duration)) error {
	t.ask(nftablesMessage|unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP)
	t.add(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
	t.add(unix.NFTA_SET_ELEM_LIST_SET, set)
	return t.answerLocked(func(body []byte) {
		for name, left := range elements(body) {
			if left > 0 { // the kernel may list what it is about to collect
				each(name, left)
			}
		}
	})
}

// Held is how many flows the kernel counts against the room of a destination.
// It exceeds the number in Flows by those which have expired and are not yet
// collected. Older kernels do not tell: errors.ErrUnsupported.
func (l *Lab) Held(dst netip.AddrPort) (int, error) {
	held, has := 0, false
	for _, a := range l.known() {
		if a.dest != dst {
			continue
		}
		n, err := l.table.count(a.ports)
		if err != nil {
			return 0, err
		}
		held, has = held+n, true
	}
	if !has {
		return 0, fmt.Errorf("natlab: %v has no account", dst)
	}
	return held, nil
}

func (t *table) count(set string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := -1
	t.ask(nftablesMessage|unix.NFT_MSG_GETSET, unix.NLM_F_ACK)
	t.add(unix.NFTA_SET_TABLE, tableName)
	t.add(unix.NFTA_SET_NAME, set)
	err := t.answerLocked(func(body []byte) {
		for kind, value := range attributes(body) {
			if kind == nftaSetCount && len(value) == 4 {
				n = int(binary.BigEndian.Uint32(value))
			}
		}
	})
	if err == nil && n < 0 {
		err = fmt.Errorf("natlab: how many elements a set has: %w", errors.ErrUnsupported)
	}
	return n, err
}

// Counts tells what the gateway has done since it was built.
func (l *Lab) Counts() (Counts, error) {
	t := l.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		counts, err := t.countsLocked(l.known())
		if !errors.Is(err, errInterrupted) {
			return counts, err
		}
	}
}

func (t *table) countsLocked(accounts []account) (Counts, error) {
	c := Counts{By: make(map[netip.AddrPort]Tally)}
	t.ask(nftablesMessage|unix.NFT_MSG_GETOBJ, unix.NLM_F_DUMP)
	t.add(unix.NFTA_OBJ_TABLE, tableName)
	err := t.answerLocked(func(body []byte) {
		name, packets := counter(body)
		what := strings.TrimRight(name, "0123456789")
		i, err := strconv.Atoi(name[len(what):])
		if err != nil || i >= len(accounts) {
			return // an account that is being opened
		}
		by := c.By[accounts[i].dest]
		for _, tally := range []*Tally{&c.Tally, &by} {
			switch what {
			case "admitted":
				tally.Admitted += packets
			case "refused":
				tally.Refused += packets
			case "forgotten":
				tally.Forgotten += packets
			}
		}
		c.By[accounts[i].dest] = by
	})
	return c, err
}

// forget lets conntrack forget everything.
func (t *table) forget() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ask(conntrackMessage|conntrackDelete, unix.NLM_F_ACK)
	return t.answerLocked(func([]byte) {})
}

// ask begins a request.
func (t *table) ask(what, flags uint16) {
	t.seq++
	t.req = binary.NativeEndian.AppendUint32(t.req[:0], 0) // the length, which answerLocked knows
	t.req = binary.NativeEndian.AppendUint16(t.req, what)
	t.req = binary.NativeEndian.AppendUint16(t.req, unix.NLM_F_REQUEST|flags)
	t.req = binary.NativeEndian.AppendUint32(t.req, t.seq)
	t.req = binary.NativeEndian.AppendUint32(t.req, 0) // from the kernel's point of view: us
	t.req = append(t.req, unix.NFPROTO_IPV4, unix.NFNETLINK_V0, 0, 0)
}

// add adds a string to the request.
func (t *table) add(kind uint16, value string) {
	t.req = binary.NativeEndian.AppendUint16(t.req, uint16(attributeHeader+len(value)+1))
	t.req = binary.NativeEndian.AppendUint16(t.req, kind)
	t.req = append(append(t.req, value...), 0)
	for len(t.req)%4 != 0 {
		t.req = append(t.req, 0)
	}
}

// answerLocked sends the request and calls each with the body of every message
// of the answer.
func (t *table) answerLocked(each func(body []byte)) error {
	binary.NativeEndian.PutUint32(t.req, uint32(len(t.req)))
	if err := unix.Send(t.fd, t.req, 0); err != nil {
		return fmt.Errorf("natlab: netlink: %w", err)
	}
	interrupted := false
	for {
		n, _, err := unix.Recvfrom(t.fd, t.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("natlab: netlink: %w", err)
		}
		for h, body := range messages(t.buf[:n]) {
			if h.Seq != t.seq {
				continue // of an earlier request that was given up
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch h.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if err := status(body); err != nil {
					return err
				}
				if interrupted {
					return errInterrupted
				}
				return nil
			}
			if len(body) >= familyHeader {
				each(body[familyHeader:])
			}
		}
	}
}

// status reads the number at the end of an answer: zero, or an error's.
func status(body []byte) error {
	if len(body) < 4 {
		return errors.New("natlab: netlink: short answer")
	}
	switch n := int32(binary.NativeEndian.Uint32(body)); -n {
	case 0:
		return nil
	case int32(unix.EINTR):
		return errInterrupted
	default:
		return fmt.Errorf("natlab: netlink: %w", syscall.Errno(-n))
	}
}

// A flowName is a flow as the gateway's sets name it: the client's address and
// port and the server's, each padded to 4 bytes.
type flowName [16]byte

func (n flowName) source() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(n[:4])), binary.BigEndian.Uint16(n[4:]))
}

// messages are the messages in a datagram.
func messages(b []byte) iter.Seq2[unix.NlMsghdr, []byte] {
	return func(yield func(unix.NlMsghdr, []byte) bool) {
		for len(b) >= messageHeader {
			h := unix.NlMsghdr{
				Len:   binary.NativeEndian.Uint32(b),
				Type:  binary.NativeEndian.Uint16(b[4:]),
				Flags: binary.NativeEndian.Uint16(b[6:]),
				Seq:   binary.NativeEndian.Uint32(b[8:]),
			}
			if h.Len < messageHeader || uint64(h.Len) > uint64(len(b)) || !yield(h, b[messageHeader:h.Len]) {
				return
			}
			b = after(b, int(h.Len))
		}
	}
}

// attributes are the kinds and values in a message or in another attribute.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= attributeHeader {
			n := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) & attributeKind
			if n < attributeHeader || n > len(b) || !yield(kind, b[attributeHeader:n]) {
				return
			}
			b = after(b, n)
		}
	}
}

// after is what follows the first n bytes and their padding.
func after(b []byte, n int) []byte { return b[min((n+3)&^3, len(b)):] }

// elements are the flows in a message about a set, and how long each still
// lives.
func elements(body []byte) iter.Seq2[flowName, time.Duration] {
	return func(yield func(flowName, time.Duration) bool) {
		for kind, list := range attributes(body) {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for kind, value := range attributes(list) {
				name, left, ok := parseElement(value)
				if kind == nftaListElem && ok && !yield(name, left) {
					return
				}
			}
		}
	}
}

func parseElement(b []byte) (name flowName, left time.Duration, ok bool) {
	for kind, value := range attributes(b) {
		switch {
		case kind == unix.NFTA_SET_ELEM_KEY:
			for kind, value := range attributes(value) {
				if kind == unix.NFTA_DATA_VALUE && len(value) == len(name) {
					name, ok = flowName(value), true
				}
			}
		case kind == unix.NFTA_SET_ELEM_EXPIRATION && len(value) == 8:
			ms := min(binary.BigEndian.Uint64(value), math.MaxInt64/uint64(time.Millisecond))
			left = time.Duration(ms) * time.Millisecond
		}
	}
	return name, left, ok
}

// counter is the name of a counter and how many packets it has seen.
func counter(body []byte) (name string, packets int) {
	for kind, value := range attributes(body) {
		switch kind {
		case unix.NFTA_OBJ_NAME:
			name = unix.ByteSliceToString(value)
		case unix.NFTA_OBJ_DATA:
			for kind, value := range attributes(value) {
				if kind == unix.NFTA_COUNTER_PACKETS && len(value) == 8 {
					packets = int(binary.BigEndian.Uint64(value))
				}
			}
		}
	}
	return name, packets
}

package natlab_test

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/natlab"
)

// One element as Linux 6.18 lists it: 10.78.1.2:32768 to 198.51.100.1:443, 1500
// ms left, and an attribute of a kind that nobody here knows.
const listed = "" +
	"38000380" + // elements
	"34000180" + // one
	"18000180" + "14000100" + "0a4e0102" + "80000000" + "c6336401" + "01bb0000" +
	"0c000500" + "00000000000005dc" +
	"0c000c80" + "0000000000000000"

func TestAnElementIsReadAsTheKernelWritesIt(t *testing.T) {
	body, err := hex.DecodeString(listed)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, left := range natlab.Elements(body) {
		n++
		if got := hex.EncodeToString(name[:]); !strings.HasPrefix(got, "0a4e010280000000c6336401") {
			t.Errorf("the name is %s", got)
		}
		if left != 1500*time.Millisecond {
			t.Errorf("%v left", left)
		}
	}
	if n != 1 {
		t.Errorf("%d elements, want 1", n)
	}
}

// FuzzNetlink wants nothing but an end: no panic, no loop, nothing read beyond
// the datagram.
func FuzzNetlink(f *testing.F) {
	body, err := hex.DecodeString(listed)
	if err != nil {
		f.Fatal(err)
	}
	header := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	f.Add(append(append(header, make([]byte, 12)...), body...))
	f.Add(make([]byte, 64)) // lengths of zero must not loop
	f.Fuzz(func(t *testing.T, datagram []byte) {
		total := 0
		for _, body := range natlab.Messages(datagram) {
			total += len(body)
			for range natlab.Attributes(body) {
			}
			for _, left := range natlab.Elements(body) {
				if left < 0 {
					t.Errorf("%v left", left)
				}
			}
			natlab.Counter(body)
		}
		if total > len(datagram) {
			t.Errorf("%d bytes out of %d", total, len(datagram))
		}
	})
}

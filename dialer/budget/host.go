package budget

import (
	"fmt"
	"path/filepath"

	"github.com/natwise/natwise/keepalive/netpath"
)

// Host returns a Budget of n flows for each account that all processes of this machine share
// which call Host with the same directory: the processes of an Azure App Service instance,
// the containers of a pod or a node that mount the directory. There is no server: dir holds a
// file of four megabytes, or up to 35 for limits beyond 6,000, that they map into their memory. Host makes dir if it is not
// there. Use one in memory of this machine, such as a directory below /dev/shm. On a local disk
// it works too, but a grant may wait for the disk now and then; on a network file system, where
// several machines would take it for one, it is an error.
//
// A process may have all n ports while nobody else wants them, but a twentieth, which is
// for those who come. Where several wait, each gets an equal part, and who holds more is
// asked to give idle flows back. What a process holds when it ends, in whichever way,
// stays taken for as long as the NAT may hold it: its successor knows what it left.
//
// If the file is removed or damaged while it is used, the processes make a new one within a
// second, and take along what they hold. While there is none, each process keeps to an equal
// part of n, gives back what is more as it becomes idle, and its Report says why.
//
// The file belongs to one user and nobody else may read it. Processes may name different
// limits, as during a deployment: each keeps to its own, up to the room that the file was
// made with, which is 256, or twice the first limit up to 2,048 more. Up to 128 processes may share.
//
// Host returns an error that says what is wrong with dir or the file. It wraps
// errors.ErrUnsupported where the system has no locks that end with the process: anywhere but
// on Linux.
func Host(dir string, n int) (*Shared, error) {
	if n < 0 {
		return nil, fmt.Errorf("budget: limit is %d, want 0 or more", n)
	}
	if n > maxLimit {
		return nil, fmt.Errorf("budget: limit is %d, want at most %d: no machine has more ports to one destination", n, maxLimit)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("budget: %w", err)
	}
	s := &Shared{
		n: n, hold: unknownHold, now: sinceBoot, accounts: make(map[netpath.Key]*share),
		open: func() (*place, error) { return openPlace(dir, n) },
	}
	if s.place, err = s.open(); err != nil {
		return nil, err
	}
	s.begin()
	return s, nil
}

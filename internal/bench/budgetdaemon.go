package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// asDaemon is the argument, before a socket and a limit, that makes this program the daemon:
// what one would write who has no file to share. It knows one account only, nobody can wait
// there, and nothing is fair.
const asDaemon = "budget-daemon"

// What a process says in a byte. Only a Take is answered, by how many ports it got.
const (
	sayTake    = 't'
	sayRelease = 'r'
)

// A daemon has the ports that nobody holds.
type daemon struct {
	mu   sync.Mutex // guards the field below
	free int
}

// beDaemon serves until nobody holds the other end of in any more, and returns the status of
// the process.
func beDaemon(socket, limit string, in io.Reader, out, stderr io.Writer) int {
	n, err := strconv.Atoi(limit)
	if err != nil {
		fmt.Fprintln(stderr, "bench: daemon: limit:", err)
		return 1
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(stderr, "bench: daemon:", err)
		return 1
	}
	defer l.Close()
	d := &daemon{free: n}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.serve(c)
		}
	}()
	fmt.Fprintln(out, ready)
	io.Copy(io.Discard, in)
	return 0
}

// serve is for one process, and takes back what it holds when it is gone.
func (d *daemon) serve(c net.Conn) {
	defer c.Close()
	held := 0
	defer func() { d.release(held) }()
	in, answer := bufio.NewReaderSize(c, 64), make([]byte, 1)
	for {
		said, err := in.ReadByte()
		switch {
		case err != nil:
			return
		case said == sayRelease:
			held--
			d.release(1)
			continue
		}
		answer[0] = d.take()
		held += int(answer[0])
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (d *daemon) take() byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.free == 0 {
		return 0
	}
	d.free--
	return 1
}

func (d *daemon) release(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free += n
}

// A daemonBudget is one process's connection to the daemon. It is one goroutine's, and each of
// its grants at once: nothing is allocated.
type daemonBudget struct {
	net.Conn
	said [1]byte
}

var (
	_ budget.Budget = (*daemonBudget)(nil)
	_ budget.Grant  = (*daemonBudget)(nil)
)

func dialDaemon(socket string) (*daemonBudget, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &daemonBudget{Conn: c}, nil
}

// Take is refused too where the daemon is gone.
func (b *daemonBudget) Take(netpath.Key) (budget.Grant, bool) {
	b.said[0] = sayTake
	if _, err := b.Write(b.said[:]); err != nil {
		return nil, false
	}
	if _, err := b.Read(b.said[:]); err != nil || b.said[0] == 0 {
		return nil, false
	}
	return b, true
}

func (b *daemonBudget) Release() {
	b.said[0] = sayRelease
	b.Write(b.said[:])
}

func (b *daemonBudget) Notify(chan<- struct{}) {}

func (b *daemonBudget) Revoked() bool { return false }

// startDaemon runs this program once more.
func startDaemon(socket string, limit int) (*otherProcess, error) {
	return startOther(os.Stderr, asDaemon, socket, strconv.Itoa(limit))
}

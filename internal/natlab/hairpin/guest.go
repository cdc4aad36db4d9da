package main

import (
	"errors"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"

	"github.com/natwise/natwise/internal/natlab"
)

// guestEnv marks the environment of the process that dials. It is in the client's
// namespace as a whole: natwise looks at /proc/net of its own process.
const guestEnv = "NATWISE_HAIRPIN_GUEST"

// A guest is that process, as its parent knows it: it obeys the methods of Guest until it
// is told to go, or its parent ends. It may be used by many goroutines.
type guest struct {
	*rpc.Client
	process *exec.Cmd
}

// invite starts a guest.
func invite(lab *natlab.Lab) (*guest, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	process := exec.Command(self)
	process.Env = append(os.Environ(), guestEnv+"=1")
	process.Stderr = os.Stderr
	to, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := lab.Inside("client", process.Start); err != nil {
		return nil, err
	}
	return &guest{jsonrpc.NewClient(pipe{from, to}), process}, nil
}

// ask has the guest do something, which is a method of Guest.
func (g *guest) ask(method string, order, answer any) error {
	return g.Call("Guest."+method, order, answer)
}

// leave waits until the guest is gone.
func (g *guest) leave() error { return errors.Join(g.Close(), g.process.Wait()) }

// beGuest obeys until there is nobody to obey any more. It returns the process's status.
func beGuest(from io.ReadCloser, to io.WriteCloser) int {
	s := rpc.NewServer()
	g := newGuest()
	if err := s.RegisterName("Guest", g); err != nil {
		panic("hairpin: " + err.Error())
	}
	s.ServeCodec(jsonrpc.NewServerCodec(pipe{from, to}))
	g.close()
	return 0
}

// A pipe is two that make one connection.
type pipe struct {
	io.ReadCloser
	to io.WriteCloser
}

func (p pipe) Write(b []byte) (int, error) { return p.to.Write(b) }
func (p pipe) Close() error                { return errors.Join(p.to.Close(), p.ReadCloser.Close()) }

package servers

import (
	"os"
	"os/exec"
	"runtime"
)

// A process is one run of a program.
type process struct {
	*os.Process
	gone chan struct{} // closed when it has ended, and all that it had open is closed
	err  error         // how it ended; written before gone is closed
}

// start starts a program in a place, and waits for it in a goroutine that ends
// with it.
//
// The goroutine keeps its thread: the kernel takes the end of the thread that
// started a process for the end of the parent, and a thread does end where a
// goroutine locked it and returned, as those of natlab do.
func start(cmd *exec.Cmd, at Place) (*process, error) {
	p := &process{gone: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := at.inside(cmd.Start)
		p.Process = cmd.Process
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.gone)
		}
	}()
	return p, <-started
}

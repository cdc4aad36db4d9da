package natlab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// entered marks the environment of a process that runs in its own user
// namespace.
const entered = "NATWISE_LAB_ENTERED"

// Enter lets a user who is not root have labs: it runs this program again in a
// new user namespace, with the same arguments, files and signals, and ends with
// its status. For root it does nothing, and neither where user namespaces are
// forbidden: New will say so. Call it first in main or TestMain.
func Enter() {
	if os.Getenv(entered) != "" {
		os.Unsetenv(entered) // what this process starts is inside already
		loopbackUp()
		return
	}
	if mayUnshare() {
		return
	}
	if status, ran := again(); ran {
		os.Exit(status)
	}
}

func mayUnshare() bool {
	n, err := newNamespace()
	if err == nil {
		n.Close()
	}
	return err == nil
}

// loopbackUp gives back what a new network namespace lacks.
func loopbackUp() {
	cmd, err := command(context.Background(), "ip", "link", "set", "lo", "up")
	if err == nil {
		err = cmd.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "natlab: loopback:", err)
	}
}

// again runs this program in new user and network namespaces.
func again() (status int, ran bool) {
	runtime.LockOSThread() // the child dies with the thread that started it
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), entered+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		runtime.UnlockOSThread()
		return 0, false
	}
	go func() { // until this process ends, which is soon
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), true
	}
	return cmd.ProcessState.ExitCode(), true
}

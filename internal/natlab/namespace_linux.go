package natlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// threadNamespace is the network namespace of the calling thread. The one of
// /proc/self may be another: it is that of the main thread.
const threadNamespace = "/proc/thread-self/ns/net"

// A namespace is a network namespace without a name. It lives as long as this
// file, or a socket or process inside.
type namespace struct{ *os.File }

// newNamespace makes a namespace, with nothing in it but loopback.
func newNamespace() (n namespace, err error) {
	home, err := here()
	if err != nil {
		return n, err
	}
	v := visit{home: home}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		home.Close()
		return n, fmt.Errorf("%w: new network namespace: %w", ErrUnavailable, err)
	}
	n, err = here()
	return n, errors.Join(err, v.leave())
}

// here is the namespace of the calling thread.
func here() (namespace, error) {
	f, err := os.Open(threadNamespace)
	return namespace{f}, err
}

// A visit is a goroutine's stay in a namespace. Its thread is locked until it
// has left.
type visit struct {
	home namespace
	left bool
}

// enter moves the calling goroutine into the namespace until it leaves.
func (n namespace) enter() (*visit, error) {
	runtime.LockOSThread()
	home, err := here()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	if err := unix.Setns(int(n.Fd()), unix.CLONE_NEWNET); err != nil {
		home.Close()
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("natlab: enter a namespace: %w", err)
	}
	return &visit{home: home}, nil
}

// leave goes home. If that fails, the thread stays locked, so that it dies with
// its goroutine and no other runs in the wrong place.
func (v *visit) leave() error {
	if v.left {
		return nil
	}
	v.left = true
	defer v.home.Close()
	if err := unix.Setns(int(v.home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("natlab: leave a namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}

// do calls f inside the namespace.
func (n namespace) do(f func() error) (err error) {
	v, err := n.enter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.leave()) }()
	return f()
}

// run runs a command inside the namespace and returns what it wrote. It stays
// on its thread until the command has ended, because the kernel kills the
// command when that thread ends.
func (n namespace) run(cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := n.do(cmd.Run)
	if err != nil {
		err = fmt.Errorf("natlab: %s: %w: %s", cmd, err, bytes.TrimSpace(out.Bytes()))
	}
	return out.String(), err
}

// script feeds a script to a command inside the namespace. The command sees the
// peers as files 3, 4 and so on.
func (n namespace) script(text string, peers []namespace, tool string, args ...string) error {
	cmd, err := command(context.Background(), tool, args...)
	if err != nil {
		return err
	}
	for _, p := range peers {
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.File)
	}
	cmd.Stdin = strings.NewReader(text)
	_, err = n.run(cmd)
	return err
}

// set writes kernel parameters, named as files below /proc/sys/net.
func (n namespace) set(value string, names ...string) error {
	return n.do(func() error {
		for _, name := range names {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
				return fmt.Errorf("natlab: %w", err)
			}
		}
		return nil
	})
}

// running waits until the kernel has switched on the links: before, it drops
// what is sent over them.
func (n namespace) running(links ...string) error {
	deadline := time.Now().Add(5 * time.Second)
	return n.do(func() error {
		for _, name := range links {
			for {
				link, err := net.InterfaceByName(name)
				if err != nil {
					return fmt.Errorf("natlab: %w", err)
				}
				if link.Flags&net.FlagRunning != 0 {
					break
				}
				if time.Now().After(deadline) {
					return fmt.Errorf("natlab: link %s does not come up", name)
				}
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	})
}

// command finds a tool also where only root's path leads.
func command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err != nil {
			path, err = exec.LookPath(dir + name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("natlab: %w", err)
	}
	return exec.CommandContext(ctx, path, args...), nil
}

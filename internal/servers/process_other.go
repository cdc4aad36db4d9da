//go:build !linux

package servers

import (
	"errors"
	"io"
	"syscall"
)

// Servers need Linux: prepare says so before it comes to these.

func diesWithParent() *syscall.SysProcAttr { return nil }

func asNobody() *syscall.SysProcAttr { return nil }

func (p *process) killAll() { p.Kill() }

func hold() (int, io.Closer, error) { return 0, nil, errors.ErrUnsupported }

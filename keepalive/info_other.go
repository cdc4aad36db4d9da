//go:build !linux && !darwin

package keepalive

import "errors"

func (l *life) info() (Info, error) {
	if l.raw == nil {
		return l.infoInMemory()
	}
	return Info{}, errors.ErrUnsupported
}

const kernelProves = false

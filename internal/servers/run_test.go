package servers_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/natwise/natwise/internal/servers"
)

func TestAMainHasServersToo(t *testing.T) {
	mine := errors.New("mine")
	var s *servers.Server
	var dir string
	err := servers.Run(func(in servers.T) error {
		s, dir = servers.Redis(in), in.TempDir()
		dial(t, s).ping()
		return mine
	})
	if !errors.Is(err, mine) {
		t.Errorf("the error is %v", err)
	}
	refused(t, s)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
}

func TestAMainIsToldWhatWentWrongWithAServer(t *testing.T) {
	servers.Redis(t) // skips
	err := servers.Run(func(in servers.T) error {
		servers.Redis(in, "no-such-setting 1")
		t.Error("it goes on")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "ended while it started") || errors.Is(err, servers.ErrUnavailable) {
		t.Errorf("the error is %v", err)
	}
}

func TestAMainIsToldWhenThereCanBeNoServer(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	t.Setenv("NATWISE_LAB", "")
	err := servers.Run(func(in servers.T) error {
		servers.Redis(in)
		t.Error("it goes on")
		return nil
	})
	if !errors.Is(err, servers.ErrUnavailable) || !strings.Contains(err.Error(), "apt-get install redis-server") {
		t.Errorf("the error is %v", err)
	}
}

func TestAPanicOfAMainLeavesNoServer(t *testing.T) {
	var s *servers.Server
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("the panic is %v", p)
			}
		}()
		servers.Run(func(in servers.T) error {
			s = servers.Redis(in)
			panic("mine")
		})
	}()
	refused(t, s)
}

package telemetry_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/natwise/natwise/internal/telemetry"
)

type withItsOwn struct{ error }

func (withItsOwn) ErrorType() string { return "my_own" }

func TestWhatErrorsAreCalled(t *testing.T) {
	number := func(n syscall.Errno) error {
		return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", n)}
	}
	for _, e := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("wrapped: %w", withItsOwn{context.Canceled}), "my_own"},
		{context.Canceled, "canceled"},
		{errors.Join(errors.New("of several"), context.DeadlineExceeded), "timed_out"},
		{os.ErrDeadlineExceeded, "timed_out"},
		{&net.DNSError{IsTimeout: true}, "name_resolution"},
		{number(syscall.ECONNREFUSED), "connection_refused"},
		{number(syscall.ECONNRESET), "connection_reset"},
		{number(syscall.EPIPE), "connection_reset"},
		{number(syscall.ETIMEDOUT), "timed_out"},
		{number(syscall.EHOSTUNREACH), "host_unreachable"},
		{number(syscall.ENETUNREACH), "network_unreachable"},
		{number(syscall.EADDRNOTAVAIL), "address_not_available"},
		{number(syscall.EADDRINUSE), "address_already_in_use"},
		{number(syscall.EMFILE), "too_many_open_files"},
		{number(syscall.ENOTTY), "syscall.Errno"},
		{io.EOF, "connection_closed"},
		{io.ErrUnexpectedEOF, "connection_closed"},
		{net.ErrClosed, "closed"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "tls"},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(40)}, "tls"},
		{errors.New("something"), "_OTHER"},
		{fmt.Errorf("wrapped: %w", errors.New("something")), "_OTHER"},
		{fmt.Errorf("wrapped: %w", &net.AddrError{}), "*net.AddrError"},
	} {
		if got := telemetry.ErrorType(e.err); got != e.want {
			t.Errorf("%v is %q, want %q", e.err, got, e.want)
		}
	}
}

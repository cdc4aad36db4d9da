package telemetry

import (
	"context"
	"errors"
	"net"
	"syscall"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// ErrorType is what error.type says of err: what an error of its chain says of itself by a
// method ErrorType, a name of the conventions for an error number, or its type.
func ErrorType(err error) string {
	var named interface{ ErrorType() string }
	var dns *net.DNSError
	switch {
	case errors.As(err, &named):
		return named.ErrorType()
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &dns):
		return "name_resolution"
	}
	for _, e := range []struct {
		number syscall.Errno
		name   string
	}{
		{syscall.ECONNREFUSED, "connection_refused"},
		{syscall.ECONNRESET, "connection_reset"},
		{syscall.EPIPE, "connection_reset"},
		{syscall.ETIMEDOUT, "timed_out"},
		{syscall.EHOSTUNREACH, "host_unreachable"},
		{syscall.ENETUNREACH, "network_unreachable"},
		{syscall.EADDRNOTAVAIL, "address_not_available"},
		{syscall.EADDRINUSE, "address_already_in_use"},
	} {
		if errors.Is(err, e.number) {
			return e.name
		}
	}
	var timeout interface{ Timeout() bool }
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return "timed_out"
	}
	return semconv.ErrorType(err).Value.AsString()
}

package telemetry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// errorNames are what the conventions call some errors, or would.
var errorNames = []struct {
	err  error
	name string
}{
	{context.Canceled, "canceled"},
	{syscall.ECONNREFUSED, "connection_refused"},
	{syscall.ECONNRESET, "connection_reset"},
	{syscall.EPIPE, "connection_reset"},
	{syscall.ETIMEDOUT, "timed_out"},
	{syscall.EHOSTUNREACH, "host_unreachable"},
	{syscall.ENETUNREACH, "network_unreachable"},
	{syscall.EADDRNOTAVAIL, "address_not_available"},
	{syscall.EADDRINUSE, "address_already_in_use"},
	{syscall.EMFILE, "too_many_open_files"},
	{syscall.ENFILE, "too_many_open_files"},
	{io.EOF, "connection_closed"}, // by the peer
	{io.ErrUnexpectedEOF, "connection_closed"},
	{net.ErrClosed, "closed"}, // by us
	{http.ErrSchemeMismatch, "tls"},
	{context.DeadlineExceeded, "timed_out"},
}

// ErrorType is what error.type says of err: what an error of its chain says of itself by a
// method ErrorType, a name of the conventions, or its type. There are few of them.
func ErrorType(err error) string {
	var named interface{ ErrorType() string }
	if errors.As(err, &named) {
		return named.ErrorType()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "name_resolution"
	}
	for _, known := range errorNames {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timed_out"
	}
	if strings.Contains(err.Error(), "tls: ") { // most of them have no type
		return "tls"
	}
	return typeName(err)
}

// typeName is the innermost type in err's chain that says anything.
func typeName(err error) string {
	name := other
	for ; err != nil; err = errors.Unwrap(err) {
		if is := semconv.ErrorType(err).Value.AsString(); !strings.HasPrefix(is, "*errors.") && !strings.HasPrefix(is, "*fmt.") {
			name = is
		}
	}
	return name
}

package redisbudget

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// reason says in a few words why a call failed, for a page and a log. It never is the
// error's text, which may hold what a user sent.
func reason(err error) string {
	var said redis.Error
	var network net.Error
	switch {
	case errors.Is(err, redis.ErrClosed):
		return "the client of Redis is closed"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "Redis does not answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Redis refuses connections"
	case errors.As(err, &said):
		return "Redis says " + code(said.Error())
	}
	return "no connection to Redis"
}

// code is the first word of what Redis says, which names the error: NOAUTH, READONLY, OOM.
func code(said string) string {
	word, _, _ := strings.Cut(said, " ")
	if word == "" || strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return "ERR"
	}
	return word
}

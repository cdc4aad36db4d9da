package main

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// countCalls counts the scripts that a Redis runs in some time.
func countCalls(server string, lasts time.Duration) (calls float64, err error) {
	before, err := info(server, "commandstats")
	if err != nil {
		return 0, err
	}
	time.Sleep(lasts)
	after, err := info(server, "commandstats")
	if err != nil {
		return 0, err
	}
	return scripts(after) - scripts(before), nil
}

// scripts is how many scripts a Redis has run, by its commandstats.
func scripts(stats map[string]string) (n float64) {
	for _, command := range []string{"cmdstat_eval", "cmdstat_evalsha"} {
		calls, _, _ := strings.Cut(strings.TrimPrefix(stats[command], "calls="), ",")
		n += number(calls)
	}
	return n
}

// number is what s says, or zero: of a command that was never used nothing is said.
func number(s string) float64 {
	n, _ := strconv.ParseFloat(s, 64)
	return n
}

// direct returns a client of a Redis outside of the lab.
func direct(server string) *redis.Client { return newRedis(server, new(net.Dialer), deadline) }

// info is a section of what a Redis says of itself.
func info(server, section string) (map[string]string, error) {
	client := direct(server)
	defer client.Close()
	text, err := client.Info(context.Background(), section).Result()
	said := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			said[name] = value
		}
	}
	return said, err
}

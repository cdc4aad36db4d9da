package servers

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

const redisConf = `
bind 127.0.0.1
port %d
save ""
appendonly no
%s
`

// Redis returns a Redis that runs, with more lines for its redis.conf:
//
//	s := servers.Redis(t, "timeout 1") // hangs up on the idle after a second
//
// It keeps nothing on disk: what it knew is gone after a Kill or Stop.
func Redis(t testing.TB, config ...string) *Server {
	t.Helper()
	s := prepare(t, "redis-server", "redis-server")
	s.args = []string{s.write("redis.conf", fmt.Sprintf(redisConf, s.port, strings.Join(config, "\n")))}
	s.quit = syscall.SIGTERM
	s.hello, s.answer = "PING\r\nQUIT\r\n", "+PONG"
	return s.first()
}

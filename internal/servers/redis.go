package servers

import (
	"fmt"
	"strings"
	"syscall"
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
func Redis(t T, config ...string) *Server {
	t.Helper()
	s := prepare(t, Place{}, "redis-server", "redis-server")
	s.args = []string{s.write("redis.conf", fmt.Sprintf(redisConf, s.at.addr.Port(), strings.Join(config, "\n")))}
	s.quit = syscall.SIGTERM
	s.hello, s.answer = "PING\r\nQUIT\r\n", "+PONG"
	return s.first()
}

package servers

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Page is the body of nginx's answer to every request.
const Page = "natwise was here\n"

// One process, which dies at one signal: a worker would outlive a master that
// is killed. It stays the user who started it, and who may write here.
const nginxConf = `
daemon off;
master_process off;
pid nginx.pid;
lock_file nginx.lock;
error_log stderr notice;
events { worker_connections 4096; }
http {
	access_log off;
	default_type text/plain;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen 127.0.0.1:%d;
		location / { return 200 %q; }
		%s
	}
}
`

// Nginx returns an nginx that runs and answers every request with Page, with
// more lines for the server block of its nginx.conf:
//
//	s := servers.Nginx(t, "keepalive_timeout 1s;", "keepalive_requests 10;")
func Nginx(t T, config ...string) *Server {
	t.Helper()
	s := prepare(t, Place{}, "nginx", "nginx")
	conf := s.write("nginx.conf", fmt.Sprintf(nginxConf, s.at.addr.Port(), Page, strings.Join(config, "\n\t\t")))
	s.args = []string{"-p", s.dir, "-c", conf}
	if os.Geteuid() == 0 {
		// Else it gives its directories to the user nobody, whom a user
		// namespace may not know.
		s.args = append(s.args, "-g", "user root;")
	}
	s.quit = syscall.SIGQUIT
	s.hello, s.answer = "HEAD / HTTP/1.0\r\n\r\n", "HTTP/1.1 "
	return s.first()
}

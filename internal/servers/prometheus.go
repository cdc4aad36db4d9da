package servers

import "syscall"

// Prometheus returns a Prometheus that runs, with its prometheus.yml:
//
//	s := servers.Prometheus(t, "scrape_configs: [...]")
//
// What it has scraped is there after a Kill or Stop.
func Prometheus(t T, config string) *Server {
	t.Helper()
	s := prepare(t, Place{}, "prometheus", "prometheus")
	s.args = []string{
		"--config.file=" + s.write("prometheus.yml", config),
		"--storage.tsdb.path=" + s.data(),
		"--web.listen-address=" + s.Addr(),
	}
	s.quit = syscall.SIGTERM
	s.hello, s.answer = "GET /-/ready HTTP/1.0\r\n\r\n", "HTTP/1.0 200"
	return s.first()
}

package main

import (
	"io"
	"net"
	"net/http"
	"time"
)

// answers is a server that takes its time.
func answers(after time.Duration) func(net.Listener) func() {
	return func(ln net.Listener) func() {
		return serveHTTP(ln, &http.Server{Handler: slowly(after)})
	}
}

func slowly(after time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(after):
			io.WriteString(w, "hello\n")
		case <-r.Context().Done():
		}
	})
}

// hangsUp is a server that ends each connection after one answer.
func hangsUp(ln net.Listener) func() {
	s := &http.Server{Handler: slowly(0)}
	s.SetKeepAlivesEnabled(false)
	return serveHTTP(ln, s)
}

// nobody is a server that is down.
func nobody(ln net.Listener) func() {
	ln.Close()
	return func() {}
}

// serveHTTP serves until stop is called, which returns when it has ended.
func serveHTTP(ln net.Listener, s *http.Server) (stop func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Serve(ln)
	}()
	return func() {
		s.Close()
		<-ended
	}
}

package keepalive_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"syscall"
	"time"

	"github.com/natwise/natwise/keepalive"
	"github.com/natwise/natwise/keepalive/netpath"
)

func ExampleFor() {
	plan := keepalive.For(netpath.AzureAppService()) // which forgets after 240 s
	fmt.Println("first probe after", plan.Idle)
	fmt.Println("then", plan.Count, "of them, every", plan.Interval)
	fmt.Println("lend nothing that was silent for", plan.MaxSilence())
	// Output:
	// first probe after 1m0s
	// then 3 of them, every 5s
	// lend nothing that was silent for 3m50s
}

// A server behind a load balancer keeps the connections that it accepts known
// to it, and finds out within 90 s that a client is gone.
func ExamplePlan_Apply() {
	plan := keepalive.For(netpath.AWSNLB())

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go net.Dial("tcp", ln.Addr().String())

	c, err := ln.Accept()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := plan.Apply(c.(*net.TCPConn)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("probes after", plan.Idle)
	// Output: probes after 1m0s
}

// Each connection that an HTTP server accepts follows the plan of what stands before
// the server.
func ExamplePlan_Apply_server() {
	plan := keepalive.For(netpath.AWSNLB())
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if secured, ok := c.(*tls.Conn); ok {
			c = secured.NetConn()
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			fmt.Println("refused by the kernel:", plan.Apply(tcp))
		}
		return ctx
	}
	server.StartTLS()
	defer server.Close()

	resp, err := server.Client().Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// refused by the kernel: <nil>
	// 404 Not Found
}

// A deadline of the caller's says nothing of the connection. The kernel's verdict, which
// calls itself a timeout too, says that packets vanish.
func ExampleFaultOf() {
	for _, err := range []error{os.ErrDeadlineExceeded, syscall.ETIMEDOUT, syscall.ECONNRESET, io.ErrUnexpectedEOF, keepalive.ErrRetired} {
		fmt.Println(keepalive.FaultOf(err))
	}
	// Output:
	// deadline
	// blackhole
	// reset
	// finished
	// shut
}

func ExampleWatch() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go func() { // a server that answers once
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.CopyN(c, c, 5)
		c.Close()
	}()
	under, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}

	ended := make(chan keepalive.Ending, 1)
	plan := keepalive.Plan{Forgets: 4 * time.Minute}
	c := keepalive.Watch(under, plan, func(e keepalive.Ending) { ended <- e })

	fmt.Fprint(c, "hello")
	io.ReadFull(c, make([]byte, 5))
	c.Park(c.Turn()) // anybody may c.Retire() it now

	if _, err := c.Unpark(); err != nil { // silent for too long, or retired
		log.Fatal(err)
	}
	io.Copy(io.Discard, c) // until the server closes
	c.Close()
	fmt.Println((<-ended).How, "after", c.BytesRead(), "bytes")
	// Output: fin-by-peer after 5 bytes
}

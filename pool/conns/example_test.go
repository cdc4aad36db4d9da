package conns_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/natwise/natwise/pool"
	"github.com/natwise/natwise/pool/conns"
)

// serveLines greets whoever names himself on a line.
func serveLines(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		fmt.Println("somebody connects")
		go func() {
			defer c.Close()
			for lines := bufio.NewScanner(c); lines.Scan(); {
				fmt.Fprintf(c, "hello, %s\n", lines.Text())
			}
		}()
	}
}

// What the protocol says when it asks whether the far end is alive is asked of idle
// connections, and of those that a loss has thrown doubt on.
func ExampleNew() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go serveLines(ln)

	ask := func(c net.Conn, name string) (answer string, err error) {
		if _, err := fmt.Fprintln(c, name); err != nil {
			return "", err
		}
		return bufio.NewReader(c).ReadString('\n')
	}
	p := conns.New(nil, conns.Config{
		Max:       16,
		BeatEvery: 30 * time.Second,
		Beat: func(ctx context.Context, c net.Conn) error {
			_, err := ask(c, "is anybody there")
			return err
		},
	})
	defer p.Close(context.Background())

	var answer string
	err = p.Do(context.Background(), "tcp", ln.Addr().String(), func(ctx context.Context, c *conns.Conn) (err error) {
		answer, err = ask(c, "dave")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(answer)
	// Output:
	// somebody connects
	// hello, dave
}

// An answer that says no is an answer: the connection is as good as before. After any other
// error it is closed.
func ExamplePool_Do() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go serveLines(ln)
	p := conns.New(nil, conns.Config{})
	defer p.Close(context.Background())

	for _, name := range []string{"eve", "frank"} {
		err := p.Do(context.Background(), "tcp", ln.Addr().String(), func(_ context.Context, c *conns.Conn) error {
			fmt.Fprintln(c, name)
			if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
				return err
			}
			return pool.Clean(errors.New(name + " is not known"))
		})
		fmt.Println(err)
	}
	// Output:
	// somebody connects
	// eve is not known
	// frank is not known
}

func ExamplePool_Hedge() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go serveLines(ln)

	p := conns.New(nil, conns.Config{})
	defer p.Close(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	// Two runs may overlap: each sends its answer, and one is enough.
	answers := make(chan string, 2)
	err = p.Hedge(ctx, "tcp", ln.Addr().String(), func(ctx context.Context, c *conns.Conn) error {
		fmt.Fprintln(c, "carol")
		answer, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			answers <- answer
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(<-answers)
	// Output:
	// somebody connects
	// hello, carol
}

func ExamplePool() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go serveLines(ln)

	ctx := context.Background()
	p := conns.New(nil, conns.Config{})
	defer p.Close(ctx)

	greet := func(name string) (string, error) {
		c, err := p.Get(ctx, "tcp", ln.Addr().String())
		if err != nil {
			return "", err
		}
		defer c.Close() // does nothing after Put

		fmt.Fprintln(c, name)
		answer, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return "", err
		}
		c.Put() // a line for a line: nothing is still to come
		return answer, nil
	}
	for _, name := range []string{"alice", "bob"} {
		answer, err := greet(name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(answer)
	}
	// Output:
	// somebody connects
	// hello, alice
	// hello, bob
}

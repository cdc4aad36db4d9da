package main

import (
	"bufio"
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A toyDB is a driver for a database of few words, so that this example needs no server.
// Yours is pgx, go-sql-driver/mysql or another: examples/databases has the line for each.
type toyDB struct {
	address string
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

func (d toyDB) Driver() driver.Driver { return d }

func (d toyDB) Open(string) (driver.Conn, error) { return d.Connect(context.Background()) }

func (d toyDB) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := d.dial(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	return &toyConn{c, bufio.NewReader(c)}, nil
}

type toyConn struct {
	net.Conn
	in *bufio.Reader
}

func (c *toyConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, c.say(ctx, query)
}

func (c *toyConn) Ping(ctx context.Context) error { return c.say(ctx, "ping") }

// say sends a line and waits for one.
func (c *toyConn) say(ctx context.Context, line string) error {
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	_, err := c.in.ReadString('\n')
	return err
}

var errToy = errors.New("a toy has neither transactions nor prepared statements")

func (c *toyConn) Prepare(string) (driver.Stmt, error) { return nil, errToy }
func (c *toyConn) Begin() (driver.Tx, error)           { return nil, errToy }

// serveToyDB answers each line with a line after 50 ms, but a ping at once.
func serveToyDB(ln net.Listener) (stop func()) {
	var serving sync.WaitGroup
	var mu sync.Mutex // guards open
	open := make(map[net.Conn]bool)
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			serving.Go(func() {
				answerLines(c)
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	return func() {
		ln.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	}
}

func answerLines(c net.Conn) {
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if lines.Text() != "ping" {
			time.Sleep(50 * time.Millisecond) // it works
		}
		if _, err := io.WriteString(c, "done\n"); err != nil {
			return
		}
	}
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/e2e/drivers"
	"github.com/natwise/natwise/internal/natlab"
	"github.com/natwise/natwise/internal/natlab/work"
	"github.com/natwise/natwise/internal/servers"
)

// A stage is a lab with a PostgreSQL and a MariaDB, at each of its addresses, and
// clients.
type stage struct {
	*natlab.Lab
	postgres, mariadb *servers.Server
	clients           []*client
}

// Where they listen, on every address of the lab.
const (
	postgresPort = 5432
	mariadbPort  = 3306
)

// perform builds a stage with so many addresses, whose path forgets after idle, and
// calls play. Everything ends with that.
func perform(addresses int, idle time.Duration, play func(st *stage) error) (err error) {
	path := work.Path()
	path.Idle = idle
	lab, err := natlab.New(natlab.Config{Path: path, Room: roomForPeers, Servers: addresses})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	return servers.Run(func(t servers.T) error {
		st := &stage{Lab: lab}
		st.postgres = servers.In(lab, netip.AddrPortFrom(lab.Server(0), postgresPort)).
			Postgres(t, "listen_addresses = '*'", "max_connections = 500")
		st.mariadb = servers.In(lab, netip.AddrPortFrom(lab.Server(0), mariadbPort)).
			MariaDB(t, "bind-address = 0.0.0.0", "max-connections = 500")
		return errors.Join(st.nft(cutRules), play(st), st.leave())
	})
}

// roomForPeers is more than the path's limit, which peers know nothing of.
const roomForPeers = 8192

// leave closes the clients.
func (st *stage) leave() error {
	var errs []error
	for _, c := range st.clients {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("%s, %s: %w", c.who, c.driver, err))
		}
	}
	st.clients = nil
	return errors.Join(errs...)
}

// each does something with both servers at a time.
func (st *stage) each(do func(*servers.Server)) {
	var both sync.WaitGroup
	both.Go(func() { do(st.postgres) })
	both.Go(func() { do(st.mariadb) })
	both.Wait()
}

// server is the address of a driver's server, as a client finds it that has the i-th
// address for itself, and as whom it logs in.
func (st *stage) server(driver string, i int) drivers.Server {
	port := uint16(postgresPort)
	if driver == drivers.MySQL {
		port = mariadbPort
	}
	return drivers.Server{
		Addr: netip.AddrPortFrom(st.Server(i), port).String(),
		User: servers.User, Password: servers.Password, Database: servers.Database,
	}
}

// direct returns a new DB that knows a driver's server without any NAT between. It keeps no
// connections: the server may have been killed since.
func (st *stage) direct(driver string) (*sql.DB, error) {
	c, err := drivers.Connector(driver, st.server(driver, 0), func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = st.Inside("server", func() error {
			c, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return c, err
	})
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxIdleConns(-1)
	return db, nil
}

// cutRules make the gateway end those flows by RST that are in a set, when the client
// sends something; the server is not told.
const cutRules = "add table ip e2e; " +
	"add set ip e2e victims { type ipv4_addr . inet_service . ipv4_addr . inet_service ; flags timeout ; timeout 5s ; }; " +
	"add chain ip e2e cutting { type filter hook forward priority filter - 5 ; }; " +
	`add rule ip e2e cutting iifname "inside" ip saddr . tcp sport . ip daddr . tcp dport @victims reject with tcp reset`

// cut ends a flow as a gateway does that resets.
func (st *stage) cut(c net.Conn) error {
	from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	return st.nft(fmt.Sprintf("add element ip e2e victims { %s . %d . %s . %d }", from.IP, from.Port, to.IP, to.Port))
}

// nft changes the gateway's rules.
func (st *stage) nft(rules string) error {
	_, err := st.Exec(context.Background(), "gateway", "nft", rules)
	return err
}

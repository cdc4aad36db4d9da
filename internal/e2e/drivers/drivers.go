// Package drivers connects database drivers to a server by whatever they are to dial by.
package drivers

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

// The drivers, by the names of their modules.
const (
	PGX   = "pgx"
	PQ    = "pq"
	MySQL = "mysql"
)

// Names are all drivers.
var Names = []string{PGX, PQ, MySQL}

// A Server is where to log in, and as whom.
type Server struct{ Addr, User, Password, Database string }

// A Dial is what a driver dials by, as net.Dialer.DialContext does. It fits lib/pq too,
// which wants methods.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

func (d Dial) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d(ctx, network, address)
}

func (d Dial) Dial(network, address string) (net.Conn, error) {
	return d(context.Background(), network, address)
}

func (d Dial) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d(ctx, network, address)
}

// Connector returns a driver's own Connector to s that dials by dial. The traffic is not
// encrypted.
func Connector(name string, s Server, dial Dial) (driver.Connector, error) {
	switch name {
	case PGX:
		cfg, err := PGXConfig(s, dial)
		if err != nil {
			return nil, err
		}
		return stdlib.GetConnector(*cfg), nil
	case PQ:
		c, err := pq.NewConnector(postgresURL(s))
		if err != nil {
			return nil, err
		}
		c.Dialer(dial)
		return c, nil
	case MySQL:
		cfg := mysql.NewConfig()
		cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = s.User, s.Password, "tcp", s.Addr, s.Database
		cfg.DialFunc = dial
		return mysql.NewConnector(cfg)
	}
	return nil, fmt.Errorf("drivers: there is none called %q", name)
}

// PGXConfig is pgx's own, for its pool.
func PGXConfig(s Server, dial Dial) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(postgresURL(s))
	if err == nil {
		cfg.DialFunc = dial.DialContext
	}
	return cfg, err
}

func postgresURL(s Server) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", s.User, s.Password, s.Addr, s.Database)
}

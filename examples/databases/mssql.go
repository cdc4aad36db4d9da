package main

import (
	"context"
	"database/sql/driver"
	"net"

	"github.com/microsoft/go-mssqldb"

	"github.com/natwise/natwise/sqlx"
)

// mssqlConnector has go-mssqldb dial by d, which is given host names as the DSN has them.
//
// The driver's own Dialer would get addresses: of a name that has several it dials all at
// once, since multisubnetfailover is true unless the DSN says otherwise, and closes all
// but the first that answers. Each of those holds a port. A HostDialer gets the name, so
// that d tries the addresses one after the other, a quarter of a second apart.
func mssqlConnector(dsn string, d *sqlx.Dialer) (driver.Connector, error) {
	c, err := mssql.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	c.Dialer = byName{d}
	return c, nil
}

// byName is an mssql.HostDialer.
type byName struct{ *sqlx.Dialer }

// HostName is asked for by nobody: that there is one is what counts.
func (byName) HostName() string { return "" }

// DialContext leaves datagrams to the system. They go to the SQL Server Browser, which
// knows the port of a named instance; a DSN with a port spares them.
func (b byName) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network == "udp" {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return b.Dialer.DialContext(ctx, network, address)
}

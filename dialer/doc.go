// Package dialer opens TCP connections whose ports are paid for.
//
// A NAT gives a process a fixed number of ports for each destination address,
// and keeps the port of a closed connection for minutes. A service that dials
// without counting runs out: connects hang, and retries make it worse. A
// [Dialer] asks its [Ledger] first, which books every flow as the NAT does, by
// resolved address, and makes a dial wait when no port is left, first for those
// who have fewest.
//
// One line in main makes a program thrifty everywhere:
//
//	dialer.DefaultLedger.Path = netpath.AzureAppService()
//
// and DialContext of the zero Dialer fits wherever net.Dialer's does:
// http.Transport.DialContext, the DialFunc of pgx and of go-sql-driver/mysql,
// go-redis' Options.Dialer, gRPC's WithContextDialer.
//
// A connection whose packets vanish is ended within seconds by evidence, so that its
// Read and Write return keepalive.ErrBlackhole, whoever uses it; when the whole path
// is down, it is kept. A suspicion may cost one control connection, from the port
// that is kept back for those.
//
// dialer pools nothing, never retries an address that failed within one dial,
// and knows no protocol above TCP.
package dialer

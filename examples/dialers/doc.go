// Package dialers shows how clients that take a dial function are given natwise's: each
// file is one client, in the few lines that it takes, with the settings of its own pool
// that matter behind a NAT. Nobody imports this package; copy what you need. The README
// says where in each client's source that can be read. Keep is for the other end, a server.
//
// A Dialer may be shared by all of them, and books in dialer.DefaultLedger unless it is
// told otherwise:
//
//	var d dialer.Dialer
package dialers

// Package conformance holds a *sql.DB over natwise against the driver's own: each case
// runs on both, and whatever a program could see of it must be the same, down to the
// texts of the errors and to which connection of the server did the work. The
// differences that are meant are listed, each with its reason.
//
// It has tests only. They start PostgreSQL and MariaDB.
package conformance

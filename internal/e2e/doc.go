// E2e measures, with a real PostgreSQL and a real MariaDB behind the kernel lab's NAT,
// what package sqlx makes of pgx, lib/pq and go-sql-driver/mysql; beside the pool of
// database/sql, and pgxpool, in the same run.
//
//	go -C internal/e2e run . [-json] [-only NAME] [-full]
//
// It needs Linux, root or unprivileged user namespaces, and the servers' Debian packages
// (postgresql, mariadb-server-core), and says so where they are not. The exit status is
// zero only if every bound was kept. It takes two minutes, with -full eight.
//
// Each client has a destination of its own: both servers listen on every address of the
// lab. The peers are tuned as people do, by SetMaxOpenConns and SetMaxIdleConns, or
// pgxpool's MaxConns; they dial as a net.Dialer without settings does, with probes after
// 15 s. Ours is told App Service's path, scaled: a silent flow is forgotten after 16 s.
//
// # idle
//
// Connections that nobody uses for five times as long as the path remembers, which is 3 s
// here and known to ours. Then all are used at a time.
//
//   - heartbeats: nothing else is sent. That is what a path sees that does not count
//     keepalive probes; since the lab's gateway would, there are none.
//   - probes: ours sends no heartbeats. Go's 15 s would be 0.2 s at this scale, so that the
//     peers' probes come after a second, which is the shortest that there is.
//
// # failover
//
// Each client has 50 connections and gets 200 queries a second whether it answers or not.
// Then both servers are killed and start again a second later, at the same address and with
// the same data; or all packets vanish for a second, after which the gateway knows no flow
// any more. Ours has a Patience of 5 s and is told that the queries may be repeated; each
// of them has 5 s. All is well again when the last query is over that failed or was late by
// more than 250 ms. What was dialed is what the gateway has seen of it, refused or not.
//
// # exactlyonce
//
// INSERTs of numbers that nobody else has into a table without a key: a quarter as text,
// a quarter with arguments, a quarter prepared, a quarter in a transaction. Each has 5 s.
// In the end the servers are killed and what they have stored is counted: there must be no
// number twice, none missing whose INSERT succeeded, and none of an INSERT that has failed
// with dialer.SafeToRetry or driver.ErrBadConn. What was answered is written by then, so
// that a server which is killed loses none of it. Meanwhile, to all clients alike:
//
//   - flows are forgotten by the gateway, reset by the gateway, and terminated by the
//     server (pg_terminate_backend, KILL), one of each client every half second, in turn;
//   - PostgreSQL's commits wait for a standby that is not there, and those who wait are
//     terminated: they are told of the end of their connection, and not of the row, which
//     is there;
//   - four times in 20 s both servers are killed and start a second later: with all that
//     is under way, without a word, while commits wait as above, and while nobody asks;
//   - twice in 20 s nobody asks anything for 3.5 s, and the path forgets after 3 s,
//     which nobody was told.
//
// Whatever a pool makes of an error that its driver calls driver.ErrBadConn is seen then.
// A peer that is slow has not sent everything when ours has; then it stops. So that peers
// do not wait for ever where packets vanish, as lib/pq does, their kernel gives up after
// 5 s.
package main

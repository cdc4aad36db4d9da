// Package redisbudget shares the ports of one gateway between all instances behind it,
// through a Redis.
//
//	b, err := redisbudget.New(redisbudget.Config{
//		Client:    redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true}),
//		Ports:     50_000,
//		Instances: 20,
//	})
//	dialer.DefaultLedger.Budget = b
//	defer b.Close(ctx)
//
// # How it shares
//
// Each instance has a floor to each destination, which it uses without asking anybody. What
// is beyond all floors is leased in blocks, to whoever needs it: who wants little has what it
// wants, the others have equal parts. A lease that is wanted by others is called back, and
// its flows end as they become idle.
//
// No Take waits for Redis. A goroutine asks beside it: when a Take was refused, when three
// quarters of a lease are in use, and three times in the life of a lease. It starts with the
// first account that needs more than its floor, and ends with the last. Floors hold while
// Redis is slow, restarts or is gone.
//
// # What it promises
//
// What the instances hold, and what the NAT may still hold for those that are gone, is never
// more than Ports to one destination. It rests on times and not on locks, for a NAT checks
// nobody's token:
//
//   - A lease ends for its instance at nine tenths of its TTL after the request for it was
//     sent, by the monotonic clock or by that of the wall, whichever is first. A process that
//     was stopped, or a machine that was suspended, asks before it uses its lease again.
//   - A lease that was not renewed is nobody's for Hold and Drain more.
//   - The server's clock may jump. Time goes on there by one TTL at most from call to call, or
//     by what an instance has measured itself: of Hold and Drain, a jump costs a TTL.
//   - A Redis that has lost its state, has an older one, or is another one than before, gives
//     nobody more than it has, for TTL, Hold and Drain. So does one that has no state yet: a
//     fleet's first minutes are on floors.
//
// Accounts are told apart by their netpath.Key. One that has a Source belongs to whoever uses
// that address, as the NAT counts it too.
//
// What it cannot keep:
//
//   - A process that is stopped for longer than TTL, Hold and Drain while its kernel keeps its
//     flows alive, or whose requests go on for longer than Drain without Redis, holds ports
//     that others were given by then.
//   - Floors are counted twice for Instances. More instances than that, or more than one
//     restart of each within a Hold, are more than was counted; those that ask are told,
//     and take less.
//   - Two Redis servers that both take writes, on the two sides of a partition, each give away
//     all ports: see min-replicas-to-write.
//
// # What it costs Redis
//
// Instances with leases make 3/TTL calls a second each, and as many more for each further 32
// accounts; one whose Takes are refused asks after a tenth of a second at first, then after
// two, four, and so on. Each account in a call costs in proportion to the instances that share
// it: 200 that share 20 accounts, with a TTL of 10 s, take a fifth of a Redis.
// All of one NAT is one key, so that it is there as a whole or not at all; it is deleted after
// a week without calls. Give it a
// Redis, or a database, that evicts nothing: after an eviction nobody gets more for TTL, Hold and Drain. Users need EVAL, EVALSHA, HGET, HSET, HDEL, HSCAN, PEXPIRE and TIME,
// and should have INFO: without it a replica that was promoted is not noticed.
package redisbudget

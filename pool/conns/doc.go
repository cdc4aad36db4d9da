// Package conns keeps connections for protocols that have no client of their
// own: a line protocol, memcached, a proprietary one.
//
//	p := conns.New(nil, conns.Config{})
//	defer p.Close(ctx)
//
//	c, err := p.Get(ctx, "tcp", "cache.example.com:11211")
//	if err != nil {
//		return err
//	}
//	defer c.Close() // does nothing after Put
//	... one exchange over c ...
//	c.Put()
//
// A connection goes back only when its user says by Put that the exchange is
// over and clean; Close, a panic or a failed Read or Write end it. Before one is
// lent again it is looked at: one on which the server has said goodbye, has been
// reset, or has said something that nobody asked for, is not lent.
//
// What a server says first, before it was asked, is read in Config.Hello.
//
// Idle connections are parked: they are kept known to the path, and the ledger
// may end them for somebody else who waits for a port.
//
// What keeps silent is doubted. A connection whose bytes are not acknowledged is not
// lent. One that has died on the way, or on which an answer has not come by its
// user's deadline though all was acknowledged, as a middlebox that lies would have
// it, throws doubt on the others: Config.Beat asks those that have proved nothing
// since.
//
// Pool.Do is Get, an exchange and Put or Close, with a context that ends the
// exchange. Pool.Hedge is that for an exchange that may happen twice: if its
// connection falls silent while another has just answered, it happens there too.
// Otherwise conns never repeats an exchange: whether that is safe, only its user
// knows.
package conns

// Package pool reuses anything that is costly to open and can be kept:
// connections, sessions, processes.
//
//	p := pool.New(pool.Config[*Session]{
//		Open:  func(ctx context.Context) (*Session, error) { return login(ctx) },
//		Close: func(s *Session, cause error) { s.Logout() },
//		Max:   16,
//	})
//	defer p.Close(ctx)
//
//	lease, err := p.Get(ctx)
//	if err != nil {
//		return err
//	}
//	defer lease.Discard(errUnclean) // does nothing after Put
//	...
//	lease.Put()
//
// Whoever waits does not wait for a value of their own: who has waited longest
// takes whatever comes first, one that is put back or one that is opened. A
// value is opened only while more are waiting than those being opened can
// serve; nobody's cancellation ends an opening that the next in line can use. A
// value takes up room until its Close has returned.
//
// pool knows no network, never retries what was done with a value, and starts
// no goroutine before the first Get.
package pool

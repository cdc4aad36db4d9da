// Package pool reuses anything that is costly to open and can be kept:
// connections, sessions, processes.
//
//	p := pool.New(pool.Config[*smtp.Client]{
//		Open:  func(context.Context) (*smtp.Client, error) { return smtp.Dial("mail.example.com:25") },
//		Close: func(c *smtp.Client, cause error) { c.Quit() },
//		Max:   16,
//	})
//	defer p.Close(ctx)
//
//	lease, err := p.Get(ctx)
//	if err != nil {
//		return err
//	}
//	defer lease.Discard(errors.New("not finished")) // does nothing after Put
//	... send a letter with lease.Value() ...
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

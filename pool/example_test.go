package pool_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/natwise/natwise/pool"
)

// A session is costly to open, and can be used again.
type session struct{ server string }

var errNotFound = errors.New("not found")

func (s *session) find(name string) (string, error) {
	if name == "nobody" {
		return "", errNotFound
	}
	return name + " at " + s.server, nil
}

func sessions(server string) pool.Config[*session] {
	return pool.Config[*session]{
		Open: func(context.Context) (*session, error) {
			fmt.Println("login at", server)
			return &session{server}, nil
		},
		Close: func(s *session, cause error) { fmt.Println("logout:", cause) },
		Max:   16,
	}
}

// A value that has been idle is asked before it is lent again.
func ExampleNew() {
	ctx := context.Background()
	p := pool.New(pool.Config[*session]{
		Open: func(context.Context) (*session, error) { return &session{"db1"}, nil },
		Check: func(_ context.Context, s *session) error {
			_, err := s.find("anybody")
			return err
		},
		CheckAfter: time.Minute, // of idleness
		Max:        4,
	})
	defer p.Close(ctx)

	lease, err := p.Get(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Stats().InUse, "in use")
	lease.Put()
	fmt.Println(p.Stats().Idle, "idle")
	// Output:
	// 1 in use
	// 1 idle
}

func ExamplePool() {
	ctx := context.Background()
	p := pool.New(sessions("db1"))
	defer p.Close(ctx)

	greet := func(name string) error {
		lease, err := p.Get(ctx)
		if err != nil {
			return err
		}
		defer lease.Discard(errors.New("not finished")) // does nothing after Put

		found, err := lease.Value().find(name)
		if err != nil {
			return err
		}
		fmt.Println("hello,", found)
		lease.Put()
		return nil
	}
	greet("alice")
	greet("bob")
	greet("nobody")
	// Output:
	// login at db1
	// hello, alice at db1
	// hello, bob at db1
	// logout: not finished
}

func ExamplePool_Do() {
	ctx := context.Background()
	p := pool.New(sessions("db1"))
	defer p.Close(ctx)

	for _, name := range []string{"nobody", "alice"} {
		err := p.Do(ctx, func(ctx context.Context, s *session) error {
			found, err := s.find(name)
			if errors.Is(err, errNotFound) {
				return pool.Clean(err) // an answer like any other: the session is as good as before
			}
			fmt.Println("hello,", found)
			return err
		})
		if err != nil {
			fmt.Println(name, "is", err)
		}
	}
	// Output:
	// login at db1
	// nobody is not found
	// hello, alice at db1
	// logout: pool: shut
}

func ExampleGroup() {
	ctx := context.Background()
	g := &pool.Group[string, *session]{New: sessions}
	defer g.Close(ctx)

	for _, server := range []string{"db1", "db2", "db1"} {
		g.Do(ctx, server, func(ctx context.Context, s *session) error {
			found, err := s.find("alice")
			fmt.Println("hello,", found)
			return err
		})
	}
	// Output:
	// login at db1
	// hello, alice at db1
	// login at db2
	// hello, alice at db2
	// hello, alice at db1
	// logout: pool: shut
	// logout: pool: shut
}

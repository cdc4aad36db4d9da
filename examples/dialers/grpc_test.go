package dialers_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/examples/dialers"
)

// serveHealth serves gRPC's health service, and returns where, and what each call has
// named as its authority.
func serveHealth(t *testing.T) (at *gate, authorities func() []string) {
	var mu sync.Mutex
	var named []string
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		mu.Lock()
		named = append(named, md[":authority"]...)
		mu.Unlock()
		return handle(ctx, req)
	}))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	g := listen(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(g) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return g, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(named)
	}
}

// channel returns a gRPC channel that dials by d.
func channel(t *testing.T, d *dialer.Dialer, target string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(target, dialers.GRPC(d),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig()) // which is asked of the DNS, and here is none
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func check(t *testing.T, cc *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	return err
}

func TestAllCallsOfAGRPCChannelGoOverOneBookedConnection(t *testing.T) {
	at, _ := serveHealth(t)
	d := behindNAT(4)
	cc := channel(t, d, "passthrough:///"+at.addr())
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if err := check(t, cc); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if a := account(d, at.addr()); a.Opened != 1 || a.Active != 1 || a.Taken() != 1 {
		t.Errorf("50 calls at once: %v, %d opened", a, a.Opened)
	}
}

func TestALostConnectionOfAGRPCChannelIsBookedAndReplaced(t *testing.T) {
	at, _ := serveHealth(t)
	d := behindNAT(4)
	cc := channel(t, d, "passthrough:///"+at.addr())
	if err := check(t, cc); err != nil {
		t.Fatal(err)
	}
	at.hangUp()
	until(t, "its port cools", func() bool { return cooling(account(d, at.addr())) == 1 })
	if err := check(t, cc); err != nil {
		t.Fatal(err)
	}
	if a := account(d, at.addr()); a.Opened != 2 || a.Taken() != 2 {
		t.Errorf("%v, %d opened", a, a.Opened)
	}
}

// names is a Resolver that knows one name, and remembers what it was asked.
type names struct {
	addr netip.Addr

	mu    sync.Mutex // guards the field below
	asked []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	return []netip.Addr{n.addr}, nil
}

func TestOnlyAPassthroughTargetLetsTheDialerResolveTheName(t *testing.T) {
	at, authorities := serveHealth(t)
	local := netip.MustParseAddrPort(at.addr())
	port := strings.TrimPrefix(at.addr(), local.Addr().String())
	for target, asked := range map[string]int{
		"passthrough:///localhost" + port: 1,
		"localhost" + port:                0, // gRPC resolves by itself
	} {
		d := behindNAT(4)
		resolver := &names{addr: local.Addr()}
		d.Resolver = resolver
		if err := check(t, channel(t, d, target)); err != nil {
			t.Fatal(err)
		}
		if len(resolver.asked) != asked {
			t.Errorf("%s: the Dialer's Resolver was asked for %q", target, resolver.asked)
		}
		if opened := account(d, at.addr()).Opened; opened != 1 {
			t.Errorf("%s: %d connections to %v", target, opened, local)
		}
	}
	// It is this name that TLS checks, too.
	if got, want := authorities(), "localhost"+port; len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("the server was called %q, want %q twice", got, want)
	}
}

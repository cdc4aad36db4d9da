package redisbudget_test

import (
	"context"
	"crypto/tls"
	"log"
	"time"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget/redisbudget"
	"github.com/natwise/natwise/keepalive/netpath"
	"github.com/redis/go-redis/v9"
)

// Twenty instances share an Azure NAT Gateway with one address: 50,000 ports to each
// destination, of which 625 are each instance's own.
func ExampleNew() {
	client := redis.NewClient(&redis.Options{
		Addr:                  "redis.example.com:6380",
		Username:              "natwise",
		Password:              "of a secret store",
		TLSConfig:             &tls.Config{MinVersion: tls.VersionTLS12},
		ContextTimeoutEnabled: true,
	})
	defer client.Close()

	shared, err := redisbudget.New(redisbudget.Config{
		Client:    client,
		NAT:       "westeurope-1",
		Ports:     50_000,
		Instances: 20,
	})
	if err != nil {
		log.Fatal(err)
	}
	dialer.DefaultLedger.Path = netpath.AzureNATGateway(1)
	dialer.DefaultLedger.Budget = shared

	// ... the program ...

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := shared.Close(ctx); err != nil {
		log.Print(err) // leases that were not given back run out
	}
}

// Five instances share a small gateway, and Sentinels say which Redis is the master. What
// floors there are is what each has while none is.
func ExampleConfig() {
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName:            "budget",
		SentinelAddrs:         []string{"10.0.0.7:26379", "10.0.0.8:26379", "10.0.0.9:26379"},
		ContextTimeoutEnabled: true,
	})
	defer client.Close()
	shared, err := redisbudget.New(redisbudget.Config{
		Client:    client,
		Ports:     1000,
		Instances: 5,
		Surplus:   0.8, // floors of 20, and 800 to lease
		Hold:      65 * time.Second,
		Fail:      redisbudget.FailFloor,
	})
	if err != nil {
		log.Fatal(err)
	}
	dialer.DefaultLedger.Budget = shared
}

package dialers_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/examples/dialers"
	"github.com/natwise/natwise/keepalive/netpath"
)

// cluster returns a Kafka of one broker, in this process: there is none in Debian.
func cluster(t *testing.T) (c *kfake.Cluster, addr string) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, c.ListenAddrs()[0]
}

func kafkaClient(t *testing.T, d *dialer.Dialer, addr string) *kgo.Client {
	t.Helper()
	opts := append(dialers.Kafka(d, nil), kgo.SeedBrokers(addr), kgo.ConsumeTopics("orders"))
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// order sends a record and fetches it.
func order(t *testing.T, c *kgo.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("tea")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if n := c.PollFetches(ctx).NumRecords(); n == 0 {
		t.Fatal("no record")
	}
}

func TestEveryConnectionOfFranzGoIsBooked(t *testing.T) {
	_, addr := cluster(t)
	d := behindNAT(8)
	c := kafkaClient(t, d, addr)
	order(t, c)
	a := account(d, addr)
	t.Logf("one producer and consumer, one broker: %d connections", a.Opened)
	if a.Opened < 3 || a.Opened > 6 || int(a.Opened) != a.Taken() {
		t.Errorf("%v, %d opened", a, a.Opened)
	}
	c.Close()
	until(t, "all ports cool", func() bool { return cooling(account(d, addr)) == int(a.Opened) })
}

func TestConnectionsOfFranzGoThatALostBrokerHadAreBooked(t *testing.T) {
	cluster, addr := cluster(t)
	d := behindNAT(8)
	order(t, kafkaClient(t, d, addr))
	opened := int(account(d, addr).Opened)
	cluster.Close()
	until(t, "their ports cool", func() bool { return cooling(account(d, addr)) >= opened })
}

func TestFranzGoKeepsIdleConnectionsForAsLongAsBrokerAndPathDo(t *testing.T) {
	for _, c := range []struct {
		path netpath.Profile
		idle time.Duration
	}{
		{netpath.AzureAppService(), 9 * time.Minute}, // keepalive probes keep it known
		{netpath.AWSALB(), 25 * time.Second},         // where nothing would
	} {
		d := &dialer.Dialer{Ledger: &dialer.Ledger{Path: c.path}}
		client, err := kgo.NewClient(dialers.Kafka(d, nil)...)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if idle := client.OptValue(kgo.ConnIdleTimeout); idle != c.idle {
			t.Errorf("behind %s connections may be idle for %v", c.path.Name, idle)
		}
	}
}

package dialers_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/examples/dialers"
)

// serveMongo serves as much of MongoDB as a driver needs to believe in one, and returns
// where: everything that is asked for is done. There is none in Debian.
func serveMongo(t *testing.T) *gate {
	g := listen(t)
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after the crash, which is registered below
	t.Cleanup(g.crash)
	serving.Go(func() {
		for {
			c, err := g.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				for answerMongo(c) == nil {
				}
			})
		}
	})
	return g
}

// hello is what a server of version 7 says of itself, and does for an answer to anything.
var hello = bson.D{
	{Key: "ok", Value: 1}, {Key: "helloOk", Value: true}, {Key: "isWritablePrimary", Value: true},
	{Key: "minWireVersion", Value: 0}, {Key: "maxWireVersion", Value: 21},
	{Key: "maxBsonObjectSize", Value: 16 << 20}, {Key: "maxMessageSizeBytes", Value: 48 << 20},
	{Key: "maxWriteBatchSize", Value: 100_000},
}

const (
	opReply = 1
	opQuery = 2004 // how a connection begins
	opMsg   = 2013
)

// answerMongo reads a message and answers it. The header is its length, an id, the id that it
// answers, and its kind.
func answerMongo(c net.Conn) error {
	var header struct{ Length, ID, To, Kind int32 }
	if err := binary.Read(c, binary.LittleEndian, &header); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, int64(header.Length)-16); err != nil {
		return err
	}
	doc, err := bson.Marshal(hello)
	if err != nil {
		return err
	}
	body := make([]byte, 5, 32) // flags, and a section of kind 0
	kind := int32(opMsg)
	if header.Kind == opQuery {
		body = make([]byte, 20, 32) // flags, cursor, where it starts, how many
		body[16] = 1
		kind = opReply
	}
	body = append(body, doc...)
	message := binary.LittleEndian.AppendUint32(nil, uint32(16+len(body)))
	for _, n := range []int32{1, header.ID, kind} {
		message = binary.LittleEndian.AppendUint32(message, uint32(n))
	}
	_, err = c.Write(append(message, body...))
	return err
}

func mongoClient(t *testing.T, d *dialer.Dialer, addr string) *mongo.Client {
	t.Helper()
	opts := options.Client().ApplyURI("mongodb://" + addr + "/?directConnection=true").SetHeartbeatInterval(500 * time.Millisecond)
	c, err := mongo.Connect(dialers.Mongo(opts, d))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience) // t.Context() has ended in a Cleanup
		defer cancel()
		if err := c.Disconnect(ctx); err != nil {
			t.Error(err)
		}
	})
	return c
}

func pingMongo(t *testing.T, c *mongo.Client) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return c.Ping(ctx, nil)
}

func TestEveryConnectionOfTheMongoDriverIsBooked(t *testing.T) {
	at := serveMongo(t)
	d := behindNAT(8)
	c := mongoClient(t, d, at.addr())
	var pings sync.WaitGroup
	for range 100 {
		pings.Go(func() {
			if err := pingMongo(t, c); err != nil {
				t.Error(err)
			}
		})
	}
	pings.Wait()
	a := account(d, at.addr())
	t.Logf("100 pings at once: %d connections", a.Opened)
	if a.Opened < 2 || a.Opened > 8 || a.Taken() > 8 { // the pool's and the monitor's
		t.Errorf("%v, %d opened", a, a.Opened)
	}
}

func TestConnectionsOfTheMongoDriverThatALostServerHadAreBooked(t *testing.T) {
	at := serveMongo(t)
	d := behindNAT(8)
	c := mongoClient(t, d, at.addr())
	if err := pingMongo(t, c); err != nil {
		t.Fatal(err)
	}
	opened := int(account(d, at.addr()).Opened)
	at.hangUp()
	until(t, "their ports cool", func() bool { return cooling(account(d, at.addr())) >= opened })
	until(t, "it works again", func() bool { return pingMongo(t, c) == nil })
}

func TestThePoolOfTheMongoDriverLeavesItsMonitorTwoPorts(t *testing.T) {
	for _, c := range []struct{ ports, asked, size int }{
		{8, 0, 6}, {8, 4, 4}, {1024, 0, 100}, {1, 0, 1},
	} {
		opts := options.Client()
		if c.asked > 0 {
			opts.SetMaxPoolSize(uint64(c.asked))
		}
		size := dialers.Mongo(opts, behindNAT(c.ports)).MaxPoolSize
		if size == nil || int(*size) != c.size {
			t.Errorf("of %d ports, where %d were asked for, it takes %v", c.ports, c.asked, size)
		}
	}
}

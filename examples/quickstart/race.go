package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/natwise/natwise/internal/fauxnat"
)

// race lets every client of the scene do its work, all at the same time, and calls
// show ten times a second, and once in the end while their connections are still there.
func race(ctx context.Context, s *scene, on network, show func([]*lane)) ([]*lane, error) {
	if s.unable != nil {
		return nil, nil
	}
	servers, err := serve(on, s)
	if err != nil {
		return nil, err
	}
	defer servers.close()
	cut, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("cut off after %s", span(s.limit)))
	defer cancel()

	lanes := make([]*lane, len(s.clients))
	for i, c := range s.clients {
		lanes[i] = newLane(c, s, servers, &fauxnat.NAT{Path: s.path, Dial: on.dial, Hosts: servers.names})
	}
	defer func() {
		for _, l := range lanes {
			l.close()
		}
	}()
	var running sync.WaitGroup
	for _, l := range lanes {
		running.Go(func() { l.run(cut) })
	}
	over := make(chan struct{})
	go func() { running.Wait(); close(over) }()
	watch(lanes, over, show)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted") // what was not sent has not failed
	}
	show(lanes)
	return lanes, nil
}

// watch samples the lanes until all are over.
func watch(lanes []*lane, over <-chan struct{}, show func([]*lane)) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-over:
			return
		}
		for _, l := range lanes {
			l.sample()
		}
		if i%20 == 0 {
			show(lanes)
		}
	}
}

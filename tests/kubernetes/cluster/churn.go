package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// churning is one of `cluster churn`, which runs on node 1.
type churning struct {
	rate, services int
	length         time.Duration
	process        string
}

// churn lets one endpoint of a Service of `cluster load` become unready and another ready again, so many times a second, and says what the proxy's process
// took meanwhile.
func (c *Cluster) churn(churning churning) error {
	api, err := c.kubernetes()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), churning.length)
	defer cancel()
	numbers, failed := make(chan int, churning.rate), make(chan error, writers)
	changed, mutex := 0, sync.Mutex{}
	for range writers {
		go func() {
			var bad error
			for number := range numbers {
				slices := api.DiscoveryV1().EndpointSlices(loadNamespace)
				slice, err := slices.Get(context.Background(), fmt.Sprintf("load-%d", number%churning.services), metav1.GetOptions{})
				if err == nil {
					end := &slice.Endpoints[number/churning.services%len(slice.Endpoints)]
					end.Conditions.Ready = ptr.To(!*end.Conditions.Ready)
					_, err = slices.Update(context.Background(), slice, metav1.UpdateOptions{})
				}
				mutex.Lock()
				if err == nil {
					changed++
				}
				mutex.Unlock()
				bad = errors.Join(bad, err)
			}
			failed <- bad
		}()
	}
	before, _, err := usage(churning.process)
	if err != nil {
		return err
	}
	began := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(churning.rate))
	defer tick.Stop()
	for number := 0; ctx.Err() == nil; number++ {
		<-tick.C
		numbers <- number
	}
	close(numbers)
	for range writers {
		err = errors.Join(err, <-failed)
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, resident, err := usage(churning.process)
	if err != nil {
		return err
	}
	fmt.Printf("%d endpoints changed in %.0f s, %.0f a second: %s took %.1f %% of a core, %d MiB\n", changed, took.Seconds(), float64(changed)/took.Seconds(),
		churning.process, 100*(after-before).Seconds()/took.Seconds(), resident>>20)
	return nil
}

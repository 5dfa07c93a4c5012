package main

import (
	"context"
	"fmt"
	"sync/atomic"
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
	endpoints := api.DiscoveryV1().EndpointSlices(loadNamespace)
	ctx := context.Background()
	var changed atomic.Int64
	change := func(number int) error {
		slice, err := endpoints.Get(ctx, fmt.Sprintf("load-%d", number%churning.services), metav1.GetOptions{})
		if err != nil {
			return err
		}
		end := &slice.Endpoints[number/churning.services%len(slice.Endpoints)]
		end.Conditions.Ready = ptr.To(!*end.Conditions.Ready)
		if _, err := endpoints.Update(ctx, slice, metav1.UpdateOptions{}); err != nil {
			return err
		}
		changed.Add(1)
		return nil
	}
	before, _, err := usage(churning.process)
	if err != nil {
		return err
	}
	began := time.Now()
	err = atOnce(change, func(write chan<- int) {
		tick := time.NewTicker(time.Second / time.Duration(churning.rate))
		defer tick.Stop()
		for number := 0; time.Since(began) < churning.length; number++ {
			<-tick.C
			write <- number
		}
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, resident, err := usage(churning.process)
	if err != nil {
		return err
	}
	fmt.Printf("%d endpoints changed in %.0f s, %.0f a second: %s took %.1f %% of a core, %d MiB\n", changed.Load(), took.Seconds(), float64(changed.Load())/took.Seconds(),
		churning.process, 100*(after-before).Seconds()/took.Seconds(), resident>>20)
	return nil
}

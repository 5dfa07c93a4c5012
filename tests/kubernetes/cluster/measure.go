package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// loadNamespace has Services by the thousand, and the one that is measured.
const loadNamespace = "load"

// measurement is one of `cluster measure`, which runs on node 1.
type measurement struct {
	rounds  int
	pause   time.Duration
	process string
	idle    time.Duration
}

// writers at a time, when Services are made.
const writers = 16

// fill makes Services from number first on, each with so many endpoints that nobody has.
func (c *Cluster) fill(first, count, endpoints int) error {
	api, err := c.kubernetes()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := ensureNamespace(ctx, api); err != nil {
		return err
	}
	began := time.Now()
	err = atOnce(func(number int) error { return loadOne(ctx, api, number, endpoints, c.Nodes) }, func(write chan<- int) {
		for number := first; number < first+count; number++ {
			write <- number
		}
	})
	fmt.Printf("%d Services with %d endpoints each in %.1f s\n", count, endpoints, time.Since(began).Seconds())
	return err
}

// atOnce lets several writers do what `send` gives them numbers for, and gives what went wrong.
func atOnce(write func(number int) error, send func(chan<- int)) error {
	numbers, failed := make(chan int), make(chan error, writers)
	for range writers {
		go func() {
			var bad error
			for number := range numbers {
				bad = errors.Join(bad, write(number))
			}
			failed <- bad
		}()
	}
	send(numbers)
	close(numbers)
	var err error
	for range writers {
		err = errors.Join(err, <-failed)
	}
	return err
}

func ensureNamespace(ctx context.Context, api kubernetes.Interface) error {
	_, err := api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: loadNamespace}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func loadOne(ctx context.Context, api kubernetes.Interface, number, endpoints, nodes int) error {
	service, slice := objects(fmt.Sprintf("load-%d", number), 80, 8080)
	for i := range endpoints {
		k := number*endpoints + i
		// Of no network that there is.
		address := netip.AddrFrom4([4]byte{10, byte(128 + k>>16), byte(k >> 8), byte(k)})
		endpoint := ready(address)
		endpoint.NodeName = ptr.To(nodeName(k%nodes + 1))
		slice.Endpoints = append(slice.Endpoints, endpoint)
	}
	if _, err := api.CoreV1().Services(loadNamespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := api.DiscoveryV1().EndpointSlices(loadNamespace).Create(ctx, slice, metav1.CreateOptions{})
	return err
}

// objects gives a Service without a selector, and its slice, which is empty.
func objects(name string, port, target int32) (*corev1.Service, *discoveryv1.EndpointSlice) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: port}}}}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{},
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To(target), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	return service, slice
}

func ready(address netip.Addr) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{address.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}
}

// measure writes a ready endpoint and takes the time until the first connection through the cluster address succeeds; then removes it and takes the time
// until connections fail. The endpoint is the control plane's port of the API server, which accepts whoever comes. Last comes what the proxy's process took.
func (c *Cluster) measure(m measurement) error {
	api, err := c.kubernetes()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := ensureNamespace(ctx, api); err != nil {
		return err
	}
	service, slice := objects(fmt.Sprintf("measured-%d", os.Getpid()), 80, apiPort)
	if service, err = api.CoreV1().Services(loadNamespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	defer func() { _ = api.CoreV1().Services(loadNamespace).Delete(ctx, service.Name, metav1.DeleteOptions{}) }()
	endpoints := api.DiscoveryV1().EndpointSlices(loadNamespace)
	if slice, err = endpoints.Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		return err
	}
	defer func() { _ = endpoints.Delete(ctx, slice.Name, metav1.DeleteOptions{}) }()
	target := net.JoinHostPort(service.Spec.ClusterIP, "80")
	server := ready(c.addresses(controlHost)[0])

	before, _, err := usage(m.process)
	if err != nil {
		return err
	}
	if m.idle > 0 {
		time.Sleep(m.idle)
		after, resident, err := usage(m.process)
		if err != nil {
			return err
		}
		fmt.Printf("idle        %.2f %% of a core, %d MiB\n", 100*(after-before).Seconds()/m.idle.Seconds(), resident>>20)
		before = after
	}
	began := time.Now()
	var written, served, gone []time.Duration
	for round := range m.rounds {
		for _, on := range []bool{true, false} {
			slice.Endpoints = nil
			if on {
				slice.Endpoints = []discoveryv1.Endpoint{server}
			}
			start := time.Now()
			if slice, err = endpoints.Update(ctx, slice, metav1.UpdateOptions{}); err != nil {
				return err
			}
			written = append(written, time.Since(start))
			took, ok := until(target, on, start)
			if !ok {
				return fmt.Errorf("round %d: connections to %s: not %v after a minute", round, target, map[bool]string{true: "served", false: "refused"}[on])
			}
			if on {
				served = append(served, took)
			} else {
				gone = append(gone, took)
			}
			time.Sleep(m.pause)
		}
	}
	after, resident, err := usage(m.process)
	if err != nil {
		return err
	}
	printTimes("served", served)
	printTimes("gone", gone)
	printTimes("API write", written)
	fmt.Printf("%-11s %.1f ms of CPU a change, %.0f %% of a core over %.0f s, %d MiB\n", m.process,
		float64((after-before).Microseconds())/1e3/float64(2*m.rounds), 100*(after-before).Seconds()/time.Since(began).Seconds(), time.Since(began).Seconds(), resident>>20)
	return nil
}

// until dials every 2 ms, without waiting for earlier attempts, until one succeeds, or three in a row fail; and gives the time since start.
func until(target string, wanted bool, start time.Time) (time.Duration, bool) {
	type attempt struct {
		at time.Duration
		ok bool
	}
	attempts := make(chan attempt, 1<<16)
	end := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	failures := 0
	var firstFailure time.Duration
	for {
		select {
		case <-tick.C:
			go func() {
				connection, err := net.DialTimeout("tcp", target, 500*time.Millisecond)
				attempts <- attempt{time.Since(start), err == nil}
				if err == nil {
					connection.Close()
				}
			}()
		case one := <-attempts:
			if wanted && one.ok {
				return one.at, true
			}
			if one.ok {
				failures = 0
				continue
			}
			if failures == 0 {
				firstFailure = one.at
			}
			failures++
			if !wanted && failures >= 3 {
				return firstFailure, true
			}
		case <-end:
			return 0, false
		}
	}
}

func printTimes(name string, times []time.Duration) {
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[min(len(times)-1, int(share*float64(len(times))))].Microseconds()) / 1e3
	}
	fmt.Printf("%-11s p50 %.1f ms, p90 %.1f, p99 %.1f, most %.1f (%d)\n", name, at(0.5), at(0.9), at(0.99), at(1), len(times))
}

// usage gives the CPU time and the resident memory of the processes of this name on the node, children that have ended included.
func usage(process string) (cpu time.Duration, resident int64, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, 0, err
	}
	found := false
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // It has ended meanwhile.
		}
		_, rest, _ := strings.Cut(string(text), "(")
		name, rest, _ := cutLast(rest, ") ")
		// The kernel keeps 15 bytes of a name.
		if name != process[:min(len(process), 15)] {
			continue
		}
		found = true
		fields := strings.Fields(rest)
		for _, field := range fields[11:15] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("%s: %w", path, err)
			}
			cpu += time.Duration(ticks) * 10 * time.Millisecond
		}
		pages, err := strconv.ParseInt(fields[21], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", path, err)
		}
		resident += pages * int64(os.Getpagesize())
	}
	if !found {
		return 0, 0, fmt.Errorf("no process %q on this node", process)
	}
	return cpu, resident, nil
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}

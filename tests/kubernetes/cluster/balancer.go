package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/utils/ptr"
)

// A cloud would give Services of type LoadBalancer an address outside the cluster and lead it to the nodes. Here the router does: an address of
// `balanced` is a route of equal cost to each node that may get its packets, which leave their destination as it is.

// finalizer keeps a Service until its address has been taken back.
const finalizer = "service.kubernetes.io/load-balancer-cleanup"

// roundTime is how often nodes' health is looked at, as a cloud's health checks would.
const roundTime = 500 * time.Millisecond

type balancer struct {
	cluster  *Cluster
	api      kubernetes.Interface
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	probes   http.Client
	// routes that are in force, by address: the nodes, sorted.
	routes map[netip.Addr][]netip.Addr
}

// serveBalancer runs in the router's network namespace, and returns only if it can't.
func (c *Cluster) serveBalancer() error {
	api, err := c.kubernetes()
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(api, 0)
	b := &balancer{
		cluster: c, api: api, services: factory.Core().V1().Services().Lister(), nodes: factory.Core().V1().Nodes().Lister(),
		probes: http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		routes: map[netip.Addr][]netip.Addr{},
	}
	ctx := context.Background()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for range time.Tick(roundTime) {
		if err := b.round(ctx); err != nil {
			// The next round sees the objects as they have become.
			log.Print(err)
		}
	}
	return nil
}

func (b *balancer) round(ctx context.Context) error {
	all, err := b.services.List(labels.Everything())
	if err != nil {
		return err
	}
	taken := map[netip.Addr]bool{}
	for _, service := range all {
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			for _, address := range parse([]string{ingress.IP}) {
				taken[address] = true
			}
		}
	}
	wanted := map[netip.Addr][]netip.Addr{}
	var failed error
	for _, service := range all {
		mine := service.Spec.Type == corev1.ServiceTypeLoadBalancer && service.Spec.LoadBalancerClass == nil
		if !mine || service.DeletionTimestamp != nil {
			if slices.Contains(service.Finalizers, finalizer) {
				failed = first(failed, b.takeBack(ctx, service))
			}
			continue
		}
		addresses := b.addresses(service, taken)
		failed = first(failed, b.give(ctx, service, addresses))
		for _, address := range addresses {
			wanted[address] = b.targets(service, address.Is6())
		}
	}
	for address, nodes := range wanted {
		if old, ok := b.routes[address]; !ok || !slices.Equal(old, nodes) {
			failed = first(failed, b.route(address, nodes))
		}
	}
	for address := range b.routes {
		if _, ok := wanted[address]; !ok {
			failed = first(failed, b.route(address, nil))
			delete(b.routes, address)
		}
	}
	return failed
}

func first(one, other error) error {
	if one != nil {
		return one
	}
	return other
}

// addresses gives those that a Service has, or else free ones, which are taken then.
func (b *balancer) addresses(service *corev1.Service, taken map[netip.Addr]bool) []netip.Addr {
	has := []netip.Addr{}
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		has = append(has, parse([]string{ingress.IP})...)
	}
	result := []netip.Addr{}
	for _, family := range service.Spec.IPFamilies {
		six := family == corev1.IPv6Protocol
		pool := balanced.v4
		if six {
			pool = balanced.v6
		}
		if i := slices.IndexFunc(has, func(a netip.Addr) bool { return a.Is6() == six }); i >= 0 {
			result = append(result, has[i])
			continue
		}
		if asked := parse([]string{service.Spec.LoadBalancerIP}); len(asked) == 1 && pool.Contains(asked[0]) && !taken[asked[0]] {
			taken[asked[0]] = true
			result = append(result, asked[0])
			continue
		}
		for address := pool.Addr().Next(); pool.Contains(address); address = address.Next() {
			if !taken[address] {
				taken[address] = true
				result = append(result, address)
				break
			}
		}
	}
	return result
}

// targets gives the nodes that an address's packets may go to: with externalTrafficPolicy Local those whose health check says so.
func (b *balancer) targets(service *corev1.Service, six bool) []netip.Addr {
	nodes, err := b.nodes.List(labels.Everything())
	if err != nil {
		return nil
	}
	targets := []netip.Addr{}
	for _, node := range nodes {
		for _, status := range node.Status.Addresses {
			address, err := netip.ParseAddr(status.Address)
			if status.Type != corev1.NodeInternalIP || err != nil || address.Is6() != six {
				continue
			}
			if service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && !b.healthy(address, service.Spec.HealthCheckNodePort) {
				continue
			}
			targets = append(targets, address)
		}
	}
	slices.SortFunc(targets, netip.Addr.Compare)
	// A cloud's balancer keeps a client at one node; one node for all does as well.
	if service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP && len(targets) > 1 {
		targets = targets[:1]
	}
	return targets
}

func (b *balancer) healthy(node netip.Addr, port int32) bool {
	if port == 0 {
		return true
	}
	response, err := b.probes.Get("http://" + net.JoinHostPort(node.String(), fmt.Sprint(port)) + "/")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// give writes addresses into a Service's status, the finalizer first: what has an address must be able to give it back.
func (b *balancer) give(ctx context.Context, service *corev1.Service, addresses []netip.Addr) error {
	ingress := []corev1.LoadBalancerIngress{}
	for _, address := range addresses {
		ingress = append(ingress, corev1.LoadBalancerIngress{IP: address.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	}
	guarded := slices.Contains(service.Finalizers, finalizer)
	if guarded && reflect.DeepEqual(service.Status.LoadBalancer.Ingress, ingress) {
		return nil
	}
	current, err := b.api.CoreV1().Services(service.Namespace).Get(ctx, service.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if !slices.Contains(current.Finalizers, finalizer) {
		current.Finalizers = append(current.Finalizers, finalizer)
		if current, err = b.api.CoreV1().Services(service.Namespace).Update(ctx, current, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	current.Status.LoadBalancer.Ingress = ingress
	_, err = b.api.CoreV1().Services(service.Namespace).UpdateStatus(ctx, current, metav1.UpdateOptions{})
	return err
}

// takeBack clears a Service's status and lets it go.
func (b *balancer) takeBack(ctx context.Context, service *corev1.Service) error {
	current, err := b.api.CoreV1().Services(service.Namespace).Get(ctx, service.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(current.Status.LoadBalancer.Ingress) > 0 {
		current.Status.LoadBalancer = corev1.LoadBalancerStatus{}
		if current, err = b.api.CoreV1().Services(service.Namespace).UpdateStatus(ctx, current, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	current.Finalizers = slices.DeleteFunc(current.Finalizers, func(f string) bool { return f == finalizer })
	_, err = b.api.CoreV1().Services(service.Namespace).Update(ctx, current, metav1.UpdateOptions{})
	return err
}

// route leads an address to these nodes; to none, if there are none.
func (b *balancer) route(address netip.Addr, nodes []netip.Addr) error {
	family := "-4"
	if address.Is6() {
		family = "-6"
	}
	line := family + " route replace " + address.String()
	for _, node := range nodes {
		line += " nexthop via " + node.String()
	}
	if len(nodes) == 0 {
		line = family + " route replace unreachable " + address.String()
	}
	// IPv6 adds next hops to a route that is there; and an unreachable route is another one.
	for _, kind := range []string{"", "unreachable "} {
		_ = command("ip", strings.Fields(family+" route del "+kind+address.String())...).Run()
	}
	if err := ip(line); err != nil {
		return err
	}
	log.Printf("%s to %v", address, nodes)
	b.routes[address] = nodes
	return nil
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

const (
	// workspace is the namespace of what the promises are tried on.
	workspace = "promises"
	// workload is its Deployment, and the Service of it.
	workload = "even"
	// asker is a pod on node 1 that connections come from.
	asker = "asker"
	// agnhost is built with the cluster.
	agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
	// lastWords is how long a pod of the workload goes on after it was told to end: longer than any service proxy takes to hear of it.
	lastWords = 5 * time.Second
)

// bench is a cluster with the workload in it, seen from the outside client.
type bench struct {
	*Cluster
	api      *kubernetes.Clientset
	ctx      context.Context
	cluster  string
	nodePort string
}

// furnishBench makes a Deployment with so many pods, its Service, and the pod that asks; and waits until all are ready.
func (c *Cluster) furnishBench(replicas int32) (*bench, error) {
	api, err := c.kubernetes()
	if err != nil {
		return nil, err
	}
	b := &bench{Cluster: c, api: api, ctx: context.Background()}
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: workspace}}
	if _, err := api.CoreV1().Namespaces().Create(b.ctx, space, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	labels := map[string]string{"app": workload}
	probe := &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: workload}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: workload, Image: agnhost, ReadinessProbe: probe,
			Args: []string{"netexec", "--http-port=8080", "--udp-port=-1", fmt.Sprintf("--delay-shutdown=%.0f", lastWords.Seconds())},
		}}}},
	}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: workload}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: asker}, Spec: corev1.PodSpec{NodeName: nodeName(1), Containers: []corev1.Container{{
		Name: asker, Image: agnhost, Args: []string{"pause"},
	}}}}
	// The namespace's account for pods comes a moment later.
	err = eventually(b.ctx, patience, func() error {
		_, err := api.CoreV1().Pods(workspace).Create(b.ctx, pod, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := api.AppsV1().Deployments(workspace).Create(b.ctx, deployment, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	if service, err = api.CoreV1().Services(workspace).Create(b.ctx, service, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	b.cluster = net.JoinHostPort(service.Spec.ClusterIP, "80")
	b.nodePort = net.JoinHostPort(c.addresses(nodeHost(1))[0].String(), fmt.Sprint(service.Spec.Ports[0].NodePort))
	if err := eventually(b.ctx, patience, func() error { return b.rolledOut(replicas) }); err != nil {
		return nil, err
	}
	return b, eventually(b.ctx, patience, func() error {
		pod, err := api.CoreV1().Pods(workspace).Get(b.ctx, asker, metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("%s is %s", asker, pod.Status.Phase)
		}
		return err
	})
}

// rolledOut says whether all pods of the Deployment are of its newest template, and no other is left.
func (b *bench) rolledOut(replicas int32) error {
	deployment, err := b.api.AppsV1().Deployments(workspace).Get(b.ctx, workload, metav1.GetOptions{})
	if err != nil {
		return err
	}
	status := deployment.Status
	if status.ObservedGeneration < deployment.Generation || status.UpdatedReplicas != replicas || status.AvailableReplicas != replicas || status.Replicas != replicas {
		return fmt.Errorf("%d of %d pods are available, %d new", status.AvailableReplicas, replicas, status.UpdatedReplicas)
	}
	pods, err := b.api.CoreV1().Pods(workspace).List(b.ctx, metav1.ListOptions{LabelSelector: "app=" + workload})
	if err == nil && len(pods.Items) != int(replicas) {
		err = fmt.Errorf("%d pods are left, %d are wanted", len(pods.Items), replicas)
	}
	return err
}

// hold starts a holder: outside, by the node port of node 1; in a pod on node 1, by the cluster address; or as a process of node 1, likewise.
func (b *bench) hold(place string) (*holder, error) {
	var cmd *exec.Cmd
	var err error
	switch place {
	case "of the node":
		cmd, err = b.insideOn(nodeName(1), nil, "hold", b.cluster)
	case "in a pod":
		var namespace string
		if namespace, err = b.namespaceOf(asker); err == nil {
			cmd, err = b.insideOn(nodeName(1), []string{"nsenter", "--net=/run/netns/" + namespace}, "hold", b.cluster)
		}
	default:
		cmd, err = b.insideHere(command, "hold", b.nodePort)
	}
	if err != nil {
		return nil, err
	}
	return holdBy(place, cmd)
}

var places = []string{"outside", "in a pod", "of the node"}

// namespaceOf gives the network namespace of a pod on node 1, by its name in the node's /run/netns.
func (b *bench) namespaceOf(name string) (string, error) {
	pod, err := b.api.CoreV1().Pods(workspace).Get(b.ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	address, err := netip.ParseAddr(pod.Status.PodIP)
	if err != nil {
		return "", err
	}
	const look = `for n in $(ls /run/netns); do ip -n $n -o addr 2>/dev/null | grep -q " inet6\? $0/" && echo $n; done; true`
	cmd, err := b.on(nodeName(1), "sh", "-c", look, address.String())
	if err != nil {
		return "", err
	}
	out, err := cmd.Output()
	if names := strings.Fields(string(out)); err == nil && len(names) == 1 {
		return names[0], nil
	}
	return "", errors.Join(fmt.Errorf("no network namespace on %s has %s: %q", nodeName(1), address, out), err)
}

// agents gives Flowpin's pods by node.
func (b *bench) agents() (map[string]string, error) {
	pods, err := b.api.CoreV1().Pods(metav1.NamespaceSystem).List(b.ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + flowpin})
	if err != nil {
		return nil, err
	}
	agents := map[string]string{}
	for _, pod := range pods.Items {
		agents[pod.Spec.NodeName] = pod.Name
	}
	if len(agents) != b.Nodes {
		return nil, fmt.Errorf("%d agents on %d nodes", len(agents), b.Nodes)
	}
	return agents, nil
}

// flowpin runs Flowpin's command line in the agent's pod on a node.
func (b *bench) flowpin(node string, args ...string) (string, error) {
	agents, err := b.agents()
	if err != nil {
		return "", err
	}
	cmd := foreground(b.bin("kubectl"), append([]string{"--kubeconfig", b.kubeconfig(), "--namespace", metav1.NamespaceSystem, "exec", agents[node], "--", flowpin}, args...)...)
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("flowpin %s on %s: %w: %s%s", strings.Join(args, " "), node, err, out, wrong.Bytes())
	}
	return string(out), err
}

// everywhere runs Flowpin's command line on all nodes.
func (b *bench) everywhere(args ...string) error {
	for n := 1; n <= b.Nodes; n++ {
		if _, err := b.flowpin(nodeName(n), args...); err != nil {
			return err
		}
	}
	return nil
}

// serves says whether Flowpin on node 1 has a Service of the workspace.
func (b *bench) serves(name string) (bool, error) {
	out, err := b.flowpin(nodeName(1), "service", "list", "--namespace", workspace)
	return slices.ContainsFunc(strings.Fields(out), func(word string) bool {
		word, _, _ = strings.Cut(word, ":")
		return word == workspace+"/"+name || word == name
	}), err
}

// manual makes a Service without a selector, whose endpoint is the API server's own port.
func (b *bench) manual(name string) (target string, err error) {
	service, slice := objects(name, 80, apiPort)
	slice.Endpoints = append(slice.Endpoints, ready(b.addresses(controlHost)[0]))
	if service, err = b.api.CoreV1().Services(workspace).Create(b.ctx, service, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	_, err = b.api.DiscoveryV1().EndpointSlices(workspace).Create(b.ctx, slice, metav1.CreateOptions{})
	return net.JoinHostPort(service.Spec.ClusterIP, "80"), err
}

// removeManual takes it away again.
func (b *bench) removeManual(name string) error {
	return errors.Join(
		b.api.DiscoveryV1().EndpointSlices(workspace).Delete(b.ctx, name, metav1.DeleteOptions{}),
		b.api.CoreV1().Services(workspace).Delete(b.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}))
}

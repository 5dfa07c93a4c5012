package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
)

func (c *Cluster) restConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig())
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 1000, 2000
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return config, nil
}

func (c *Cluster) kubernetes() (*kubernetes.Clientset, error) {
	config, err := c.restConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

func (c *Cluster) apiReady() error {
	api, err := c.kubernetes()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = api.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}

// furnish does what an installer does once the API server answers: gives nodes their pods' addresses, makes the Service of DNS, and waits until nodes
// are ready. It runs in the control plane's network.
func (c *Cluster) furnish() error {
	if err := eventually(asked, patience, c.apiReady); err != nil {
		return err
	}
	api, err := c.kubernetes()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	if err := c.nameService(ctx, api); err != nil {
		return fmt.Errorf("the Service of DNS: %w", err)
	}
	for n := 1; n <= c.Nodes; n++ {
		cidrs := ""
		for i, prefix := range c.families(podsOf(n)) {
			if i > 0 {
				cidrs += ","
			}
			cidrs += fmt.Sprintf("%q", prefix.String())
		}
		patch := fmt.Appendf(nil, `{"spec":{"podCIDR":%q,"podCIDRs":[%s]}}`, podsOf(n).v4.String(), cidrs)
		// The kubelet makes the object when it is there.
		err := eventually(asked, patience, func() error {
			_, err := api.CoreV1().Nodes().Patch(ctx, nodeName(n), types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w; its logs are in %s", nodeName(n), err, c.of(nodeName(n), "log"))
		}
	}
	// Pods need their namespace's account, too.
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		nodes, err := api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, nil
		}
		ready := 0
		for _, node := range nodes.Items {
			for _, condition := range node.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		_, err = api.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return ready == c.Nodes && err == nil, nil
	})
}

// nameService makes kube-dns, whose one endpoint is the control plane: pods reach it by way of the service proxy under test.
func (c *Cluster) nameService(ctx context.Context, api kubernetes.Interface) error {
	const namespace, name = metav1.NamespaceSystem, "kube-dns"
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"k8s-app": name}},
		Spec: corev1.ServiceSpec{ClusterIP: dnsService.String(), Ports: []corev1.ServicePort{
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
		}},
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{c.addresses(controlHost)[0].String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
	}
	for _, port := range service.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: ptr.To(port.Name), Port: ptr.To(port.Port), Protocol: ptr.To(port.Protocol)})
	}
	err := eventually(asked, patience, func() error {
		_, err := api.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	_, err = api.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{})
	return err
}

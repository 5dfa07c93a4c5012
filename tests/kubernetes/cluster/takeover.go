package main

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// many connections, a third from each place.
	many = 300
	// fewPods of the workload, one on each node.
	fewPods = 3
)

// openByKubeProxy makes the workload and opens connections to it.
func (c *Cluster) openByKubeProxy() (*bench, cohort, error) {
	b, err := c.furnishBench(fewPods)
	if err != nil {
		return nil, cohort{}, err
	}
	if err := b.until("kube-proxy serves it", b.answers); err != nil {
		return nil, cohort{}, err
	}
	before, _, err := b.cohort("by kube-proxy", many)
	return b, before, err
}

// takeOver follows docs/kubernetes.md, with connections open from before each step.
func takeOver(c *Cluster, t trial) error {
	b, before, err := c.openByKubeProxy()
	if err != nil {
		return err
	}
	if err := c.install(t.chart, t.image, t.mode, "config.stray=pass"); err != nil {
		return err
	}
	if err := unharmed("Flowpin came", before); err != nil {
		return err
	}
	if err := c.kubeProxyDown(); err != nil {
		return err
	}
	if err := b.everywhere("cleanup", "kube-proxy", "--yes"); err != nil {
		return err
	}
	during, told, err := b.cohort("by Flowpin", many)
	if err != nil {
		return err
	}
	if err := told.even(fewPods); err != nil {
		return err
	}
	if err := unharmed("kube-proxy and its rules went", before, during); err != nil {
		return err
	}
	if err := c.kubeProxyUp(t.kubeProxy); err != nil {
		return err
	}
	if err := b.everywhere("detach", "--hand-over"); err != nil {
		return err
	}
	after, _, err := b.cohort("by kube-proxy again", many)
	if err != nil {
		return err
	}
	if err := unharmed("Flowpin handed over", before, during, after); err != nil {
		return err
	}
	if _, err := during.order("close"); err != nil {
		return err
	}
	// What was Flowpin's has ended: its programs leave.
	if err := b.everywhere("detach", "--hand-over", "--wait"); err != nil {
		return err
	}
	if err := c.uninstall(); err != nil {
		return err
	}
	return unharmed("Flowpin was uninstalled", before, after)
}

// byLabel gives one Service to Flowpin and takes it back, beside a kube-proxy that has the others.
func byLabel(c *Cluster, t trial) error {
	b, before, err := c.openByKubeProxy()
	if err != nil {
		return err
	}
	if err := c.install(t.chart, t.image, t.mode, "config.stray=pass", "serviceProxyName="+flowpin); err != nil {
		return err
	}
	if err := b.label(`"` + flowpin + `"`); err != nil {
		return err
	}
	if err := b.until("Flowpin serves it", func() (bool, error) { return b.serves(workload) }); err != nil {
		return err
	}
	during, told, err := b.cohort("by Flowpin", many)
	if err != nil {
		return err
	}
	if err := told.even(fewPods); err != nil {
		return err
	}
	if err := unharmed("the label was set", before, during); err != nil {
		return err
	}
	if err := b.label("null"); err != nil {
		return err
	}
	err = b.until("kube-proxy serves it", func() (bool, error) {
		served, err := b.serves(workload)
		if err != nil || served {
			return false, err
		}
		return b.answers()
	})
	if err != nil {
		return err
	}
	after, _, err := b.cohort("by kube-proxy again", many)
	if err != nil {
		return err
	}
	return unharmed("the label was taken off", before, during, after)
}

// label sets the label of the workload's Service by which kube-proxy leaves it alone; null takes it off.
func (b *bench) label(value string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{"service.kubernetes.io/service-proxy-name":%s}}}`, value)
	_, err := b.api.CoreV1().Services(workspace).Patch(b.ctx, workload, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// answers says whether somebody serves the workload's Service at node 1.
func (b *bench) answers() (bool, error) {
	connection, _, _, err := dialAndAsk(b.nodePort)
	if err == nil {
		connection.Close()
	}
	return err == nil, nil
}

// until waits for something to become true.
func (b *bench) until(what string, look func() (bool, error)) error {
	return eventually(b.ctx, time.Minute, func() error {
		ok, err := look()
		if err == nil && !ok {
			err = fmt.Errorf("not within a minute: %s", what)
		}
		return err
	})
}

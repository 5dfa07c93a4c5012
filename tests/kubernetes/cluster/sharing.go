package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// sharing has the agents find each other by the chart's Service, and asks each what it knows of connections that open by way of node 1.
func sharing(c *Cluster, t trial) error {
	b, err := c.furnishBench(fewPods)
	if err != nil {
		return err
	}
	if err := c.install(t.chart, t.image, t.mode); err != nil {
		return err
	}
	if err := b.handOutKeys(); err != nil {
		return err
	}
	if err := c.install(t.chart, t.image, t.mode, "cluster.enabled=true", "cluster.name="+flowpin); err != nil {
		return err
	}
	if err := b.knowEachOther(); err != nil {
		return err
	}
	open, told, err := b.cohort("when counts are shared", many)
	if err != nil {
		return err
	}
	if err := told.even(fewPods); err != nil {
		return err
	}
	for n := 1; n <= c.Nodes; n++ {
		// With its first connection, however short, a node begins to listen.
		if err := b.run(nodeName(n), "curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "http://"+b.cluster+"/"); err != nil {
			return err
		}
	}
	for n := 1; n <= c.Nodes; n++ {
		err := eventually(b.ctx, patience, func() error {
			view, err := b.shared(nodeName(n))
			if err == nil && view.connections() != open.count {
				err = fmt.Errorf("%s knows of %d connections over all nodes, of %d", nodeName(n), view.connections(), open.count)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	fmt.Printf("%d nodes know each other by the chart's Service, and each of %d connections by way of node 1\n", c.Nodes, open.count)
	return unharmed("all nodes know of them", open)
}

// handOutKeys makes certificates at node 1 and puts them where the chart looks for them. Each node has those of all: they are only tried here.
func (b *bench) handOutKeys() error {
	args := []string{"cluster", "keygen", "/var/lib/flowpin/tls", "--cluster", flowpin}
	for n := 1; n <= b.Nodes; n++ {
		args = append(args, nodeName(n))
	}
	if _, err := b.flowpin(nodeName(1), args...); err != nil {
		return err
	}
	packed, err := b.on(nodeName(1), "tar", "--create", "--directory", "/var/lib/flowpin", "tls")
	if err != nil {
		return err
	}
	keys, err := packed.Output()
	if err != nil {
		return fmt.Errorf("the keys of %s: %w", nodeName(1), err)
	}
	for n := 2; n <= b.Nodes; n++ {
		unpack, err := b.on(nodeName(n), "tar", "--extract", "--directory", "/var/lib/flowpin")
		if err != nil {
			return err
		}
		unpack.Stdin = bytes.NewReader(keys)
		if out, err := unpack.CombinedOutput(); err != nil {
			return fmt.Errorf("keys for %s: %w: %s", nodeName(n), err, out)
		}
	}
	return nil
}

// knowEachOther waits until each agent is connected to all.
func (b *bench) knowEachOther() error {
	return eventually(b.ctx, patience, func() error {
		for n := 1; n <= b.Nodes; n++ {
			view, err := b.shared(nodeName(n))
			if err == nil && len(view.Members) != b.Nodes {
				err = fmt.Errorf("%s knows %d of %d nodes; not reached: %v", nodeName(n), len(view.Members), b.Nodes, view.Unreachable)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// sharedView is what an agent says of the nodes that share counts.
type sharedView struct {
	Members     []struct{ Name string }
	Unreachable []any
	Services    []struct {
		Name     string
		Backends []struct{ Own, Others *int }
	}
}

func (b *bench) shared(node string) (sharedView, error) {
	view := sharedView{}
	out, err := b.flowpin(node, "cluster", "-o", "json")
	return view, errors.Join(err, json.Unmarshal([]byte(out), &view))
}

// connections gives those of the workload's Service over all nodes, -1 if that isn't known.
func (v sharedView) connections() int {
	sum := -1
	for _, service := range v.Services {
		for _, backend := range service.Backends {
			if backend.Own == nil || backend.Others == nil {
				return -1
			}
			if sum < 0 {
				sum = 0
			}
			sum += *backend.Own + *backend.Others
		}
	}
	return sum
}

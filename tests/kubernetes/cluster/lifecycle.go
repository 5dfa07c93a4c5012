package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// machineSysctls are the machine's and not a namespace's; kubelets set them.
var machineSysctls = []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}

// up boots the cluster and returns when its nodes are ready. If it can't, what runs is left for a look; down removes it.
func (c *Cluster) up(kubeProxy string) error {
	if _, err := c.load(); err == nil {
		return errors.New("a cluster is up already: cluster down")
	}
	for _, name := range []string{"containerd", "kubelet", "e2e.test"} {
		if _, err := os.Stat(c.bin(name)); err != nil {
			return fmt.Errorf("%s isn't built: cluster build", name)
		}
	}
	began := time.Now()
	if err := os.MkdirAll(c.state(), 0o700); err != nil {
		return err
	}
	c.Sysctls = map[string]string{}
	for _, name := range machineSysctls {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", name)); err == nil {
			c.Sysctls[name] = strings.TrimSpace(string(value))
		}
	}
	if err := c.credentials(); err != nil {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := c.networkUp(); err != nil {
		return err
	}
	if err := c.cgroupsUp(); err != nil {
		return err
	}
	if err := c.start("control", control, "control"); err != nil {
		return err
	}
	mode := kubeProxy
	if mode == "" {
		mode = "iptables"
	}
	for n := 1; n <= c.Nodes; n++ {
		if err := c.writeNodeFiles(n, mode); err != nil {
			return err
		}
		if err := c.start(nodeName(n), prefix+nodeName(n), "node", fmt.Sprint(n)); err != nil {
			return err
		}
	}
	if err := inNamespace(control, func() error { return c.helper("furnish") }); err != nil {
		return fmt.Errorf("nodes aren't ready: %w; logs are in %s", err, c.state())
	}
	if err := c.background("balancer", router, "inside", "balancer"); err != nil {
		return err
	}
	if kubeProxy != "" {
		if err := c.kubeProxyUp(kubeProxy); err != nil {
			return err
		}
	}
	fmt.Printf("%d nodes are ready after %.1f s\n", c.Nodes, time.Since(began).Seconds())
	return nil
}

// helper runs this program again, in the network namespace of the thread that calls: threads of the Go runtime are in the first one.
func (c *Cluster) helper(args ...string) error {
	cmd, err := c.insideHere(foreground, args...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// kubeProxyRules tells, by mode, whether kube-proxy has written its first rules of both IP versions. Its health port doesn't: where Flowpin is,
// Flowpin may answer there.
var kubeProxyRules = map[string]string{
	"iptables": "iptables-save --table nat | grep -q default/kubernetes:https && ip6tables-save --table nat | grep -q KUBE-NODEPORTS",
	"nftables": "nft list table ip kube-proxy | grep -q default/kubernetes/tcp/https && nft list table ip6 kube-proxy >/dev/null",
}

// kubeProxyUp starts kube-proxy on every node, in this mode.
func (c *Cluster) kubeProxyUp(mode string) error {
	for n := 1; n <= c.Nodes; n++ {
		name := nodeName(n)
		if err := c.writeNodeFiles(n, mode); err != nil {
			return err
		}
		cmd, err := c.on(name, "setsid", "--fork", "sh", "-c", `exec kube-proxy --config "$0" --v=2 >"$1" 2>&1 </dev/null`,
			c.of(name, "kube-proxy.yaml"), c.of(name, "log", "kube-proxy.log"))
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("kube-proxy on %s: %w: %s", name, err, out)
		}
	}
	for n := 1; n <= c.Nodes; n++ {
		err := eventually(asked, patience, func() error {
			cmd, err := c.on(nodeName(n), "sh", "-c", kubeProxyRules[mode])
			if err != nil {
				return err
			}
			return cmd.Run()
		})
		if err != nil {
			return fmt.Errorf("kube-proxy on %s has no rules: %w", nodeName(n), err)
		}
	}
	return nil
}

// kubeProxyDown ends kube-proxy on every node. Its rules stay, as they do when its DaemonSet is deleted.
func (c *Cluster) kubeProxyDown() error {
	for n := 1; n <= c.Nodes; n++ {
		cmd, err := c.on(nodeName(n), "pkill", "--exact", "kube-proxy")
		if err != nil {
			return err
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("no kube-proxy on %s: %w", nodeName(n), err)
		}
	}
	return nil
}

// down ends everything that up started, and leaves the machine as it was; what is built stays.
func (p paths) down() error {
	cluster, err := p.load()
	if err != nil && !errors.Is(err, errNoCluster) {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	if err := networkDown(); err != nil {
		return err
	}
	// Processes that were killed leave their groups a moment later.
	if err := eventually(context.Background(), 10*time.Second, cgroupsDown); err != nil {
		return err
	}
	if cluster != nil {
		for _, name := range slices.Sorted(maps.Keys(cluster.Sysctls)) {
			if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(cluster.Sysctls[name]), 0); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(p.state())
}

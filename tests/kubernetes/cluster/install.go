package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// modes are the ways of attaching that the tests are run with, as values of the chart.
var modes = map[string][]string{
	// Interfaces are found by themselves, and the node's own processes are led at their sockets.
	"tc":      {"config.sockets=host"},
	"sockets": {"config.sockets=all"},
	"xdp": {"config.sockets=host", "config.interfaces[0].match=eth0", "config.interfaces[0].attach=xdp",
		"config.interfaces[1].match=veth*", "config.interfaces[1].attach=tc"},
}

const (
	// flowpin is the release of the chart, and its DaemonSet.
	flowpin = "flowpin"
	// repository is no registry's: the nodes have the image, or it isn't there.
	repository = "localhost/flowpin"
)

// install gives the nodes Flowpin's image and installs the chart, both as they are shipped, with further values of the chart.
func (c *Cluster) install(chart, image, mode string, more ...string) error {
	values, ok := modes[mode]
	if !ok {
		return fmt.Errorf("no mode %q; tc, sockets or xdp", mode)
	}
	// A node has another working directory.
	image, err := filepath.Abs(image)
	if err != nil {
		return err
	}
	for n := 1; n <= c.Nodes; n++ {
		// Of an archive with nothing of this name in it ctr says nothing, and of others not always.
		const script = `ctr --namespace k8s.io images import --base-name "$0" "$1" && ctr --namespace k8s.io images list --quiet | grep "^$0:"`
		cmd, err := c.on(nodeName(n), "sh", "-c", script, repository, image)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nothing was imported as %s on %s: %w: %s", repository, nodeName(n), err, out)
		}
	}
	// The three nodes share a kernel: what is attached to cgroups goes to the node's part of them.
	values = append([]string{"image.repository=" + repository, "image.pullPolicy=Never", "apiServers={" + c.server() + "}", "hostPaths.cgroup2=" + nodeCgroup, "logLevel=info"}, values...)
	values = append(values, more...)
	args := []string{"upgrade", "--install", flowpin, chart, "--namespace", "kube-system", "--kubeconfig", c.kubeconfig()}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	if err := c.outside(c.bin("helm"), args...); err != nil {
		return err
	}
	err = c.outside(c.bin("kubectl"), "--kubeconfig", c.kubeconfig(), "--namespace", "kube-system", "rollout", "status", "daemonset/"+flowpin,
		"--timeout", patience.String())
	if err != nil {
		c.explain()
	}
	return err
}

// uninstall removes the release and waits until its pods are gone.
func (c *Cluster) uninstall() error {
	return c.outside(c.bin("helm"), "uninstall", flowpin, "--namespace", "kube-system", "--kubeconfig", c.kubeconfig(), "--wait")
}

// explain prints what there is to know of agents that don't get ready.
func (c *Cluster) explain() {
	for _, args := range [][]string{
		{"describe", "pods", "--selector", "app.kubernetes.io/name=flowpin"},
		{"logs", "--selector", "app.kubernetes.io/name=flowpin", "--prefix", "--tail", "40"},
	} {
		// They only add to an error that is told anyway.
		_ = c.outside(c.bin("kubectl"), append([]string{"--kubeconfig", c.kubeconfig(), "--namespace", "kube-system"}, args...)...)
	}
}

// agentLogs writes the agents' logs beside the tests' results.
func (c *Cluster) agentLogs(out string) error {
	for n := 1; n <= c.Nodes; n++ {
		files, err := filepath.Glob(c.of(nodeName(n), "pods", "kube-system_flowpin-*", "agent", "*.log"))
		if err != nil {
			return err
		}
		var text strings.Builder
		for _, file := range files {
			part, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) {
				continue
			} else if err != nil {
				return err
			}
			text.Write(part)
		}
		if text.Len() > 0 {
			if err := os.WriteFile(filepath.Join(out, nodeName(n)+".log"), []byte(text.String()), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// outside runs a command of this machine in the network of the outside client, its output shown.
func (c *Cluster) outside(name string, args ...string) error {
	cmd := foreground(name, args...)
	cmd.Env = append(cmd.Env, "KUBECONFIG="+c.kubeconfig())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return inNamespace(client, cmd.Run)
}

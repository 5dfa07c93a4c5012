package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed files
var files embed.FS

// nodeFiles are written before a node starts, by where they go below its directory.
var nodeFiles = map[string]string{
	"containerd.toml":                "containerd.toml",
	"kubelet.yaml":                   "kubelet.yaml",
	"kube-proxy.yaml":                "kube-proxy.yaml",
	"etc/cni/net.d/10-test.conflist": "cni.conflist",
	"etc/resolv.conf":                "resolv.conf",
	"etc/hosts":                      "hosts",
	// Of all registries.
	"etc/containerd/certs.d/_default/hosts.toml": "registry.toml",
}

// node is what the files are made from.
type node struct {
	Name, Group, DNS, Bridge, KubeProxyMode, Kubeconfig, Authority string
	Address                                                        netip.Addr
	Pods, AllPods                                                  []netip.Prefix
	Control                                                        netip.Addr
	Dual                                                           bool
}

func (c *Cluster) writeNodeFiles(n int, mode string) error {
	name := nodeName(n)
	values := node{
		Name: name, Group: "/" + cgroupTop + "/" + name, DNS: dnsService.String(), KubeProxyMode: mode, Kubeconfig: c.kubeconfig(), Authority: c.of("control", "pki", "ca.crt"),
		Address: c.addresses(nodeHost(n))[0], Pods: c.families(podsOf(n)), AllPods: c.families(pods),
		Control: c.addresses(controlHost)[0], Dual: c.Dual,
	}
	if c.CNI == "bridge" {
		values.Bridge = "cni0"
	}
	for path, source := range nodeFiles {
		text, err := render(source, values)
		if err != nil {
			return err
		}
		path = c.of(name, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{"kubelet", "containerd", "cni", "pods", "etc.work", "var", "var.work"} {
		if err := os.MkdirAll(c.of(name, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.of(name, "etc", "hostname"), []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	return os.WriteFile(c.of(name, "etc", "machine-id"), fmt.Appendf(nil, "%032x\n", 0xf10000+n), 0o644)
}

func render(name string, values any) ([]byte, error) {
	functions := template.FuncMap{"join": func(prefixes []netip.Prefix) string {
		texts := []string{}
		for _, prefix := range prefixes {
			texts = append(texts, prefix.String())
		}
		return strings.Join(texts, ",")
	}}
	parsed, err := template.New(name).Funcs(functions).ParseFS(files, "files/"+name)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = parsed.Execute(&text, values)
	return text.Bytes(), err
}

// insideNode is the first process of a node: it makes the node's file systems its own, then runs containerd and kubelet.
func (c *Cluster) insideNode(n int) error {
	name := nodeName(n)
	group, daemons, err := unifiedGroup(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(daemons, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	if err := c.nodeMounts(name, group); err != nil {
		return err
	}
	programs := newSupervisor()
	logs := func(of string) string { return c.of(name, "log", of+".log") }
	if err := programs.daemon(logs("containerd"), "containerd", "--config", c.of(name, "containerd.toml")); err != nil {
		return err
	}
	if err := answers("/run/containerd/containerd.sock"); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(c.images(), "*.tar"))
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := programs.run(logs("images"), "ctr", "--namespace", "k8s.io", "images", "import", image); err != nil {
			return err
		}
	}
	addresses := []string{}
	for _, address := range c.addresses(nodeHost(n)) {
		addresses = append(addresses, address.String())
	}
	err = programs.daemon(logs("kubelet"), "kubelet", "--config", c.of(name, "kubelet.yaml"), "--kubeconfig", c.kubeconfig(),
		"--hostname-override", name, "--node-ip", strings.Join(addresses, ","), "--v=2",
		fmt.Sprintf("--node-labels=topology.kubernetes.io/region=test,topology.kubernetes.io/zone=zone-%d", (n-1)%c.Zones+1))
	if err != nil {
		return err
	}
	log.Print("containerd and kubelet run")
	select {}
}

// nodeMounts gives the node /proc, /sys, /run and bpffs of its own, and its own files where the daemons of all nodes would share the machine's.
func (c *Cluster) nodeMounts(name, group string) error {
	steps := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", 0, ""},
		{"tmpfs", "/run", "tmpfs", 0, "mode=755"},
		// A sysfs that shows the node's interfaces, with the machine's cgroups in their place.
		{"/sys/fs/cgroup", "/run/machine-cgroup", "", unix.MS_BIND | unix.MS_REC, ""},
		{"sysfs", "/sys", "sysfs", 0, ""},
		{"/run/machine-cgroup", "/sys/fs/cgroup", "", unix.MS_BIND | unix.MS_REC, ""},
		{group, nodeCgroup, "", unix.MS_BIND, ""},
		{"bpf", "/sys/fs/bpf", "bpf", 0, "mode=700"},
		// What the node writes into these stays in its own directory.
		{"overlay", "/etc", "overlay", 0, fmt.Sprintf("lowerdir=/etc,upperdir=%s,workdir=%s", c.of(name, "etc"), c.of(name, "etc.work"))},
		{"overlay", "/var", "overlay", 0, fmt.Sprintf("lowerdir=/var,upperdir=%s,workdir=%s", c.of(name, "var"), c.of(name, "var.work"))},
		// Layers of containers are overlays themselves, which don't lie on one.
		{c.of(name, "kubelet"), "/var/lib/kubelet", "", unix.MS_BIND, ""},
		{c.of(name, "containerd"), "/var/lib/containerd", "", unix.MS_BIND, ""},
		{c.of(name, "cni"), "/var/lib/cni", "", unix.MS_BIND, ""},
		{c.of(name, "pods"), "/var/log/pods", "", unix.MS_BIND, ""},
		// Volumes that pods mount are seen by the kubelet, and the other way round.
		{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""},
	}
	for _, step := range steps {
		if step.target != "/" {
			if err := os.MkdirAll(step.target, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(step.source, step.target, step.kind, step.flags, step.data); err != nil {
			return fmt.Errorf("mount %s %s: %w", step.kind, step.target, err)
		}
	}
	if err := unix.Unmount("/run/machine-cgroup", unix.MNT_DETACH); err != nil {
		return err
	}
	for _, dir := range []string{"/run/netns", "/run/lock", "/run/cni"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// answers waits until somebody accepts connections at a Unix socket.
func answers(path string) error {
	return eventually(asked, patience, func() error {
		connection, err := net.Dial("unix", path)
		if err == nil {
			connection.Close()
		}
		return err
	})
}

// eventually tries until there is no error, time is up, or the context is done.
func eventually(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

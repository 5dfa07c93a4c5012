package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// networkUp makes the namespaces and what joins them:
//
//	client ── router ─┬─ control
//	                  ├─ node-1 ── pods
//	                  └─ node-2 ── pods
//
// The router is a bridge for the machines and a router to the client. No route leads out of it: what runs in here can't leave the machine.
func (c *Cluster) networkUp() error {
	if err := ip("netns add "+router, "netns add "+control, "netns add "+client); err != nil {
		return err
	}
	v4, v6 := underlay.host(routerHost)
	err := ipIn(router, "link set lo up", "link add machines type bridge", "link set machines up",
		"addr add "+v4.String()+" dev machines", "addr add "+v6.String()+" dev machines nodad")
	if err != nil {
		return err
	}
	// Equal-cost routes by ports as well: the load balancer's way.
	err = sysctl(router, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1", "net/ipv4/conf/all/send_redirects=0",
		"net/ipv4/conf/machines/send_redirects=0", "net/ipv4/fib_multipath_hash_policy=1", "net/ipv6/fib_multipath_hash_policy=1")
	if err != nil {
		return err
	}
	if err := c.join(control, "control", underlay, controlHost, routerHost); err != nil {
		return err
	}
	for n := 1; n <= c.Nodes; n++ {
		if err := ip("netns add " + prefix + nodeName(n)); err != nil {
			return err
		}
		if err := c.join(prefix+nodeName(n), nodeName(n), underlay, nodeHost(n), routerHost); err != nil {
			return err
		}
		if err := sysctl(prefix+nodeName(n), "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"); err != nil {
			return err
		}
	}
	if err := c.join(client, "client", outside, clientHost, routerHost); err != nil {
		return err
	}
	v4, v6 = outside.host(routerHost)
	if err := ipIn(router, "addr add "+v4.String()+" dev client", "addr add "+v6.String()+" dev client nodad"); err != nil {
		return err
	}
	// Every machine knows which node has which pods.
	for n := 1; n <= c.Nodes; n++ {
		v4, v6 := underlay.host(nodeHost(n))
		mine := podsOf(n)
		routes := []string{"route add " + mine.v4.String() + " via " + v4.Addr().String(), "-6 route add " + mine.v6.String() + " via " + v6.Addr().String()}
		others := []string{router, control}
		for m := 1; m <= c.Nodes; m++ {
			if m != n {
				others = append(others, prefix+nodeName(m))
			}
		}
		for _, other := range others {
			if err := ipIn(other, routes...); err != nil {
				return err
			}
		}
	}
	return nil
}

// join gives a namespace an eth0 with an address, whose other end is this port of the router.
func (c *Cluster) join(namespace, port string, network pair, host, gateway byte) error {
	steps := []string{"link add " + port + " type veth peer name eth0 netns " + namespace, "link set " + port + " up"}
	if network == underlay {
		steps = append(steps, "link set "+port+" master machines")
	}
	if err := ipIn(router, steps...); err != nil {
		return err
	}
	// A veth takes what its peer's XDP program sends back only so.
	if err := command("ip", "netns", "exec", router, "ethtool", "-K", port, "gro", "on").Run(); err != nil {
		return fmt.Errorf("ethtool -K %s gro on: %w", port, err)
	}
	err := sysctl(namespace, "net/ipv6/conf/all/accept_dad=0", "net/ipv6/conf/default/accept_dad=0", "net/ipv6/conf/eth0/accept_dad=0",
		"net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/default/rp_filter=0", "net/ipv4/conf/eth0/rp_filter=0",
		"net/ipv4/conf/all/send_redirects=0", "net/ipv4/conf/eth0/send_redirects=0", "net/ipv4/conf/eth0/accept_redirects=0")
	if err != nil {
		return err
	}
	four, six := network.host(host)
	via4, via6 := network.host(gateway)
	return ipIn(namespace, "link set lo up", "addr add "+four.String()+" dev eth0", "addr add "+six.String()+" dev eth0 nodad", "link set eth0 up",
		"route add default via "+viaOf(via4), "-6 route add default via "+viaOf(via6))
}

func viaOf(prefix netip.Prefix) string { return prefix.Addr().String() }

// networkDown removes the namespaces of any cluster of ours, and with them all that is in them.
func networkDown() error {
	entries, err := os.ReadDir("/run/netns")
	if os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			if err := ip("netns del " + entry.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// ip runs commands of iproute2, each a line.
func ip(lines ...string) error { return ipIn("", lines...) }

func ipIn(namespace string, lines ...string) error {
	for _, line := range lines {
		args := strings.Fields(line)
		if namespace != "" {
			args = append([]string{"-n", namespace}, args...)
		}
		if out, err := command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// sysctl writes what is below /proc/sys/net in a namespace. The files show the namespace of whoever opens them.
func sysctl(namespace string, settings ...string) error {
	return inNamespace(namespace, func() error {
		for _, setting := range settings {
			name, value, _ := strings.Cut(setting, "=")
			if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
				return fmt.Errorf("in %s: %w", namespace, err)
			}
		}
		return nil
	})
}

// inNamespace runs f on a thread of its own in a network namespace; processes that f starts are there too.
func inNamespace(namespace string, f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and its namespace with it.
		runtime.LockOSThread()
		done <- func() error {
			file, err := os.Open("/run/netns/" + namespace)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("%s: %w", namespace, err)
			}
			return f()
		}()
	}()
	return <-done
}

// command is one without the proxies that the machine's environment may name: nothing in here is reached by way of one.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = environment()
	return cmd
}

// asked is done when somebody wants a test to end: what waits then stops, and the cluster is removed.
var asked = context.Background()

// foreground is a command that is interrupted when somebody wants a test to end.
func foreground(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(asked, name, args...)
	cmd.Env = environment()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

func environment(more ...string) []string {
	kept := []string{}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch strings.ToLower(name) {
		case "http_proxy", "https_proxy", "no_proxy", "all_proxy":
		default:
			kept = append(kept, variable)
		}
	}
	return append(kept, more...)
}

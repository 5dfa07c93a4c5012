package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// kills of every agent: the kubelet waits longer each time before it starts a container again.
	kills = 2
	// capabilities of the DaemonSet, as bits of CapEff: NET_ADMIN 12, NET_RAW 13, PERFMON 38, BPF 39.
	capabilities = uint64(1<<12 | 1<<13 | 1<<38 | 1<<39)
	// convergence is how soon after the API server's return all is as it says.
	convergence = 5 * time.Second
)

// kill ends the agents by SIGKILL, with connections open and new ones coming.
func kill(c *Cluster, t trial) error {
	b, err := c.furnishBench(fewPods)
	if err != nil {
		return err
	}
	if err := c.install(t.chart, t.image, t.mode); err != nil {
		return err
	}
	if err := b.confined(); err != nil {
		return err
	}
	open, err := b.traffic()
	if err != nil {
		return err
	}
	for range kills {
		for n := 1; n <= c.Nodes; n++ {
			if err := c.run(nodeName(n), "pkill", "--signal", "KILL", "--exact", flowpin); err != nil {
				return fmt.Errorf("no agent to kill: %w", err)
			}
		}
		if err := eventually(b.ctx, patience, func() error { return b.everywhere("status") }); err != nil {
			return fmt.Errorf("agents that were killed: %w", err)
		}
		if err := unharmed("agents were killed", open); err != nil {
			return err
		}
	}
	return open.sum()
}

// traffic opens connections that stay, and short ones for as long as it is tried.
func (b *bench) traffic() (cohort, error) {
	open, _, err := b.cohort("before", many)
	if err == nil {
		_, err = open.order("churn")
	}
	return open, err
}

// sum says how many short connections there were in all, if none was refused.
func (c cohort) sum() error {
	told, err := c.order("tell")
	if err == nil {
		err = told.whole(c.count)
	}
	if err != nil {
		return err
	}
	fmt.Printf("%d short connections meanwhile, 0 refused\n", told.Short)
	return nil
}

// confined says whether the agents have the capabilities that the chart asks for and no other, and a root that can't be written to.
func (b *bench) confined() error {
	for n := 1; n <= b.Nodes; n++ {
		cmd, err := b.on(nodeName(n), "sh", "-c", `p=$(pidof flowpin) && grep CapEff /proc/$p/status && grep " / / " /proc/$p/mountinfo || grep " / " /proc/$p/mountinfo`)
		if err != nil {
			return err
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("the agent's process on %s: %w: %s", nodeName(n), err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var has uint64
		if _, err := fmt.Sscanf(lines[0], "CapEff: %x", &has); err != nil || has != capabilities {
			return fmt.Errorf("the agent on %s has capabilities %q and not %x", nodeName(n), lines[0], capabilities)
		}
		root := slices.IndexFunc(lines[1:], func(line string) bool {
			fields := strings.Fields(line)
			return len(fields) > 5 && fields[4] == "/" && slices.Contains(strings.Split(fields[5], ","), "ro")
		})
		if root < 0 {
			return fmt.Errorf("the agent's root on %s can be written to: %q", nodeName(n), lines)
		}
	}
	fmt.Printf("capabilities %x and a read-only root on %d nodes\n", capabilities, b.Nodes)
	return nil
}

// outage keeps the agents from the API server in several ways, and changes objects meanwhile.
func outage(c *Cluster, t trial) error {
	b, err := c.furnishBench(fewPods)
	if err != nil {
		return err
	}
	way, url, err := c.relay()
	if err != nil {
		return err
	}
	if err := c.install(t.chart, t.image, t.mode, "apiServers={"+url+"}"); err != nil {
		return err
	}
	open, err := b.traffic()
	if err != nil {
		return err
	}
	old, err := b.manual("change-0")
	if err == nil {
		err = b.agrees(old, "", 30*time.Second)
	}
	if err != nil {
		return err
	}
	for i, fault := range []struct {
		name, mode string
		length     time.Duration
		meanwhile  func() error
	}{
		{"nobody listens", "refuse", t.outage, nil},
		{"nothing comes through", "silent", t.outage, nil},
		{"answers break off", "half", t.outage, nil},
		{"it has forgotten", "refuse", 0, b.forget},
	} {
		if err := way.order(fault.mode); err != nil {
			return err
		}
		began := time.Now()
		name := fmt.Sprintf("change-%d", i+1)
		current, err := b.manual(name)
		if err == nil {
			err = b.removeManual(fmt.Sprintf("change-%d", i))
		}
		if err == nil && fault.meanwhile != nil {
			err = fault.meanwhile()
		}
		if err != nil {
			return err
		}
		select {
		case <-asked.Done():
			return context.Cause(asked)
		case <-time.After(fault.length - time.Since(began)):
		}
		// Nothing has told the agents of it: what was there is there.
		if err := b.agrees(old, current, 0); err != nil {
			return fmt.Errorf("%s: meanwhile: %w", fault.name, err)
		}
		if err := way.order("pass"); err != nil {
			return err
		}
		back, was := time.Now(), time.Since(began)
		if err := b.agrees(current, old, convergence); err != nil {
			return fmt.Errorf("%s for %.0f s: %w", fault.name, was.Seconds(), err)
		}
		fmt.Printf("%s for %.0f s: all is as it says %.1f s after its return\n", fault.name, was.Seconds(), time.Since(back).Seconds())
		if err := unharmed(fault.name, open); err != nil {
			return err
		}
		old = current
	}
	return open.sum()
}

// agrees waits until one address is served on node 1 and another isn't; without a limit it looks once.
func (b *bench) agrees(served, refused string, limit time.Duration) error {
	dial := func(target string) error {
		cmd, err := b.insideOn(nodeName(1), nil, "dial", target)
		if err != nil {
			return err
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
		}
		return err
	}
	return eventually(b.ctx, limit, func() error {
		if err := dial(served); err != nil {
			return fmt.Errorf("%s isn't served: %w", served, err)
		}
		if refused != "" && dial(refused) == nil {
			return fmt.Errorf("%s is served", refused)
		}
		return nil
	})
}

// dial says whether somebody accepts connections.
func dial(target string) error {
	connection, err := net.DialTimeout("tcp", target, 500*time.Millisecond)
	if err == nil {
		connection.Close()
	}
	return err
}

// forget makes the API server start anew, with a history that has nothing of before in it.
func (b *bench) forget() error {
	return errors.Join(inNamespace(control, func() error { return b.helper("compact") }), b.restartServer())
}

// compact runs in the control plane's network.
func compact() error {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:2379"}, DialTimeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	now, err := client.Get(ctx, "any")
	if err != nil {
		return err
	}
	_, err = client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	return err
}

// restartServer ends the API server by SIGKILL and starts it as it was.
func (b *bench) restartServer() error {
	cmd, err := b.on("control", "sh", "-c", `p=$(pgrep --exact kube-apiserver) && tr "\0" "\n" </proc/$p/cmdline && kill -KILL $p`)
	if err != nil {
		return err
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("no API server to kill: %w", err)
	}
	args := strings.Split(strings.TrimSpace(string(out)), "\n")
	args[0] = b.bin("kube-apiserver")
	again, err := b.on("control", append([]string{"setsid", "--fork", "sh", "-c", `log=$0; exec "$@" >>"$log" 2>&1 </dev/null`, b.of("control", "log", "kube-apiserver.log")}, args...)...)
	if err != nil {
		return err
	}
	if out, err := again.CombinedOutput(); err != nil {
		return fmt.Errorf("the API server doesn't start again: %w: %s", err, out)
	}
	return eventually(b.ctx, patience, b.apiReady)
}

// Command cluster boots a real Kubernetes on one machine, with network namespaces for nodes, and runs upstream's end-to-end tests of Services against the
// service proxy in it. README.md says how.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	where, err := newPaths()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	root := &cobra.Command{Use: "cluster", Short: "A Kubernetes of network namespaces, for judging a service proxy", SilenceUsage: true, SilenceErrors: true}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(where.buildCommand(), where.upCommand(), where.downCommand(), where.onCommand(), where.outsideCommand(), where.kubectlCommand(),
		where.installCommand(), where.kubeProxyCommand(), where.loadCommand(), where.measureCommand(), where.churnCommand(), where.testCommand(), where.promisesCommand(), where.insideCommand())
	if err := root.Execute(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 && err == error(exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func (p paths) buildCommand() *cobra.Command {
	module := "."
	cmd := &cobra.Command{Use: "build", Short: "Build Kubernetes, its tests, containerd, Helm and the tests' images", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.build(module) }}
	cmd.Flags().StringVar(&module, "module", module, "directory of tests/kubernetes")
	return cmd
}

// shape adds the flags that say what a cluster is.
func shape(cmd *cobra.Command, c *Cluster) {
	cmd.Flags().StringVar(&c.CNI, "cni", "ptp", "how pods are joined to their node: ptp or bridge")
	cmd.Flags().IntVar(&c.Zones, "zones", 3, "zones that nodes are dealt to in turn")
}

func (c *Cluster) check() error {
	switch {
	case c.CNI != "ptp" && c.CNI != "bridge":
		return fmt.Errorf("--cni %s; ptp or bridge", c.CNI)
	case c.Zones < 1:
		return fmt.Errorf("--zones %d; at least 1", c.Zones)
	case c.Nodes < 1 || c.Nodes > 99:
		return fmt.Errorf("--nodes %d; from 1 to 99", c.Nodes)
	case os.Geteuid() != 0:
		return errors.New("namespaces and mounts need root")
	}
	return nil
}

func checkProxyMode(mode string) error {
	if mode != "" && mode != "iptables" && mode != "nftables" {
		return fmt.Errorf("kube-proxy has no mode %q here; iptables or nftables", mode)
	}
	return nil
}

func (p paths) upCommand() *cobra.Command {
	c, stack, proxy := &Cluster{paths: p}, "dual", ""
	cmd := &cobra.Command{Use: "up", Short: "Boot a cluster without a service proxy, or with kube-proxy", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if stack != "dual" && stack != "ipv4" {
				return fmt.Errorf("--stack %s; dual or ipv4", stack)
			}
			c.Dual = stack == "dual"
			if err := errors.Join(c.check(), checkProxyMode(proxy)); err != nil {
				return err
			}
			return c.up(proxy)
		}}
	shape(cmd, c)
	cmd.Flags().IntVar(&c.Nodes, "nodes", 3, "nodes")
	cmd.Flags().StringVar(&stack, "stack", stack, "dual or ipv4")
	cmd.Flags().StringVar(&proxy, "kube-proxy", "", "kube-proxy on every node: iptables or nftables")
	return cmd
}

func (p paths) downCommand() *cobra.Command {
	return &cobra.Command{Use: "down", Short: "Remove the cluster and all traces of it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.down() }}
}

func (p paths) onCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "on MACHINE COMMAND...", Short: "Run a command on node-1, node-2, ... or control", Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.load()
			if err != nil {
				return err
			}
			cmd, err := c.on(args[0], args[1:]...)
			if err != nil {
				return err
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			return cmd.Run()
		}}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (p paths) outsideCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "outside COMMAND...", Short: "Run a command at the client outside the cluster", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.load()
			if err != nil {
				return err
			}
			return c.outside(args[0], args[1:]...)
		}}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func (p paths) kubectlCommand() *cobra.Command {
	return &cobra.Command{Use: "kubectl ARGS...", Short: "kubectl, as the administrator", DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.load()
			if err != nil {
				return err
			}
			return c.outside(c.bin("kubectl"), append([]string{"--kubeconfig", c.kubeconfig()}, args...)...)
		}}
}

func (p paths) installCommand() *cobra.Command {
	chart, image, mode := "../../packaging/kubernetes/chart", "", "tc"
	cmd := &cobra.Command{Use: "install", Short: "Install Flowpin by its chart and image", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := p.load()
			if err != nil {
				return err
			}
			return c.install(chart, image, mode)
		}}
	cmd.Flags().StringVar(&chart, "chart", chart, "the chart")
	cmd.Flags().StringVar(&image, "image", image, "an OCI archive, by scripts/image")
	cmd.Flags().StringVar(&mode, "mode", mode, "tc, sockets or xdp")
	_ = cmd.MarkFlagRequired("image")
	return cmd
}

func (p paths) kubeProxyCommand() *cobra.Command {
	return &cobra.Command{Use: "kube-proxy start [iptables|nftables] | stop", Short: "Start or end kube-proxy on every node", Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.load()
			if err != nil {
				return err
			}
			switch {
			case args[0] == "start" && len(args) == 1:
				return c.kubeProxyUp("iptables")
			case args[0] == "start":
				if err := checkProxyMode(args[1]); err != nil {
					return err
				}
				return c.kubeProxyUp(args[1])
			case args[0] == "stop" && len(args) == 1:
				return c.kubeProxyDown()
			}
			return errors.New("start, with a mode if it isn't iptables, or stop")
		}}
}

func (p paths) loadCommand() *cobra.Command {
	first, count, endpoints := 0, 1000, 10
	cmd := &cobra.Command{Use: "load", Short: "Make many Services whose endpoints nobody has", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			c, err := p.load()
			if err != nil {
				return err
			}
			return inNamespace(control, func() error { return c.helper("load", fmt.Sprint(first), fmt.Sprint(count), fmt.Sprint(endpoints)) })
		}}
	cmd.Flags().IntVar(&first, "first", first, "number of the first: 1000 after a load of 1000")
	cmd.Flags().IntVar(&count, "services", count, "how many")
	cmd.Flags().IntVar(&endpoints, "endpoints", endpoints, "endpoints of each")
	return cmd
}

func (p paths) measureCommand() *cobra.Command {
	m := measurement{}
	cmd := &cobra.Command{Use: "measure", Short: "From a write to the API to the first connection served, seen from node 1", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return p.onFirst("measure", fmt.Sprint(m.rounds), m.pause.String(), m.process, m.idle.String())
		}}
	cmd.Flags().IntVar(&m.rounds, "rounds", 100, "endpoints that come and go")
	cmd.Flags().DurationVar(&m.pause, "pause", 1200*time.Millisecond, "between changes: kube-proxy puts together what comes within a second")
	cmd.Flags().StringVar(&m.process, "process", flowpin, "whose CPU and memory are told")
	cmd.Flags().DurationVar(&m.idle, "idle", 10*time.Second, "how long to look at an idle proxy first")
	return cmd
}

func (p paths) churnCommand() *cobra.Command {
	m := churning{}
	cmd := &cobra.Command{Use: "churn", Short: "What a proxy takes while endpoints of loaded Services change", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if m.rate < 1 || m.services < 1 {
				return errors.New("--rate and --services are at least 1")
			}
			return p.onFirst("churn", fmt.Sprint(m.rate), fmt.Sprint(m.services), m.length.String(), m.process)
		}}
	cmd.Flags().IntVar(&m.rate, "rate", 100, "endpoints that change in a second")
	cmd.Flags().IntVar(&m.services, "services", 1000, "how many were loaded")
	cmd.Flags().DurationVar(&m.length, "for", 30*time.Second, "how long")
	cmd.Flags().StringVar(&m.process, "process", flowpin, "whose CPU and memory are told")
	return cmd
}

// onFirst runs this program on node 1, where the proxy's process is seen.
func (p paths) onFirst(args ...string) error {
	c, err := p.load()
	if err != nil {
		return err
	}
	cmd, err := c.insideOn(nodeName(1), nil, args...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

func (p paths) testCommand() *cobra.Command {
	run := &run{cluster: Cluster{paths: p}}
	cmd := &cobra.Command{Use: "test", Short: "Boot, install Flowpin, run upstream's tests, print a table, remove the cluster", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return run.run() }}
	shape(cmd, &run.cluster)
	cmd.Flags().BoolVar(&run.all, "all", false, "all tests, on all kinds of cluster; otherwise those that take 12 minutes together")
	cmd.Flags().StringVar(&run.focus, "focus", "", "only tests whose names match this regular expression")
	cmd.Flags().StringVar(&run.mode, "mode", "tc", "how Flowpin is attached: tc, sockets or xdp")
	cmd.Flags().StringVar(&run.kubeProxy, "kube-proxy", "", "kube-proxy instead of Flowpin: iptables or nftables")
	cmd.Flags().StringVar(&run.chart, "chart", "../../packaging/kubernetes/chart", "the chart")
	cmd.Flags().StringVar(&run.image, "image", "", "Flowpin's image, an OCI archive by scripts/image")
	cmd.Flags().StringVar(&run.tests, "tests", "tests.tsv", "the list of tests")
	cmd.Flags().StringVar(&run.out, "out", filepath.Join(p.cache, "results"), "where reports and logs are left")
	cmd.Flags().StringVar(&run.record, "record", "", "a document whose table of results gets a column")
	cmd.Flags().IntVar(&run.atOnce, "procs", 8, "tests at a time")
	cmd.Flags().BoolVar(&run.keep, "keep", false, "leave the last cluster up")
	return cmd
}

// insideCommand is what this program runs on machines and in other network namespaces.
func (p paths) insideCommand() *cobra.Command {
	return &cobra.Command{Use: "inside", Hidden: true, Args: cobra.MinimumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		c, err := p.load()
		if err != nil {
			return err
		}
		log.SetFlags(log.LstdFlags | log.Lmicroseconds)
		switch args[0] {
		case "control":
			return c.insideControl()
		case "node":
			n, err := strconv.Atoi(args[1])
			if err != nil {
				return err
			}
			return c.insideNode(n)
		case "balancer":
			return c.serveBalancer()
		case "load":
			numbers := [3]int{}
			for i := range numbers {
				if numbers[i], err = strconv.Atoi(args[i+1]); err != nil {
					return err
				}
			}
			return c.fill(numbers[0], numbers[1], numbers[2])
		case "measure":
			rounds, err := strconv.Atoi(args[1])
			pause, err2 := time.ParseDuration(args[2])
			idle, err3 := time.ParseDuration(args[4])
			if err := errors.Join(err, err2, err3); err != nil {
				return err
			}
			return c.measure(measurement{rounds, pause, args[3], idle})
		case "churn":
			rate, err := strconv.Atoi(args[1])
			services, err2 := strconv.Atoi(args[2])
			length, err3 := time.ParseDuration(args[3])
			if err := errors.Join(err, err2, err3); err != nil {
				return err
			}
			return c.churn(churning{rate, services, length, args[4]})
		case "hold":
			return serveHolder(args[1])
		case "relay":
			return c.serveRelay()
		case "dial":
			return dial(args[1])
		case "compact":
			return compact()
		case "promise":
			return c.insidePromise(args[1:])
		case "furnish":
			log.SetOutput(io.Discard)
			return c.furnish()
		}
		return fmt.Errorf("no role %q", args[0])
	}}
}

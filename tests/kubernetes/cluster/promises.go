package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Promises are what Flowpin says of itself in a cluster, beyond upstream's tests: each is tried on a cluster of its own, with connections from outside,
// from a pod and from a process of a node.

// trial is how promises are tried.
type trial struct {
	chart, image, mode, kubeProxy string
	// outage is how long the API server is away.
	outage time.Duration
}

type promise struct {
	name, says string
	// beside kube-proxy, which is there first.
	beside bool
	keep   func(*Cluster, trial) error
}

var promises = []promise{
	{"take-over", "kube-proxy goes and comes back: no connection is cut, and new ones are even", true, takeOver},
	{"label", "one Service goes from kube-proxy to Flowpin and back by its label: no connection is cut", true, byLabel},
	{"rolling-update", "what is told to end gets nothing new, nobody is refused, and only pods that end cut connections", false, rollingUpdate},
	{"rolling-update-kube-proxy", "the same with kube-proxy, to compare: nothing is judged", true, rollingUpdateBeside},
	{"kill", "with the DaemonSet's capabilities and a read-only root; the agent is killed under traffic: no connection is cut or refused", false, kill},
	{"documented", "docs/kubernetes.md, followed to the letter: from the image to what is to be verified, by the chart and by the kustomize base", true, documented},
	{"sharing", "agents find each other by the chart's Service, and each knows of the connections that open by way of another", false, sharing},
	{"outage", "the API server is away, silent, or breaks off, and has forgotten when it is back: no connection is cut, and 5 s later all is as it says", false, outage},
}

func (p paths) promisesCommand() *cobra.Command {
	t := trial{}
	c := &Cluster{paths: p, Nodes: 3, Dual: true}
	keep := false
	names := []string{}
	for _, promise := range promises {
		names = append(names, promise.name)
	}
	cmd := &cobra.Command{Use: "promises [NAME...]", Short: "Try what Flowpin promises in a cluster: " + strings.Join(names, ", "), ValidArgs: names, Args: cobra.OnlyValidArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := errors.Join(c.check(), t.check()); err != nil {
				return err
			}
			stopped, forget := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
			defer forget()
			asked = stopped
			var broken error
			for _, promise := range promises {
				if len(args) > 0 && !slices.Contains(args, promise.name) {
					continue
				}
				fmt.Printf("== %s: %s\n", promise.name, promise.says)
				if err := c.try(promise, t, keep); err != nil {
					broken = errors.Join(broken, fmt.Errorf("%s: %w", promise.name, err))
				}
				if asked.Err() != nil || keep && broken != nil {
					break
				}
			}
			return broken
		}}
	shape(cmd, c)
	cmd.Flags().StringVar(&t.chart, "chart", "../../packaging/kubernetes/chart", "the chart")
	cmd.Flags().StringVar(&t.image, "image", "", "Flowpin's image, an OCI archive by scripts/image")
	cmd.Flags().StringVar(&t.mode, "mode", "tc", "how Flowpin is attached: tc, sockets or xdp")
	cmd.Flags().StringVar(&t.kubeProxy, "kube-proxy", "iptables", "the mode of the kube-proxy that was there first: iptables or nftables")
	cmd.Flags().DurationVar(&t.outage, "outage", 20*time.Second, "how long the API server is away each time")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the cluster of a broken promise up")
	_ = cmd.MarkFlagRequired("image")
	return cmd
}

func (t trial) check() error {
	if _, ok := modes[t.mode]; !ok {
		return fmt.Errorf("--mode %s; tc, sockets or xdp", t.mode)
	}
	if t.kubeProxy == "" {
		return errors.New("--kube-proxy is iptables or nftables")
	}
	if _, err := os.Stat(t.image); err != nil {
		return fmt.Errorf("--image: %w; scripts/image makes one", err)
	}
	return checkProxyMode(t.kubeProxy)
}

// try boots a cluster, tries a promise in it, and removes it.
func (c *Cluster) try(promise promise, t trial, keep bool) (err error) {
	if _, err := c.load(); err == nil {
		return errors.New("a cluster is up already: cluster down")
	}
	defer func() {
		if !keep || err == nil {
			err = errors.Join(err, c.down())
		}
	}()
	proxy := ""
	if promise.beside {
		proxy = t.kubeProxy
	}
	if err := c.up(proxy); err != nil {
		return err
	}
	// The client's network is the one from which the nodes and the API server are reached as by users.
	return inNamespace(client, func() error {
		return c.helper("promise", promise.name, t.chart, t.image, t.mode, t.kubeProxy, t.outage.String())
	})
}

// insidePromise is what runs in the client's network.
func (c *Cluster) insidePromise(args []string) error {
	outage, err := time.ParseDuration(args[5])
	if err != nil {
		return err
	}
	for _, promise := range promises {
		if promise.name == args[0] {
			return promise.keep(c, trial{args[1], args[2], args[3], args[4], outage})
		}
	}
	return fmt.Errorf("no promise %q", args[0])
}

// group is some holders that are asked together.
type group []*holder

// holdEverywhere starts a holder at each place.
func (b *bench) holdEverywhere() (group, error) {
	g := group{}
	for _, place := range places {
		h, err := b.hold(place)
		if err != nil {
			return nil, err
		}
		g = append(g, h)
	}
	return g, nil
}

// order gives the same order to all, one after the other, and adds up what they have seen.
func (g group) order(line string) (account, error) {
	sum := account{Open: map[string]int{}}
	for _, h := range g {
		told, err := h.order(line)
		if err != nil {
			return sum, err
		}
		for pod, count := range told.Open {
			sum.Open[pod] += count
		}
		sum.Opened = append(sum.Opened, told.Opened...)
		for _, one := range told.Ended {
			one.Why = h.place + ": " + one.Why
			sum.Ended = append(sum.Ended, one)
		}
		for _, one := range told.Refused {
			one.Why = h.place + ": " + one.Why
			sum.Refused = append(sum.Refused, one)
		}
		sum.Short += told.Short
	}
	return sum, nil
}

// open gives the sum of connections that are open.
func (a account) open() int {
	sum := 0
	for _, count := range a.Open {
		sum += count
	}
	return sum
}

// spread gives the most and the fewest connections of a pod, of so many pods.
func (a account) spread(pods int) (most, fewest int) {
	counts := []int{}
	for _, count := range a.Open {
		counts = append(counts, count)
	}
	for len(counts) < pods {
		counts = append(counts, 0)
	}
	return slices.Max(counts), slices.Min(counts)
}

// whole says what is wrong if not all of so many connections are open and none was refused.
func (a account) whole(connections int) error {
	if len(a.Ended) > 0 || len(a.Refused) > 0 || a.open() != connections {
		return fmt.Errorf("%d of %d are open, %d were cut, %d refused: %s", a.open(), connections, len(a.Ended), len(a.Refused), some(append(a.Ended, a.Refused...)))
	}
	return nil
}

// some gives the first few of what happened.
func some(events []event) string {
	texts := []string{}
	for _, one := range events[:min(len(events), 3)] {
		texts = append(texts, fmt.Sprintf("%s %s (%s)", one.At.Format("15:04:05.000"), one.Why, one.Pod))
	}
	return strings.Join(texts, "; ")
}

// cohort is what is opened at one time: the same number of connections at each place.
type cohort struct {
	group
	name  string
	count int
}

// cohort opens connections, a third at each place.
func (b *bench) cohort(name string, count int) (cohort, account, error) {
	g, err := b.holdEverywhere()
	if err != nil {
		return cohort{}, account{}, err
	}
	each := count / len(g)
	told, err := g.order(fmt.Sprintf("open %d", each))
	if err == nil {
		err = told.whole(each * len(g))
	}
	if err != nil {
		return cohort{}, account{}, fmt.Errorf("%s: %w", name, err)
	}
	return cohort{g, name, each * len(g)}, told, nil
}

// unharmed asks on every connection of these, and says which were cut.
func unharmed(after string, cohorts ...cohort) error {
	for _, c := range cohorts {
		told, err := c.order("settle")
		if err == nil {
			err = told.whole(c.count)
		}
		if err != nil {
			return fmt.Errorf("%s, after %s: %w", c.name, after, err)
		}
		fmt.Printf("%d opened %s, after %s: 0 cut\n", c.count, c.name, after)
	}
	return nil
}

// even says whether so many pods have the same number of connections, but for one.
func (a account) even(pods int) error {
	most, fewest := a.spread(pods)
	fmt.Printf("new connections by pod: %d to %d\n", fewest, most)
	if most-fewest > 1 {
		return fmt.Errorf("new connections aren't even: %v", a.Open)
	}
	return nil
}

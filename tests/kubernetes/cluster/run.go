package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// run is one of `cluster test`.
type run struct {
	cluster                                                  Cluster
	all, keep                                                bool
	focus, mode, kubeProxy, chart, image, tests, out, record string
	atOnce                                                   int
}

func (r *run) check() error {
	if _, ok := modes[r.mode]; !ok {
		return fmt.Errorf("--mode %s; tc, sockets or xdp", r.mode)
	}
	if err := checkProxyMode(r.kubeProxy); err != nil {
		return err
	}
	if r.kubeProxy == "" {
		if _, err := os.Stat(r.image); err != nil {
			return fmt.Errorf("--image: %w; scripts/image makes one", err)
		}
	}
	if r.record != "" && r.focus != "" {
		return errors.New("--record with --focus: a part of the tests is no result")
	}
	if r.atOnce < 1 {
		return fmt.Errorf("--procs %d; at least 1", r.atOnce)
	}
	return nil
}

// run boots each kind of cluster that tests want, one after the other.
func (r *run) run() (err error) {
	if err := r.check(); err != nil {
		return err
	}
	stopped, forget := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer forget()
	asked = stopped
	focus, err := regexp.Compile(r.focus)
	if err != nil {
		return fmt.Errorf("--focus: %w", err)
	}
	list, err := readExpected(r.tests)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	outcomes := []outcome{}
	// What kept the rest from running; what did run is told all the same.
	var broken error
	for _, kind := range kinds {
		tests := []expected{}
		for _, test := range list {
			if test.cluster == kind.name && (r.all || test.part == "default" || r.focus != "") && focus.MatchString(test.name) {
				tests = append(tests, test)
			}
		}
		if len(tests) == 0 {
			continue
		}
		cluster := r.cluster
		cluster.Nodes, cluster.Dual = kind.nodes, kind.dual
		ran, err := r.on(&cluster, kind.name, tests)
		outcomes = append(outcomes, ran...)
		if err != nil {
			broken = err
			break
		}
	}
	if len(outcomes) == 0 {
		return cmp.Or(broken, errors.New("no test was asked for"))
	}
	passed := printTable(outcomes)
	report := filepath.Join(r.out, "junit.xml")
	if err := writeJUnit(report, outcomes); err != nil {
		return err
	}
	if broken != nil {
		return broken
	}
	if r.record != "" {
		if err := recordIn(r.record, r.column(), outcomes); err != nil {
			return err
		}
	}
	fmt.Printf("\n%d passed, %d failed\n%s\n", passed, len(outcomes)-passed, report)
	if passed < len(outcomes) {
		return fmt.Errorf("%d of %d tests did not pass", len(outcomes)-passed, len(outcomes))
	}
	return nil
}

func (r *run) column() string {
	name := "Flowpin, " + r.mode
	if r.kubeProxy != "" {
		name = "kube-proxy, " + r.kubeProxy
	}
	if r.cluster.CNI != "ptp" {
		name += ", " + r.cluster.CNI
	}
	if !r.all {
		name += ", default part"
	}
	return name
}

// on runs tests on one cluster, which is removed afterwards, also if something went wrong.
func (r *run) on(cluster *Cluster, kind string, tests []expected) (outcomes []outcome, err error) {
	fmt.Printf("== %s: %d nodes, %d tests\n", kind, cluster.Nodes, len(tests))
	if err := cluster.check(); err != nil {
		return nil, err
	}
	if _, err := cluster.load(); err == nil {
		return nil, errors.New("a cluster is up already: cluster down")
	}
	if !r.keep {
		defer func() { err = errors.Join(err, cluster.down()) }()
	}
	if err := cluster.up(r.kubeProxy); err != nil {
		return nil, err
	}
	if r.kubeProxy == "" {
		if err := cluster.install(r.chart, r.image, r.mode); err != nil {
			return nil, err
		}
	}
	out := filepath.Join(r.out, kind)
	outcomes, err = cluster.runTests(tests, out, r.atOnce)
	return outcomes, errors.Join(err, context.Cause(asked), cluster.agentLogs(out))
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// Addresses. Nodes and the outside client are in different /16s: some upstream tests take whatever comes from a node's /16 for masqueraded.
var (
	underlay = pair{netip.MustParsePrefix("172.20.0.0/24"), netip.MustParsePrefix("fd20::/64")}
	outside  = pair{netip.MustParsePrefix("172.21.0.0/24"), netip.MustParsePrefix("fd21::/64")}
	pods     = pair{netip.MustParsePrefix("10.32.0.0/16"), netip.MustParsePrefix("fd00:32::/48")}
	services = pair{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")}
	balanced = pair{netip.MustParsePrefix("172.22.0.0/24"), netip.MustParsePrefix("fd22::/112")}
	// The cluster's DNS, as kubelets tell pods.
	dnsService = netip.MustParseAddr("10.96.0.10")
)

// Network namespaces. Each node is one, the control plane is one, and the router between them is the only one that knows them all.
const (
	prefix    = "flowpin-k8s-"
	router    = prefix + "router"
	control   = prefix + "control"
	client    = prefix + "client"
	apiPort   = 6443
	cgroupTop = "flowpin-k8s"
	// Where a node finds its part of cgroup2, whatever the machine's hierarchies are.
	nodeCgroup = "/run/cgroup2"
)

// pair is a prefix of each IP version.
type pair struct{ v4, v6 netip.Prefix }

// host gives the addresses with these low bits, as prefixes of the network's length.
func (p pair) host(low byte) (v4, v6 netip.Prefix) {
	four, six := p.v4.Addr().As4(), p.v6.Addr().As16()
	four[3], six[15] = low, low
	return netip.PrefixFrom(netip.AddrFrom4(four), p.v4.Bits()), netip.PrefixFrom(netip.AddrFrom16(six), p.v6.Bits())
}

// podsOf gives the addresses of node n's pods: a /24 and a /64.
func podsOf(n int) pair {
	four, six := pods.v4.Addr().As4(), pods.v6.Addr().As16()
	four[2], six[7] = byte(n), byte(n)
	return pair{netip.PrefixFrom(netip.AddrFrom4(four), 24), netip.PrefixFrom(netip.AddrFrom16(six), 64)}
}

// patience is for each step of a boot. On two idle cores all of it takes 20 s; the machine may have other work.
const patience = 5 * time.Minute

// Machines by the last byte of their address.
const (
	routerHost  = 1
	controlHost = 10
	clientHost  = 2
)

func nodeHost(n int) byte { return byte(controlHost + n) }

func nodeName(n int) string { return fmt.Sprintf("node-%d", n) }

// Cluster is one that runs, or is to.
type Cluster struct {
	Nodes int
	// Dual has Services and pods of both IP versions, and otherwise of IPv4 alone.
	Dual bool
	// CNI is how pods are joined to their node: ptp (a route to each) or bridge.
	CNI string
	// Zones that nodes are dealt to in turn.
	Zones int
	// Token that may do everything.
	Token string
	// Sysctls of the whole machine that kubelets change, as they were.
	Sysctls map[string]string

	paths
}

// paths says where things lie: what is built stays, what a running cluster writes goes with it.
type paths struct{ cache string }

func newPaths() (paths, error) {
	if dir := os.Getenv("FLOWPIN_KUBERNETES_CACHE"); dir != "" {
		return paths{dir}, nil
	}
	dir, err := os.UserCacheDir()
	return paths{filepath.Join(dir, "flowpin", "kubernetes")}, err
}

func (p paths) bin(name string) string { return filepath.Join(p.cache, "bin", name) }
func (p paths) images() string         { return filepath.Join(p.cache, "images") }
func (p paths) state(parts ...string) string {
	return filepath.Join(append([]string{p.cache, "cluster"}, parts...)...)
}
func (p paths) kubeconfig() string { return p.state("kubeconfig") }
func (p paths) of(machine string, parts ...string) string {
	return p.state(append([]string{machine}, parts...)...)
}

var errNoCluster = errors.New("no cluster is up: cluster up")

func (p paths) load() (*Cluster, error) {
	text, err := os.ReadFile(p.state("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoCluster
	} else if err != nil {
		return nil, err
	}
	cluster := &Cluster{}
	if err := json.Unmarshal(text, cluster); err != nil {
		return nil, err
	}
	cluster.paths = p
	return cluster, nil
}

func (c *Cluster) save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.state("cluster.json"), text, 0o600)
}

// families gives those of a pair that the cluster has.
func (c *Cluster) families(p pair) []netip.Prefix {
	if c.Dual {
		return []netip.Prefix{p.v4, p.v6}
	}
	return []netip.Prefix{p.v4}
}

// addresses of a machine of the underlay, of the families that the cluster has.
func (c *Cluster) addresses(host byte) []netip.Addr {
	v4, v6 := underlay.host(host)
	if c.Dual {
		return []netip.Addr{v4.Addr(), v6.Addr()}
	}
	return []netip.Addr{v4.Addr()}
}

func (c *Cluster) server() string { return c.controlURL(apiPort) }

// controlURL is that of a port of the control plane's.
func (c *Cluster) controlURL(port int) string {
	v4, _ := underlay.host(controlHost)
	return fmt.Sprintf("https://%s:%d", v4.Addr(), port)
}

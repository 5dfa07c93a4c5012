package main

import (
	"fmt"
	"log"
	"strings"

	"golang.org/x/sys/unix"
)

// insideControl is the first process of the control plane: etcd, API server, controllers, scheduler, and the cluster's DNS.
func (c *Cluster) insideControl() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("control")); err != nil {
		return err
	}
	programs := newSupervisor()
	logs := func(of string) string { return c.of("control", "log", of+".log") }
	pki := func(name string) string { return c.of("control", "pki", name) }
	ranges := []string{}
	for _, prefix := range c.families(services) {
		ranges = append(ranges, prefix.String())
	}
	// What is in here is thrown away: nothing waits for a disk.
	err := programs.daemon(logs("etcd"), "etcd", "--data-dir", c.of("control", "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		fmt.Sprint("--quota-backend-bytes=", int64(4)<<30))
	if err != nil {
		return err
	}
	err = programs.daemon(logs("kube-apiserver"), "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address="+c.addresses(controlHost)[0].String(), "--bind-address=0.0.0.0", fmt.Sprint("--secure-port=", apiPort),
		"--tls-cert-file="+pki("server.crt"), "--tls-private-key-file="+pki("server.key"), "--client-ca-file="+pki("ca.crt"),
		"--token-auth-file="+pki("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file="+pki("accounts.key"), "--service-account-signing-key-file="+pki("accounts.key"),
		"--service-cluster-ip-range="+strings.Join(ranges, ","),
		"--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true",
		"--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000", "--profiling=false", "--v=1")
	if err != nil {
		return err
	}
	if err := eventually(asked, patience, c.apiReady); err != nil {
		return fmt.Errorf("the API server isn't ready: %w", err)
	}
	err = programs.daemon(logs("kube-controller-manager"), "kube-controller-manager", "--kubeconfig", c.kubeconfig(), "--leader-elect=false",
		"--allocate-node-cidrs=false", "--root-ca-file="+pki("ca.crt"), "--service-account-private-key-file="+pki("accounts.key"),
		"--kube-api-qps=300", "--kube-api-burst=600", "--v=1")
	if err != nil {
		return err
	}
	err = programs.daemon(logs("kube-scheduler"), "kube-scheduler", "--kubeconfig", c.kubeconfig(), "--leader-elect=false",
		"--kube-api-qps=300", "--kube-api-burst=600", "--v=1")
	if err != nil {
		return err
	}
	go func() { log.Print("DNS: ", c.serveNames()) }()
	log.Print("the control plane runs")
	select {}
}

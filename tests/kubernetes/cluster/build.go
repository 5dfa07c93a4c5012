package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// What is built of a module: packages, and the names of programs if they aren't the packages'.
type program struct {
	name, module, source string
	version, test        bool
}

var programs = []program{
	{name: "components", module: ".", source: "./components", version: true},
	{name: "e2e.test", module: ".", source: "./e2e", version: true, test: true},
	{name: "ginkgo", module: ".", source: "github.com/onsi/ginkgo/v2/ginkgo"},
	{name: "pause", module: ".", source: "./pause"},
	{name: "agnhost", module: ".", source: "k8s.io/kubernetes/test/images/agnhost"},
	{name: "regression-issue-74839", module: ".", source: "k8s.io/kubernetes/test/images/regression-issue-74839"},
	{name: "containerd", module: "containerd", source: "github.com/containerd/containerd/v2/cmd/containerd"},
	{name: "containerd-shim-runc-v2", module: "containerd", source: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
	{name: "ctr", module: "containerd", source: "github.com/containerd/containerd/v2/cmd/ctr"},
	{name: "helm", module: "helm", source: "helm.sh/helm/v4/cmd/helm"},
}

var componentNames = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"}

// build makes what a cluster runs, from the module in this directory. What is there and current takes the Go tool a few seconds to see.
func (p paths) build(module string) error {
	began := time.Now()
	for _, dir := range []string{filepath.Dir(p.bin("any")), p.images()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	version, err := goOutput(module, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	for _, one := range programs {
		if err := p.compile(module, version, one); err != nil {
			return err
		}
	}
	for _, name := range componentNames {
		link := p.bin(name)
		if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := os.Symlink("components", link); err != nil {
			return err
		}
	}
	if err := p.makeImages(module); err != nil {
		return err
	}
	fmt.Printf("built: Kubernetes %s, in %.0f s\n", version, time.Since(began).Seconds())
	return nil
}

func (p paths) compile(module, version string, one program) error {
	began := time.Now()
	flags := "-s -w"
	if one.version {
		major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
		minor, _, _ = strings.Cut(minor, ".")
		const base = " -X k8s.io/component-base/version."
		flags += base + "gitVersion=" + version + base + "gitMajor=" + major + base + "gitMinor=" + minor
	}
	args := []string{"build"}
	if one.test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-trimpath", "-ldflags="+flags, "-o", p.bin(one.name), one.source)
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join(module, one.module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", one.name, err)
	}
	if took := time.Since(began).Seconds(); took > 5 {
		fmt.Printf("  %-24s %4.0f s\n", one.name, took)
	}
	return nil
}

func goOutput(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return string(bytes.TrimSpace(out)), err
}

// tools are what upstream's tests call in their pods, beside agnhost itself.
const tools = "curl,wget,netcat-openbsd,bind9-dnsutils,iproute2,iputils-ping,procps,iperf,conntrack,iptables,nftables"

// makeImages makes the images that pods of upstream's tests are of. Their registries aren't asked: what is in them are programs of the modules, and
// Debian's packages.
func (p paths) makeImages(module string) error {
	debian := filepath.Join(p.cache, "debian.tar")
	if _, err := os.Stat(debian); err != nil {
		fmt.Println("  Debian, for the images")
		cmd := exec.Command("mmdebstrap", "--quiet", "--format=tar", "--variant=essential", "--include="+tools, release(), debian+".new")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("mmdebstrap: %w", err)
		}
		if err := os.Rename(debian+".new", debian); err != nil {
			return err
		}
	}
	upstream, err := goOutput(module, "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	porter := filepath.Join(upstream, "test/images/agnhost/porter/localhost")
	const registry = "registry.k8s.io/"
	images := map[string]image{
		"pause": {name: registry + "pause:3.10.2", programs: []string{p.bin("pause")}, entrypoint: []string{"/pause"}},
		"agnhost": {name: registry + "e2e-test-images/agnhost:2.63.0", base: debian, programs: []string{p.bin("agnhost"), porter + ".crt", porter + ".key"},
			entrypoint: []string{"/agnhost"}, command: []string{"pause"}},
		"busybox":    {name: registry + "e2e-test-images/busybox:1.37.0-1", busybox: "/bin/busybox", command: []string{"sh"}},
		"iptables":   {name: registry + "build-image/distroless-iptables:v0.9.6", base: debian, command: []string{"sh"}},
		"regression": {name: registry + "e2e-test-images/regression-issue-74839:1.4", programs: []string{p.bin("regression-issue-74839")}, entrypoint: []string{"/regression-issue-74839"}},
	}
	for file, image := range images {
		if err := image.write(filepath.Join(p.images(), file+".tar")); err != nil {
			return fmt.Errorf("image %s: %w", image.name, err)
		}
	}
	return nil
}

// release gives the name of this machine's Debian.
func release() string {
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return name
		}
	}
	return "stable"
}

// architecture as images have it.
const architecture = runtime.GOARCH

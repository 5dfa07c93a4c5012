package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// docs is what users read.
const docs = "docs/kubernetes.md"

// registryPort of the control plane is where the image is put and fetched.
const registryPort = 5000

// commands gives the command lines of a section of a text in Markdown, those of a paragraph together: what is indented by four columns, without
// remarks behind it, and with lines that go on joined.
func commands(text, section string) [][]string {
	_, text, _ = strings.Cut(text, "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	text = strings.ReplaceAll(text, "\\\n", "")
	paragraphs := [][]string{}
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		lines := []string{}
		for line := range strings.SplitSeq(strings.Trim(paragraph, "\n"), "\n") {
			line, indented := strings.CutPrefix(line, "    ")
			if !indented {
				break
			}
			line, _, _ = strings.Cut(line, " # ")
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		if len(lines) > 0 {
			paragraphs = append(paragraphs, lines)
		}
	}
	return paragraphs
}

// documented follows the documentation to the letter, from the image in a registry to what is to be verified, once by the chart and once without Helm.
func documented(c *Cluster, _ trial) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(root, docs))
	if err != nil {
		return err
	}
	install, verify := commands(string(text), "Install"), commands(string(text), "Verify")
	if len(install) != 2 || len(install[0]) != 4 || len(install[1]) != 2 || len(verify) != 1 {
		return fmt.Errorf("%s has other commands than it had: install %q, verify %q", docs, install, verify)
	}
	b, err := c.furnishBench(fewPods)
	if err != nil {
		return err
	}
	if err := c.registry(); err != nil {
		return err
	}
	// The image itself needs a network that the client hasn't got: it is there, made by the same command.
	if install[0][0] != "scripts/image" {
		return fmt.Errorf("%s begins with %q", docs, install[0][0])
	}
	byChart := install[0][1:]
	// The nodes' own part of cgroup2 is elsewhere than a machine's, which is a value of the chart.
	byChart[1] += " --set hostPaths.cgroup2=" + nodeCgroup
	if err := b.follow(root, byChart, verify[0]); err != nil {
		return err
	}
	if err := c.uninstall(); err != nil {
		return err
	}
	overlay, err := c.overlay(root)
	if err != nil {
		return err
	}
	base := "packaging/kubernetes/base"
	if !strings.HasSuffix(install[1][1], base) {
		return fmt.Errorf("%s doesn't apply %s: %q", docs, base, install[1][1])
	}
	install[1][1] = strings.TrimSuffix(install[1][1], base) + overlay
	return b.follow(root, append(install[1], install[0][3]), verify[0])
}

// follow runs commands, then those that verify, and says whether the workload is served.
func (b *bench) follow(root string, install, verify []string) error {
	for _, line := range append(install, verify...) {
		fmt.Println("$", line)
		out, err := b.shell(root, line)
		if err != nil {
			b.explain()
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
		if strings.Contains(line, " flowpin status") && !strings.Contains(out, "ok") || strings.Contains(line, "/healthz") && !strings.Contains(out, `"healthy":true`) {
			return fmt.Errorf("%s: %s", line, out)
		}
	}
	if err := b.until("Flowpin serves the workload", func() (bool, error) { return b.serves(workload) }); err != nil {
		return err
	}
	return b.until("the workload answers", b.answers)
}

// shell runs a line of the documentation as the cluster's administrator, with its names replaced by what they are here.
func (b *bench) shell(root, line string) (string, error) {
	control, node := b.addresses(controlHost)[0].String(), b.addresses(nodeHost(1))[0].String()
	names := strings.NewReplacer("CONTROL-PLANE", control, "REGISTRY", fmt.Sprintf("%s:%d", control, registryPort), "//NODE:", "//"+node+":")
	cmd := foreground("sh", "-e", "-c", names.Replace(line))
	cmd.Dir = root
	cmd.Env = append(cmd.Env, "KUBECONFIG="+b.kubeconfig(), "PATH="+filepath.Dir(b.bin("any"))+":"+os.Getenv("PATH"), "SSL_CERT_FILE="+b.of("control", "pki", "ca.crt"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// registry starts a registry of images in the control plane, by Debian's program.
func (c *Cluster) registry() error {
	pki := func(name string) string { return c.of("control", "pki", name) }
	config := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: ':%d', tls: {certificate: %s, key: %s}}\n",
		c.of("control", "registry"), registryPort, pki("server.crt"), pki("server.key"))
	file := c.of("control", "registry.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	cmd, err := c.on("control", "setsid", "--fork", "sh", "-c", `exec docker-registry serve "$0" >"$1" 2>&1 </dev/null`, file, c.of("control", "log", "registry.log"))
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the registry: %w: %s", err, out)
	}
	return eventually(asked, time.Minute, func() error {
		return exec.Command("curl", "--silent", "--fail", "--cacert", pki("ca.crt"), c.controlURL(registryPort)+"/v2/").Run()
	})
}

// overlay is a kustomization of a user's own: the image's name, and where these nodes have cgroup2. It gives its directory, seen from the root.
func (c *Cluster) overlay(root string) (string, error) {
	dir := filepath.Join("target", "kubernetes", "overlay")
	v4, _ := underlay.host(controlHost)
	text := fmt.Sprintf(`resources: [../../../packaging/kubernetes/base]
images: [{name: flowpin, newName: "%s:%d/flowpin"}]
patches:
- patch: |
    apiVersion: apps/v1
    kind: DaemonSet
    metadata: {name: flowpin, namespace: kube-system}
    spec: {template: {spec: {volumes: [{name: cgroup2, hostPath: {path: %s}}]}}}
`, v4.Addr(), registryPort, nodeCgroup)
	return dir, errors.Join(os.MkdirAll(filepath.Join(root, dir), 0o755), os.WriteFile(filepath.Join(root, dir, "kustomization.yaml"), []byte(text), 0o644))
}

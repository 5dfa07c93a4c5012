// Package helm tests the chart in packaging/kubernetes: what it renders, what it refuses, and that the kustomize base is what it renders. Helm itself
// is built from its module, as a tool of this one.
package helm

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	root  = "../../.."
	chart = root + "/packaging/kubernetes/chart"
	base  = root + "/packaging/kubernetes/base/flowpin.yaml"
	// The base's first lines.
	origin = "# Rendered from ../chart; see kustomization.yaml.\n"
)

var (
	update = flag.Bool("update", false, "write the kustomize base anew")
	helm   string
)

func TestMain(m *testing.M) {
	flag.Parse()
	helm = os.Getenv("HELM")
	if helm == "" {
		path, err := exec.Command("go", "tool", "-n", "helm").Output()
		if err != nil {
			fmt.Fprintln(os.Stderr, "helm can't be built:", err)
			os.Exit(1)
		}
		helm = strings.TrimSpace(string(path))
	}
	os.Exit(m.Run())
}

func run(args ...string) (stdout, stderr string, err error) {
	command := exec.Command(helm, args...)
	var out, bad bytes.Buffer
	command.Stdout, command.Stderr = &out, &bad
	err = command.Run()
	return out.String(), bad.String(), err
}

func template(args ...string) (string, string, error) {
	return run(append([]string{"template", "flowpin", chart, "--namespace", "kube-system"}, args...)...)
}

// render gives what the chart makes of these --set values, whole and by kind.
func render(t *testing.T, sets ...string) (string, map[string][]byte) {
	t.Helper()
	args := []string{}
	for _, set := range sets {
		args = append(args, "--set", set)
	}
	text, bad, err := template(args...)
	if err != nil {
		t.Fatalf("helm template %v: %v\n%s", sets, err, bad)
	}
	kinds := map[string][]byte{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		object := unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if object.Object == nil {
			continue
		}
		if kinds[object.GetKind()] != nil {
			t.Errorf("two objects of kind %s", object.GetKind())
		}
		kinds[object.GetKind()] = []byte(document)
	}
	return text, kinds
}

// decode refuses what Kubernetes' types don't have: a misspelt key is an error here and nothing at all in a cluster.
func decode[T any](t *testing.T, kinds map[string][]byte) T {
	t.Helper()
	var object T
	kind := strings.TrimPrefix(fmt.Sprintf("%T", object), "v1.")
	document, ok := kinds[kind]
	if !ok {
		t.Fatalf("no %s was rendered", kind)
	}
	if err := yaml.UnmarshalStrict(document, &object); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return object
}

func agent(t *testing.T, kinds map[string][]byte) (appsv1.DaemonSet, corev1.Container) {
	t.Helper()
	set := decode[appsv1.DaemonSet](t, kinds)
	containers := set.Spec.Template.Spec.Containers
	if len(containers) != 1 {
		t.Fatalf("%d containers", len(containers))
	}
	return set, containers[0]
}

func config(t *testing.T, sets ...string) string {
	t.Helper()
	_, kinds := render(t, sets...)
	return decode[corev1.ConfigMap](t, kinds).Data["flowpin.toml"]
}

func TestLint(t *testing.T) {
	if out, bad, err := run("lint", "--strict", chart); err != nil {
		t.Errorf("%v\n%s%s", err, out, bad)
	}
}

func TestBase(t *testing.T) {
	text, _ := render(t)
	// Who applies the base has no Helm.
	text = origin + regexp.MustCompile(`(?m)^\s+(app\.kubernetes\.io/managed-by|helm\.sh/chart): .*\n`).ReplaceAllString(text, "")
	if *update {
		if err := os.WriteFile(base, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != text {
		t.Error("packaging/kubernetes/base isn't what the chart renders: go test -run TestBase -update")
	}
}

func TestVersionIsTheWorkspaces(t *testing.T) {
	manifest, err := os.ReadFile(root + "/Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^version = "(.*)"$`).FindSubmatch(manifest)
	var meta struct{ Version, AppVersion string }
	text, err := os.ReadFile(chart + "/Chart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &meta); err != nil {
		t.Fatal(err)
	}
	if version == nil || meta.Version != string(version[1]) || meta.AppVersion != meta.Version {
		t.Errorf("the chart's versions are %s and %s, the workspace's is %q", meta.Version, meta.AppVersion, version)
	}
}

func TestPrivileges(t *testing.T) {
	_, kinds := render(t)
	set, container := agent(t, kinds)
	security := container.SecurityContext
	want := []corev1.Capability{"BPF", "NET_ADMIN", "PERFMON", "NET_RAW"}
	if !slices.Equal(security.Capabilities.Add, want) || !slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("capabilities: %+v", security.Capabilities)
	}
	if security.Privileged != nil || *security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem {
		t.Errorf("security context: %+v", security)
	}
	if !set.Spec.Template.Spec.HostNetwork || set.Spec.Template.Spec.HostPID || set.Spec.Template.Spec.HostIPC {
		t.Error("the node's network, and no other of its namespaces")
	}

	_, kinds = render(t, "privileged=true")
	_, container = agent(t, kinds)
	security = container.SecurityContext
	if !*security.Privileged || security.Capabilities != nil || security.AllowPrivilegeEscalation != nil || !*security.ReadOnlyRootFilesystem {
		t.Errorf("security context with privileged=true: %+v", security)
	}
}

func TestMountsAndVolumesMatch(t *testing.T) {
	_, kinds := render(t)
	set, container := agent(t, kinds)
	var mounts, volumes []string
	writable := []string{}
	for _, mount := range container.VolumeMounts {
		mounts = append(mounts, mount.Name)
		if !mount.ReadOnly {
			writable = append(writable, mount.MountPath)
		}
	}
	for _, volume := range set.Spec.Template.Spec.Volumes {
		volumes = append(volumes, volume.Name)
	}
	if !slices.Equal(mounts, volumes) {
		t.Errorf("mounts %v, volumes %v", mounts, volumes)
	}
	want := []string{"/var/lib/flowpin", "/run/flowpin", "/sys/fs/bpf", "/host/proc/sys/net", "/run/xtables.lock"}
	if !slices.Equal(writable, want) {
		t.Errorf("writable: %v", writable)
	}
}

func TestRoleIsThatOfAServiceProxy(t *testing.T) {
	_, kinds := render(t)
	may := map[string]string{}
	for _, rule := range decode[rbacv1.ClusterRole](t, kinds).Rules {
		for _, resource := range rule.Resources {
			may[resource] = strings.Join(rule.Verbs, " ")
		}
	}
	want := map[string]string{
		"services": "list watch", "namespaces": "list watch", "nodes": "get list watch", "endpointslices": "list watch",
		"servicecidrs": "list watch", "events": "create patch update",
	}
	if fmt.Sprint(may) != fmt.Sprint(want) {
		t.Errorf("%v, not %v", may, want)
	}
	decode[rbacv1.ClusterRoleBinding](t, kinds)
	if account := decode[corev1.ServiceAccount](t, kinds); *account.AutomountServiceAccountToken {
		t.Error("the token is the pod's alone")
	}
}

func TestConfig(t *testing.T) {
	text := config(t, `apiServers={https://10.0.0.10:6443,https://[fd00::10]:6443}`, "serviceProxyName=flowpin", "config.maxFlows=262144",
		"config.sockets=all", "config.snatPorts=1024-20000", "config.nodePortAddresses={primary,localhost,10.0.0.0/8}",
		"config.interfaces[0].match=eth0", "config.interfaces[0].attach=xdp", "config.interfaces[1].match=cali*",
		"config.interfaces[1].attach=tc", "config.interfaces[1].fast=true", "config.extra=[events]\nkeep = 5")
	for _, line := range []string{
		`servers = ["https://10.0.0.10:6443","https://[fd00::10]:6443"]`, `service_proxy_name = "flowpin"`, "health_port = 10356",
		"metrics_port = 10349", "max_flows = 262144", `scope = "all"`, `ports = "1024-20000"`, `node_port_addresses = ["primary","localhost","10.0.0.0/8"]`,
		`match = "eth0"`, `attach = "xdp"`, `match = "cali*"`, "fast = true", "[events]", "keep = 5",
	} {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	if plain := config(t); strings.Contains(plain, "_port") || strings.Contains(plain, "[[interface]]") || strings.Contains(plain, "max_flows") {
		t.Errorf("what isn't said is Flowpin's to decide:\n%s", plain)
	}
}

func TestAnotherConfigIsAnotherPod(t *testing.T) {
	checksum := func(sets ...string) string {
		_, kinds := render(t, sets...)
		set, _ := agent(t, kinds)
		return set.Spec.Template.Annotations["checksum/config"]
	}
	if plain := checksum(); plain == "" || plain != checksum("logLevel=debug") || plain == checksum("config.sockets=all") {
		t.Error("the checksum follows the config, and nothing else")
	}
}

func TestPortsBesideKubeProxy(t *testing.T) {
	for set, want := range map[string]int32{"image.tag=x": 10256, "serviceProxyName=flowpin": 10356, "healthPort=20256": 20256} {
		_, kinds := render(t, set)
		_, container := agent(t, kinds)
		if port := container.Ports[1]; port.Name != "health" || port.ContainerPort != want {
			t.Errorf("%s: port %+v, not %d", set, port, want)
		}
	}
}

// The node's health port may be answered by a kube-proxy that is still there.
func TestProbesAskFlowpin(t *testing.T) {
	for set, want := range map[string]string{
		"image.tag=x": "127.0.0.1:9479", "podMonitor.enabled=true": "127.0.0.1:9479", "metrics.listen=[::]:9000": "127.0.0.1:9000",
		"metrics.listen=192.0.2.1:9479": "192.0.2.1:9479", "metrics.listen=[fd00::1]:9479": "fd00::1:9479",
	} {
		_, kinds := render(t, set)
		_, container := agent(t, kinds)
		for path, probes := range map[string][]*corev1.Probe{"/healthz": {container.StartupProbe, container.LivenessProbe}, "/readyz": {container.ReadinessProbe}} {
			for _, probe := range probes {
				if get := probe.HTTPGet; get.Host+":"+get.Port.String() != want || get.Path != path {
					t.Errorf("%s: probe %+v, not %s at %s", set, get, path, want)
				}
			}
		}
	}
}

func TestMemoryFollowsTheFlows(t *testing.T) {
	for set, want := range map[string]string{
		"image.tag=x": "263Mi", "config.maxFlows=1048576": "760Mi", "resources.requests.memory=99Mi": "99Mi",
	} {
		_, kinds := render(t, set)
		_, container := agent(t, kinds)
		if got := container.Resources.Requests.Memory().String(); got != want {
			t.Errorf("%s: %s, not %s", set, got, want)
		}
		if cpu := container.Resources.Requests.Cpu().String(); cpu != "100m" || container.Resources.Limits != nil {
			t.Errorf("%s: %+v", set, container.Resources)
		}
	}
}

func TestCluster(t *testing.T) {
	_, kinds := render(t)
	if kinds["Service"] != nil || strings.Contains(config(t), "[cluster]") {
		t.Error("counts are shared only where that is asked for")
	}
	for secret, folder := range map[string]string{"": "/var/lib/flowpin/tls", "flowpin-nodes": "/etc/flowpin-tls"} {
		_, kinds = render(t, "cluster.enabled=true", "cluster.name=prod", "cluster.secret="+secret)
		text := decode[corev1.ConfigMap](t, kinds).Data["flowpin.toml"]
		for _, line := range []string{
			"[cluster]", `name = "prod"`, `peers = ["kubernetes:kube-system/flowpin-cluster"]`, `ca = "` + folder + `/ca.pem"`,
			`certificate = "` + folder + `/{node}.pem"`, `key = "` + folder + `/{node}.key"`,
		} {
			if !slices.Contains(strings.Split(text, "\n"), line) {
				t.Errorf("no line %q in\n%s", line, text)
			}
		}
		set, container := agent(t, kinds)
		service := decode[corev1.Service](t, kinds)
		for key, value := range service.Spec.Selector {
			if set.Spec.Template.Labels[key] != value {
				t.Errorf("the Service selects %s=%s, which no agent has", key, value)
			}
		}
		if spec := service.Spec; service.Name != "flowpin-cluster" || service.Namespace != "kube-system" || spec.ClusterIP != "None" || !spec.PublishNotReadyAddresses || len(spec.Selector) == 0 {
			t.Errorf("%+v", service)
		}
		port := service.Spec.Ports[0]
		if i := slices.IndexFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }); i < 0 || container.Ports[i].ContainerPort != 7473 || port.Port != 7473 || port.Name != "cluster" {
			t.Errorf("the Service's port %+v isn't one of %+v", port, container.Ports)
		}
		volumes := set.Spec.Template.Spec.Volumes
		i := slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.Secret != nil })
		if secret == "" {
			if i >= 0 {
				t.Errorf("a Secret that nobody named: %+v", volumes[i])
			}
			continue
		}
		if i < 0 || volumes[i].Secret.SecretName != secret || *volumes[i].Secret.DefaultMode != 0o400 {
			t.Errorf("volumes %+v", volumes)
		}
		mount := container.VolumeMounts[len(container.VolumeMounts)-1]
		if i >= 0 && (mount.Name != volumes[i].Name || mount.MountPath != folder || !mount.ReadOnly) {
			t.Errorf("mount %+v", mount)
		}
	}
}

func TestMonitoring(t *testing.T) {
	_, kinds := render(t)
	if kinds["PodMonitor"] != nil || kinds["PrometheusRule"] != nil {
		t.Error("kinds that a cluster may not have are asked for, never assumed")
	}
	_, kinds = render(t, "podMonitor.enabled=true", "prometheusRule.enabled=true", "prometheusRule.labels.release=main")
	var rule, alerts struct{ Spec, Groups any }
	if err := yaml.Unmarshal(kinds["PrometheusRule"], &rule); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(root, "packaging/alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(file, &alerts); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(rule.Spec)
	want, _ := json.Marshal(map[string]any{"groups": alerts.Groups})
	if !bytes.Equal(got, want) {
		t.Errorf("the rules aren't those of packaging/alerts.yml:\n%s", got)
	}
	if !strings.Contains(decode[corev1.ConfigMap](t, kinds).Data["flowpin.toml"], `metrics_listen = "0.0.0.0:9479"`) {
		t.Error("Prometheus comes from elsewhere")
	}
	endpoints := func() []any {
		var monitor struct {
			Spec struct{ PodMetricsEndpoints []any }
		}
		if err := yaml.Unmarshal(kinds["PodMonitor"], &monitor); err != nil {
			t.Fatal(err)
		}
		return monitor.Spec.PodMetricsEndpoints
	}
	if got := endpoints(); len(got) != 1 {
		t.Errorf("endpoints %v", got)
	}
	_, container := agent(t, kinds)
	_, kinds = render(t, "podMonitor.enabled=true", "podMonitor.asKubeProxy=true")
	if got := endpoints(); len(got) != 2 || !strings.Contains(fmt.Sprint(got[1]), "replacement:kube-proxy") {
		t.Errorf("endpoints %v", got)
	}
	if port := container.Ports[0]; port.Name != "metrics" || port.ContainerPort != 9479 {
		t.Errorf("port %+v", port)
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for set, want := range map[string]string{
		"config.sockets=some":                                     "/config/sockets",
		"config.socket=all":                                       "socket",
		"apiServers={http://10.0.0.10:6443}":                      "/apiServers/0",
		"apiServers={https://10.0.0.10:6443/}":                    "/apiServers/0",
		"image.digest=sha256:12":                                  "/image/digest",
		"healthPort=70000":                                        "/healthPort",
		"config.interfaces[0].match=eth0":                         "attach",
		"hostPaths.bpffs=sys/fs/bpf":                              "/hostPaths/bpffs",
		"priviledged=true":                                        "priviledged",
		"cluster.enabled=true":                                    "cluster.enabled needs cluster.name",
		"cluster.name=Prod":                                       "/cluster/name",
		"serviceProxyName=-flowpin":                               "/serviceProxyName",
		"podMonitor.enabled=true,metrics.listen=127.0.0.1:9479":   "metrics that Prometheus reaches",
		"config.nodePortAddresses={secondary}":                    "/config/nodePortAddresses/0",
		"config.sockets=off,config.nodePortAddresses={localhost}": "takes config.sockets",
	} {
		out, bad, err := template("--set", set)
		if err == nil {
			t.Errorf("%s was taken:\n%s", set, out)
		} else if !strings.Contains(bad, want) {
			t.Errorf("%s: the error doesn't say %q:\n%s", set, want, bad)
		}
	}
}

package main

import (
	"encoding/xml"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

func TestAddressesAreApart(t *testing.T) {
	all := []netip.Prefix{}
	for _, network := range []pair{underlay, outside, pods, services, balanced} {
		for _, prefix := range []netip.Prefix{network.v4, network.v6} {
			for _, other := range all {
				if prefix.Overlaps(other) {
					t.Errorf("%s overlaps %s", prefix, other)
				}
			}
			all = append(all, prefix)
		}
	}
	for n := 1; n <= 99; n++ {
		of := podsOf(n)
		if !pods.v4.Overlaps(of.v4) || !pods.v6.Overlaps(of.v6) || of.v4.Overlaps(podsOf(n+1).v4) || of.v6.Overlaps(podsOf(n+1).v6) {
			t.Errorf("pods of node %d: %v", n, of)
		}
	}
	sixteen := func(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr(), 16).Masked() }
	if sixteen(underlay.v4) == sixteen(outside.v4) {
		t.Error("the client would be taken for a node")
	}
}

func TestFilesOfNodes(t *testing.T) {
	c := &Cluster{Dual: true, CNI: "bridge", Nodes: 1, paths: paths{t.TempDir()}}
	if err := c.writeNodeFiles(1, "nftables"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"etc/cni/net.d/10-test.conflist": `"ranges": [[{"subnet": "10.32.1.0/24"}], [{"subnet": "fd00:32:0:1::/64"}]]`,
		"kube-proxy.yaml":                "clusterCIDR: 10.32.0.0/16,fd00:32::/48",
		"kubelet.yaml":                   "cgroupRoot: /flowpin-k8s/node-1",
		"etc/hosts":                      "172.20.0.11 node-1",
	} {
		text, err := os.ReadFile(c.of("node-1", path))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("%s has no %q:\n%s", path, want, text)
		}
	}
}

func TestListOfTests(t *testing.T) {
	tests, err := readExpected("../tests.tsv")
	if err != nil {
		t.Fatal(err)
	}
	if len(tests) != 146 {
		t.Errorf("%d tests", len(tests))
	}
	seconds := 0
	for i, test := range tests {
		if slices.IndexFunc(tests, func(other expected) bool { return other.name == test.name && other.cluster == test.cluster }) != i {
			t.Errorf("twice: %s", test.name)
		}
		if !slices.ContainsFunc(kinds, func(k struct {
			name  string
			nodes int
			dual  bool
		}) bool {
			return k.name == test.cluster
		}) {
			t.Errorf("no cluster is called %s", test.cluster)
		}
		if test.part == "default" {
			seconds += test.seconds
		}
	}
	// Eight at a time, and half as much again for a machine that isn't idle.
	if limit := 12 * 60 * 8 * 2 / 3; seconds > limit {
		t.Errorf("the default part takes %d s, more than %d", seconds, limit)
	}
}

func TestOutcomes(t *testing.T) {
	cases := map[string]junitCase{
		"good": {Name: "[It] good", Time: 3}, "bad": {Failure: &junitSay{Message: "timed out"}}, "broken": {Error: &junitSay{Message: "panicked"}},
		"unfit": {Skipped: &junitSay{Message: "skipped - wants a cloud"}}, "left out": {Skipped: &junitSay{Message: "skipped"}},
	}
	outcomes := []outcome{}
	for name, want := range map[string]string{"good": "passed", "bad": "failed", "broken": "failed", "unfit": "skipped", "left out": "not run", "renamed": "not run"} {
		o := judge(expected{name: name, cluster: "dual"}, cases)
		if o.result != want {
			t.Errorf("%s: %s, not %s", name, o.result, want)
		}
		outcomes = append(outcomes, o)
	}
	path := filepath.Join(t.TempDir(), "junit.xml")
	if err := writeJUnit(path, outcomes); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	report := junit{}
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if suite := report.Suites[0]; suite.Tests != 6 || suite.Failures != 2 || suite.Skipped != 3 || suite.Time != 3 {
		t.Errorf("%+v", suite)
	}
}

func TestTableOfResults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "document.md")
	if err := os.WriteFile(path, []byte("before\n<!-- results -->\n<!-- end of results -->\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	of := func(result string) []outcome {
		return []outcome{
			{expected: expected{name: "[sig-network] Services should a"}, result: "passed"},
			{expected: expected{name: "[sig-network] Services should b"}, result: result},
			{expected: expected{name: "[sig-network] Conntrack should c"}, result: "passed"},
		}
	}
	for column, outcomes := range map[string][]outcome{"Flowpin, tc": of("failed"), "kube-proxy, iptables": of("passed")} {
		if err := recordIn(path, column, outcomes); err != nil {
			t.Fatal(err)
		}
	}
	// A run replaces its own column only.
	if err := recordIn(path, "Flowpin, tc", of("passed")); err != nil {
		t.Fatal(err)
	}
	if err := recordIn(path, "Flowpin, tc", of("failed")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `before
<!-- results -->

| tests | Flowpin, tc | kube-proxy, iptables |
|---|---|---|
| Conntrack | 1 of 1 | 1 of 1 |
| Services | 1 of 2 | 2 of 2 |
| all | 2 of 3 | 3 of 3 |

<!-- end of results -->
after
`
	if string(text) != want {
		t.Errorf("%s", text)
	}
}

func TestNames(t *testing.T) {
	services := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	endpoints := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "ns"} }
	for _, service := range []*corev1.Service{
		{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.80", ClusterIPs: []string{"10.96.0.80", "fd00:96::80"}}},
		{ObjectMeta: meta("db"), Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone}},
		{ObjectMeta: meta("alias"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.ns.svc.cluster.local"}},
	} {
		if err := services.Add(service); err != nil {
			t.Fatal(err)
		}
	}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta("db-1"), Endpoints: []discoveryv1.Endpoint{
		{Addresses: []string{"10.32.1.5"}, Hostname: ptr.To("db-0")},
		{Addresses: []string{"10.32.2.5"}, Hostname: ptr.To("db-1"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
	}}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "db"}
	if err := endpoints.Add(slice); err != nil {
		t.Fatal(err)
	}
	server := &names{corelisters.NewServiceLister(services), discoverylisters.NewEndpointSliceLister(endpoints)}
	for _, test := range []struct {
		name   string
		kind   dnsmessage.Type
		code   dnsmessage.RCode
		answer string
	}{
		{"web.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.96.0.80"},
		{"WEB.ns.svc.cluster.local.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, "fd00:96::80"},
		{"db.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.32.1.5"},
		{"db-0.db.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "10.32.1.5"},
		{"db-1.db.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"db.ns.svc.cluster.local.", dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, ""},
		{"alias.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeSuccess, "web.ns.svc.cluster.local. 10.96.0.80"},
		{"alias.ns.svc.cluster.local.", dnsmessage.TypeCNAME, dnsmessage.RCodeSuccess, "web.ns.svc.cluster.local."},
		{"nothing.ns.svc.cluster.local.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"example.com.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
	} {
		question := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{
			{Name: dnsmessage.MustNewName(test.name), Type: test.kind, Class: dnsmessage.ClassINET},
		}}
		packed, err := question.Pack()
		if err != nil {
			t.Fatal(err)
		}
		answer := dnsmessage.Message{}
		if err := answer.Unpack(server.answer(packed)); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		texts := []string{}
		for _, record := range answer.Answers {
			switch body := record.Body.(type) {
			case *dnsmessage.AResource:
				texts = append(texts, netip.AddrFrom4(body.A).String())
			case *dnsmessage.AAAAResource:
				texts = append(texts, netip.AddrFrom16(body.AAAA).String())
			case *dnsmessage.CNAMEResource:
				texts = append(texts, body.CNAME.String())
			}
		}
		if got := strings.Join(texts, " "); answer.ID != 7 || answer.RCode != test.code || got != test.answer {
			t.Errorf("%s %v: %v, %q", test.name, test.kind, answer.RCode, got)
		}
	}
	if server.answer([]byte("no question")) != nil {
		t.Error("what isn't a question has no answer")
	}
}

func TestWhatAHolderSawIsJudged(t *testing.T) {
	at := func(seconds float64) time.Time {
		return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
	}
	pod := func(name string) *corev1.Pod { return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	lives := &lifetimes{told: map[string]time.Time{}, ended: map[string]time.Time{}}
	old := pod("old")
	lives.see(old, at(0))
	old.DeletionTimestamp = ptr.To(metav1.NewTime(at(30)))
	lives.see(old, at(10))
	lives.see(old, at(11))
	old.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(at(15))}}}}
	lives.see(old, at(16))
	lives.see(pod("new"), at(9))
	late, cut := lives.judge(account{
		Opened: []event{{Pod: "old", At: at(5)}, {Pod: "old", At: at(10.4)}, {Pod: "old", At: at(12)}, {Pod: "new", At: at(20)}},
		Ended:  []event{{Pod: "old", At: at(15.2)}, {Pod: "old", At: at(14.9)}, {Pod: "new", At: at(20)}},
	})
	if len(late) != 1 || !late[0].At.Equal(at(12)) {
		t.Errorf("late: %v", late)
	}
	if len(cut) != 2 || cut[0].Pod != "old" || cut[1].Pod != "new" {
		t.Errorf("cut: %v", cut)
	}
	told := account{Open: map[string]int{"a": 4, "b": 2}}
	if most, fewest := told.spread(3); most != 4 || fewest != 0 {
		t.Errorf("spread: %d to %d", fewest, most)
	}
	if told.whole(6) != nil || told.whole(7) == nil {
		t.Error("six are open, of six or of seven")
	}
}

func TestCommandsOfTheDocumentation(t *testing.T) {
	const text = "# A\n\n## Before\n\n    no\n\n## Install\n\n    one a   # what\n    two \\\n        b\n\nProse, `no`.\n\n    three # c\n\n## After\n\n    no\n"
	want := [][]string{{"one a", "two b"}, {"three"}}
	if got := commands(text, "Install"); !slices.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("%q", got)
	}
}

package main

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// expected is a line of tests.tsv.
type expected struct {
	part, cluster, name string
	seconds             int
}

func readExpected(path string) ([]expected, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	tests := []expected{}
	lines := bufio.NewScanner(file)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		fields := strings.Split(line, "\t")
		if strings.HasPrefix(line, "#") || fields[0] == "part" {
			continue
		}
		if len(fields) != 4 {
			return nil, fmt.Errorf("%s:%d: not four fields: %q", path, number, line)
		}
		seconds, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		tests = append(tests, expected{fields[0], fields[1], fields[3], seconds})
	}
	return tests, lines.Err()
}

// kinds of cluster that tests want, in the order in which they are booted.
var kinds = []struct {
	name  string
	nodes int
	dual  bool
}{
	{"dual", 3, true},
	{"ipv4", 3, false},
	{"six", 6, true},
}

// outcome of one test.
type outcome struct {
	expected
	result  string // passed, failed, skipped, not run
	took    float64
	message string
}

// junit is the part of a report that is read, and written.
type junit struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     float64     `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string    `xml:"name,attr"`
	Class   string    `xml:"classname,attr"`
	Time    float64   `xml:"time,attr"`
	Failure *junitSay `xml:"failure"`
	Error   *junitSay `xml:"error"`
	Skipped *junitSay `xml:"skipped"`
}

type junitSay struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// runTests runs upstream's tests with these names against the cluster that is up, from the outside client, and says what became of each. What Ginkgo
// prints goes to a file.
func (c *Cluster) runTests(tests []expected, out string, atOnce int) ([]outcome, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	patterns := []string{}
	for _, test := range tests {
		patterns = append(patterns, regexp.QuoteMeta(test.name))
	}
	log, err := os.Create(filepath.Join(out, "ginkgo.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := foreground(c.bin("ginkgo"), "run", fmt.Sprint("--procs=", atOnce), "--no-color", "--silence-skips", "--timeout=3h",
		"--focus="+strings.Join(patterns, "|"), c.bin("e2e.test"), "--",
		"--provider=local", "--kubeconfig="+c.kubeconfig(), "--kubectl-path="+c.bin("kubectl"), "--report-dir="+out,
		fmt.Sprint("--num-nodes=", c.Nodes), "--dump-logs-on-failure=false", "--node-os-distro=custom")
	cmd.Env = append(cmd.Env, "KUBECONFIG="+c.kubeconfig())
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	runError := inNamespace(client, cmd.Run)
	fmt.Printf("%d tests, %d at a time, took %.0f s; %s\n", len(tests), atOnce, time.Since(began).Seconds(), log.Name())
	var exit *exec.ExitError
	if runError != nil && !errors.As(runError, &exit) {
		return nil, runError
	}
	outcomes, err := readReports(tests, out)
	if err == nil && runError != nil && !slices.ContainsFunc(outcomes, func(o outcome) bool { return o.result != "passed" }) {
		err = fmt.Errorf("ginkgo: %w, though all tests passed; see %s", runError, log.Name())
	}
	return outcomes, err
}

func readReports(tests []expected, out string) ([]outcome, error) {
	files, err := filepath.Glob(filepath.Join(out, "junit*.xml"))
	if err != nil {
		return nil, err
	}
	cases := map[string]junitCase{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		report := junit{}
		if err := xml.Unmarshal(text, &report); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, suite := range report.Suites {
			for _, one := range suite.Cases {
				if name, ok := strings.CutPrefix(one.Name, "[It] "); ok {
					cases[name] = one
				}
			}
		}
	}
	outcomes := []outcome{}
	for _, test := range tests {
		outcomes = append(outcomes, judge(test, cases))
	}
	return outcomes, nil
}

func judge(test expected, cases map[string]junitCase) outcome {
	o := outcome{expected: test, result: "not run"}
	one, ok := cases[test.name]
	if !ok {
		return o
	}
	o.took = one.Time
	say := func(result string, what *junitSay) {
		if what != nil {
			o.result, o.message = result, strings.TrimSpace(what.Message)
		}
	}
	o.result = "passed"
	say("skipped", one.Skipped)
	say("failed", one.Failure)
	say("failed", one.Error)
	// Ginkgo reports what the focus left out as skipped, too.
	if o.result == "skipped" && (o.message == "" || o.message == "skipped") {
		o.result = "not run"
	}
	return o
}

// writeJUnit leaves one report of all clusters.
func writeJUnit(path string, outcomes []outcome) error {
	report := junit{}
	for _, kind := range kinds {
		suite := junitSuite{Name: "kubernetes/" + kind.name}
		for _, o := range outcomes {
			if o.cluster != kind.name {
				continue
			}
			one := junitCase{Name: o.name, Class: suite.Name, Time: o.took}
			switch o.result {
			case "passed":
			case "failed":
				one.Failure = &junitSay{Message: o.message}
				suite.Failures++
			default:
				one.Skipped = &junitSay{Message: o.result + " " + o.message}
				suite.Skipped++
			}
			suite.Tests++
			suite.Time += o.took
			suite.Cases = append(suite.Cases, one)
		}
		if suite.Tests > 0 {
			report.Suites = append(report.Suites, suite)
		}
	}
	text, err := xml.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte(xml.Header), text...), 0o644)
}

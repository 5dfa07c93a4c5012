package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// area is the part of a test's name that says what it is about.
func area(name string) string {
	name = strings.TrimPrefix(name, "[sig-network] ")
	name = strings.TrimPrefix(name, "[Feature:IPv6DualStack] ")
	for _, known := range []string{"Granular Checks: Services Secondary IP Family", "Networking Granular Checks: Pods", "Networking Granular Checks: Services",
		"Conntrack", "Connectivity Pod Lifecycle", "EndpointSliceMirroring", "EndpointSlice", "EndpointsController", "Endpoints", "HostPort",
		"LoadBalancers", "Networking", "NoSNAT", "Proxy", "Service CIDRs", "ServiceCIDR", "Service endpoints latency", "Services", "Topology Hints",
		"Traffic Distribution"} {
		if strings.HasPrefix(name, known) {
			return known
		}
	}
	return "Dual stack"
}

// printTable shows every test, then each area's sum, and says how many passed.
func printTable(outcomes []outcome) (passed int) {
	fmt.Printf("\n%-8s %7s  %s\n", "result", "seconds", "test")
	for _, o := range outcomes {
		fmt.Printf("%-8s %7.1f  %s\n", o.result, o.took, o.name)
		if o.result == "passed" {
			passed++
		} else if o.message != "" {
			fmt.Printf("%18s%s\n", "", firstLine(o.message))
		}
	}
	fmt.Println()
	for _, line := range sums(outcomes) {
		fmt.Printf("%4d of %-4d %s\n", line.passed, line.all, line.area)
	}
	return passed
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

type sum struct {
	area        string
	passed, all int
}

func sums(outcomes []outcome) []sum {
	result := []sum{}
	for _, o := range outcomes {
		i := slices.IndexFunc(result, func(s sum) bool { return s.area == area(o.name) })
		if i < 0 {
			i = len(result)
			result = append(result, sum{area: area(o.name)})
		}
		result[i].all++
		if o.result == "passed" {
			result[i].passed++
		}
	}
	slices.SortFunc(result, func(a, b sum) int { return strings.Compare(a.area, b.area) })
	return result
}

// recordIn writes the sums into a document, as the column of this name of the table between the two marks.
func recordIn(path, column string, outcomes []outcome) error {
	const begin, end = "<!-- results -->\n", "<!-- end of results -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), begin)
	old, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s: no place for results: %q, later %q", path, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	columns, cells := readTable(old)
	if !slices.Contains(columns, column) {
		columns = append(columns, column)
		slices.Sort(columns)
	}
	total := sum{area: "all"}
	for _, line := range append(sums(outcomes), total) {
		if line.area != total.area {
			total.passed, total.all = total.passed+line.passed, total.all+line.all
		} else {
			line = total
		}
		if cells[line.area] == nil {
			cells[line.area] = map[string]string{}
		}
		cells[line.area][column] = fmt.Sprintf("%d of %d", line.passed, line.all)
	}
	return os.WriteFile(path, []byte(before+begin+writeTable(columns, cells)+end+after), 0o644)
}

// readTable reads what writeTable has written.
func readTable(text string) (columns []string, cells map[string]map[string]string) {
	cells = map[string]map[string]string{}
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		switch {
		case len(fields) < 2 || strings.HasPrefix(fields[0], "---"):
		case columns == nil:
			columns = fields[1:]
		default:
			cells[fields[0]] = map[string]string{}
			for i, cell := range fields[1:] {
				cells[fields[0]][columns[i]] = cell
			}
		}
	}
	return columns, cells
}

func writeTable(columns []string, cells map[string]map[string]string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "\n| tests | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	areas := []string{}
	for area := range cells {
		areas = append(areas, area)
	}
	slices.SortFunc(areas, func(a, b string) int {
		// The sum of all comes last.
		if (a == "all") != (b == "all") {
			if a == "all" {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	for _, area := range areas {
		fmt.Fprintf(&text, "| %s |", area)
		for _, column := range columns {
			fmt.Fprintf(&text, " %s |", cells[area][column])
		}
		text.WriteString("\n")
	}
	text.WriteString("\n")
	return text.String()
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hierarchy is one of the machine's: version 2, or one of version 1. Hybrid machines have both.
type hierarchy struct {
	mount   string
	unified bool
}

func hierarchies() ([]hierarchy, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	found := []hierarchy{}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) == 0 || fields[3] != "/" {
			continue
		}
		if kind[0] == "cgroup" || kind[0] == "cgroup2" {
			found = append(found, hierarchy{fields[4], kind[0] == "cgroup2"})
		}
	}
	if !slices.ContainsFunc(found, func(h hierarchy) bool { return h.unified }) {
		return nil, errors.New("no cgroup2 is mounted on this machine: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	}
	return found, nil
}

// alone says whether version 2 has the controllers: then a group that has children with controllers has no processes of its own.
func alone(all []hierarchy) bool { return len(all) == 1 }

// cgroupsUp makes each node's group in every hierarchy. Nodes are processes of one machine: without groups of their own, what one attaches to the
// root of cgroup2 would be in force for all.
func (c *Cluster) cgroupsUp() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		top := filepath.Join(h.mount, cgroupTop)
		if err := makeGroup(h, all, top); err != nil {
			return err
		}
		for n := 1; n <= c.Nodes; n++ {
			node := filepath.Join(top, nodeName(n))
			if err := makeGroup(h, all, node); err != nil {
				return err
			}
			if alone(all) {
				if err := os.MkdirAll(filepath.Join(node, "daemons"), 0o755); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func makeGroup(h hierarchy, all []hierarchy, path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if h.unified {
		if !alone(all) {
			return nil
		}
		controllers, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(controllers)) {
			file := filepath.Join(filepath.Dir(path), "cgroup.subtree_control")
			if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
				return fmt.Errorf("%s for %s: %w", controller, path, err)
			}
		}
		return nil
	}
	// A cpuset of version 1 is empty when it is made, and takes no process before it is filled in.
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(path, name), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// unifiedGroup gives a node's group of cgroup2, and the one that its daemons are in.
func unifiedGroup(node string) (group, daemons string, err error) {
	all, err := hierarchies()
	if err != nil {
		return "", "", err
	}
	for _, h := range all {
		if h.unified {
			group = filepath.Join(h.mount, cgroupTop, node)
		}
	}
	if alone(all) {
		return group, filepath.Join(group, "daemons"), nil
	}
	return group, group, nil
}

// cgroupsDown removes the groups; whoever was in them must have ended.
func cgroupsDown() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		groups := []string{}
		err := filepath.WalkDir(filepath.Join(h.mount, cgroupTop), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		// Children come after their parents.
		for _, group := range slices.Backward(groups) {
			if err := os.Remove(group); err != nil {
				return err
			}
		}
	}
	return nil
}

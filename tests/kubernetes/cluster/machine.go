package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is a process, this program again, that is the first of its own PID namespace, in its own mount, UTS and IPC namespaces and in a network
// namespace made before. When it is killed, the kernel ends all that it started.

// start starts a machine that carries on when this process has ended: `cluster inside ROLE`.
func (c *Cluster) start(machine, namespace string, role ...string) error {
	return c.spawn(machine, namespace, "machine.log", append([]string{"inside"}, role...), func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(c.bin("any"))+":/usr/sbin:/usr/bin:/sbin:/bin")
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	})
}

// background starts a helper of this program in a namespace, with the machine's own files.
func (c *Cluster) background(name, namespace string, args ...string) error {
	return c.spawn(name, namespace, name+".log", args, func(*exec.Cmd) {})
}

// spawn starts this program anew in a namespace, prepared by prepare, and notes its pid.
func (c *Cluster) spawn(name, namespace, logged string, args []string, prepare func(*exec.Cmd)) error {
	if err := os.MkdirAll(c.of(name, "log"), 0o755); err != nil {
		return err
	}
	log, err := os.Create(c.of(name, "log", logged))
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := command(self, args...)
	cmd.Env = append(cmd.Env, "FLOWPIN_KUBERNETES_CACHE="+c.cache)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	prepare(cmd)
	if err := inNamespace(namespace, cmd.Start); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.WriteFile(c.of(name, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return err
	}
	return cmd.Process.Release()
}

func (p paths) pid(machine string) (int, error) {
	text, err := os.ReadFile(p.of(machine, "pid"))
	if err != nil {
		return 0, fmt.Errorf("no machine %s is up: %w", machine, err)
	}
	return strconv.Atoi(string(text))
}

// groups of commands that were made: a file is closed when nobody has it any more.
var groups []*os.File

// on gives a command that runs on a machine: with its file systems, network, processes, and in its part of cgroup2.
func (c *Cluster) on(machine string, args ...string) (*exec.Cmd, error) {
	pid, err := c.pid(machine)
	if err != nil {
		return nil, err
	}
	enter := []string{"--target", strconv.Itoa(pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--"}
	if machine == "control" {
		return command("nsenter", append(enter, args...)...), nil
	}
	_, daemons, err := unifiedGroup(machine)
	if err != nil {
		return nil, err
	}
	group, err := os.Open(daemons)
	if err != nil {
		return nil, err
	}
	cmd := command("nsenter", append(enter, args...)...)
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(c.bin("any"))+":/usr/sbin:/usr/bin:/sbin:/bin", "KUBECONFIG="+c.kubeconfig())
	groups = append(groups, group)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	return cmd, nil
}

// run runs a command on a machine; what it printed is told if it fails.
func (c *Cluster) run(machine string, args ...string) error {
	cmd, err := c.on(machine, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s on %s: %w: %s", args[0], machine, err, out)
	}
	return nil
}

// insideHere gives a command of this program on this machine, made by `make`: `cluster inside ARGS`.
func (p paths) insideHere(make func(string, ...string) *exec.Cmd, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := make(self, append([]string{"inside"}, args...)...)
	cmd.Env = append(cmd.Env, "FLOWPIN_KUBERNETES_CACHE="+p.cache)
	return cmd, nil
}

// insideOn gives one on a machine. `by` are words before it: of nsenter, if it is to be in another network there.
func (c *Cluster) insideOn(machine string, by []string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd, err := c.on(machine, slices.Concat(by, []string{self, "inside"}, args)...)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "FLOWPIN_KUBERNETES_CACHE="+c.cache)
	return cmd, nil
}

// end kills all machines and helpers of the cluster and waits until they are gone.
func (p paths) end() error {
	entries, err := os.ReadDir(p.state())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	handles := map[string]int{}
	for _, entry := range entries {
		pid, err := p.pid(entry.Name())
		if err != nil || !p.ours(pid) {
			continue
		}
		handle, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		} else if err != nil {
			return err
		}
		defer unix.Close(handle)
		handles[entry.Name()] = handle
		if err := unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	for name, handle := range handles {
		poll := []unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}
		for {
			ready, err := unix.Poll(poll, int((30 * time.Second).Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			} else if err != nil {
				return err
			} else if ready == 0 {
				return fmt.Errorf("%s doesn't end", name)
			}
			break
		}
	}
	return nil
}

// ours says whether a process is one of this program's: a number may have been given to another since.
func (p paths) ours(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && strings.Contains(string(text), "FLOWPIN_KUBERNETES_CACHE="+p.cache+"\x00")
}

package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// supervisor is what the first process of a PID namespace has to be: it starts programs, and collects every process that ends, also those that lost
// their parent. os/exec would wait for its own children and find them collected.
type supervisor struct {
	mutex   sync.Mutex
	waiting map[int]chan<- unix.WaitStatus
}

func newSupervisor() *supervisor {
	s := &supervisor{waiting: map[int]chan<- unix.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			s.collect()
		}
	}()
	return s
}

func (s *supervisor) collect() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
		// Whoever starts a process holds this until it is known whom to tell.
		s.mutex.Lock()
		told := s.waiting[pid]
		delete(s.waiting, pid)
		s.mutex.Unlock()
		if told != nil {
			told <- status
		}
	}
}

// start starts a program found in PATH; what it prints goes to a file.
func (s *supervisor) start(output string, args ...string) (<-chan unix.WaitStatus, error) {
	file, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer nothing.Close()
	cmd := command(args[0], args[1:]...)
	if cmd.Err != nil {
		return nil, cmd.Err
	}
	told := make(chan unix.WaitStatus, 1)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	process, err := os.StartProcess(cmd.Path, args, &os.ProcAttr{Env: cmd.Env, Files: []*os.File{nothing, file, file}})
	if err != nil {
		return nil, err
	}
	s.waiting[process.Pid] = told
	return told, nil
}

// run waits for a program to end well.
func (s *supervisor) run(output string, args ...string) error {
	told, err := s.start(output, args...)
	if err != nil {
		return err
	}
	if status := <-told; status != 0 {
		return fmt.Errorf("%s: %s; see %s", strings.Join(args, " "), ending(status), output)
	}
	return nil
}

// daemon starts one that isn't expected to end; the machine's log tells if it does.
func (s *supervisor) daemon(output string, args ...string) error {
	told, err := s.start(output, args...)
	if err != nil {
		return err
	}
	go func() { log.Printf("%s has ended: %s; see %s", args[0], ending(<-told), output) }()
	return nil
}

func ending(status unix.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + status.Signal().String()
	}
	return fmt.Sprintf("status %d", status.ExitStatus())
}

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A holder is a process somewhere in the cluster that keeps connections to one address open. It asks who answers, on each, again and again: a connection
// that is cut, or led to another pod, is seen when it happens.

const (
	// pause between two questions on a connection.
	pause = 250 * time.Millisecond
	// patienceOfHolders is how long an answer may take: a machine with two cores runs three nodes.
	patienceOfHolders = 10 * time.Second
	// churnPause is between two short connections of a holder that is asked to churn.
	churnPause = 20 * time.Millisecond
)

// event is what happened to a connection.
type event struct {
	Pod string
	At  time.Time
	Why string `json:",omitempty"`
}

// account is what a holder has seen since it began.
type account struct {
	// Open connections by the pod that answers.
	Open map[string]int
	// Opened has one for each connection that got its first answer.
	Opened []event
	// Ended has those that ended without having been closed here, and Refused those that got no first answer.
	Ended, Refused []event
	// Short connections that were opened, asked and closed well, besides.
	Short int
}

type holding struct {
	target string
	mutex  sync.Mutex
	all    account
	// reopen says whether what ends is opened anew, as a client would.
	reopen bool
	// round counts calls of close: whatever is of an earlier one ends.
	round   int
	answers map[int]int
	last    int
	running sync.WaitGroup
}

// serveHolder follows the orders that come by lines, and answers each with a line of JSON.
func serveHolder(target string) error {
	h := &holding{target: target, all: account{Open: map[string]int{}}, answers: map[int]int{}}
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		order, argument, _ := strings.Cut(lines.Text(), " ")
		switch order {
		case "open":
			count, err := strconv.Atoi(argument)
			if err != nil {
				return err
			}
			for range count {
				h.open()
			}
		case "reopen":
			h.set(func() { h.reopen = true })
		case "churn":
			go h.churn()
		case "settle":
			h.settle()
		case "close":
			h.set(func() { h.round++ })
			h.running.Wait()
		case "tell":
		default:
			return fmt.Errorf("no order %q", order)
		}
		h.mutex.Lock()
		err := out.Encode(h.all)
		h.mutex.Unlock()
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func (h *holding) set(change func()) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	change()
}

// open opens one connection and returns when it has its first answer, or none.
func (h *holding) open() {
	connection, reader, pod, err := dialAndAsk(h.target)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if err != nil {
		h.all.Refused = append(h.all.Refused, event{"", time.Now(), err.Error()})
		return
	}
	h.last++
	h.all.Open[pod]++
	h.all.Opened = append(h.all.Opened, event{Pod: pod, At: time.Now()})
	number, round := h.last, h.round
	h.answers[number] = 0
	h.running.Go(func() { h.keep(connection, reader, pod, number, round) })
}

// keep asks until the connection ends, or is to be closed.
func (h *holding) keep(connection net.Conn, reader *bufio.Reader, pod string, number, round int) {
	defer connection.Close()
	for {
		time.Sleep(pause)
		again, err := ask(connection, reader)
		if err == nil && again != pod {
			err = fmt.Errorf("%s answers", again)
		}
		h.mutex.Lock()
		over := h.round != round
		if err == nil && !over {
			h.answers[number]++
			h.mutex.Unlock()
			continue
		}
		delete(h.answers, number)
		h.all.Open[pod]--
		if h.all.Open[pod] == 0 {
			delete(h.all.Open, pod)
		}
		if err != nil {
			h.all.Ended = append(h.all.Ended, event{pod, time.Now(), err.Error()})
		}
		reopen := err != nil && h.reopen && !over
		h.mutex.Unlock()
		if reopen {
			h.open()
		}
		return
	}
}

// settle returns when each connection that is open now has got two more answers, or has ended.
func (h *holding) settle() {
	h.mutex.Lock()
	wanted := map[int]int{}
	for number, answers := range h.answers {
		wanted[number] = answers + 2
	}
	h.mutex.Unlock()
	for {
		h.mutex.Lock()
		for number, answers := range wanted {
			if now, open := h.answers[number]; !open || now >= answers {
				delete(wanted, number)
			}
		}
		h.mutex.Unlock()
		if len(wanted) == 0 {
			return
		}
		time.Sleep(pause)
	}
}

// churn opens short connections for as long as the process lives.
func (h *holding) churn() {
	for range time.Tick(churnPause) {
		connection, _, pod, err := dialAndAsk(h.target)
		h.mutex.Lock()
		if err != nil {
			h.all.Refused = append(h.all.Refused, event{pod, time.Now(), err.Error()})
		} else {
			h.all.Short++
		}
		h.mutex.Unlock()
		if err == nil {
			connection.Close()
		}
	}
}

func dialAndAsk(target string) (net.Conn, *bufio.Reader, string, error) {
	connection, err := net.DialTimeout("tcp", target, patienceOfHolders)
	if err != nil {
		return nil, nil, "", err
	}
	reader := bufio.NewReader(connection)
	pod, err := ask(connection, reader)
	if err != nil {
		connection.Close()
		return nil, nil, "", err
	}
	return connection, reader, pod, nil
}

// ask asks agnhost's netexec for the name of its pod.
func ask(connection net.Conn, reader *bufio.Reader) (string, error) {
	if err := connection.SetDeadline(time.Now().Add(patienceOfHolders)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(connection, "GET /hostname HTTP/1.1\r\nHost: holder\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(text), err
}

// holder is the other side: who gives the orders.
type holder struct {
	place string
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *json.Decoder
}

// holdBy starts a holder with this command, which runs `cluster inside hold TARGET` somewhere.
func holdBy(place string, cmd *exec.Cmd) (*holder, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("a holder %s: %w", place, err)
	}
	return &holder{place, cmd, in, json.NewDecoder(out)}, nil
}

// order gives one, and returns when it has been followed.
func (h *holder) order(line string) (account, error) {
	told := account{}
	if _, err := fmt.Fprintln(h.in, line); err != nil {
		return told, fmt.Errorf("the holder %s: %w", h.place, err)
	}
	if err := h.out.Decode(&told); err != nil {
		return told, fmt.Errorf("the holder %s: %q: %w", h.place, line, err)
	}
	return told, nil
}

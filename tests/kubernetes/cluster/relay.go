package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// relayPort of the control plane leads to the API server, as long as nobody says otherwise.
const relayPort = apiPort + 1

// halfBytes is where an answer is broken off: in the middle of an object.
const halfBytes = 300

// relay is a way to the API server that can be bad.
type relay struct {
	mutex sync.Mutex
	// pass: open as ever; refuse: nobody listens, and what is open is reset; silent: what is sent isn't delivered until it passes again;
	// half: answers are broken off after a few bytes.
	mode        string
	changed     *sync.Cond
	listener    net.Listener
	connections map[net.Conn]bool
}

// serveRelay runs in the control plane's network and follows orders that come by lines; each is answered when it is in force.
func (c *Cluster) serveRelay() error {
	r := &relay{mode: "pass", connections: map[net.Conn]bool{}}
	r.changed = sync.NewCond(&r.mutex)
	if err := r.listen(); err != nil {
		return err
	}
	fmt.Println("listening")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := r.follow(lines.Text()); err != nil {
			return err
		}
		fmt.Println(lines.Text())
	}
	return lines.Err()
}

func (r *relay) listen() error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", relayPort))
	if err != nil {
		return err
	}
	r.listener = listener
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // Closed: nobody listens then.
			}
			go r.carry(connection)
		}
	}()
	return nil
}

func (r *relay) follow(mode string) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	before := r.mode
	r.mode = mode
	r.changed.Broadcast()
	switch {
	case mode == "refuse":
		err := r.listener.Close()
		for connection := range r.connections {
			// Without this the peer would see an end in good order.
			_ = connection.(*net.TCPConn).SetLinger(0)
			connection.Close()
		}
		return err
	case before == "refuse":
		return r.listen()
	}
	return nil
}

func (r *relay) carry(from net.Conn) {
	to, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", apiPort), 10*time.Second)
	if err != nil {
		from.Close()
		return
	}
	r.mutex.Lock()
	r.connections[from] = true
	if r.mode == "refuse" {
		from.Close()
	}
	r.mutex.Unlock()
	done := make(chan struct{}, 2)
	go func() { r.copy(to, from, false); done <- struct{}{} }()
	go func() { r.copy(from, to, true); done <- struct{}{} }()
	<-done
	from.Close()
	to.Close()
	<-done
	r.mutex.Lock()
	delete(r.connections, from)
	r.mutex.Unlock()
}

// copy carries one direction; answers are what may be broken off.
func (r *relay) copy(to, from net.Conn, answers bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		r.mutex.Lock()
		for r.mode == "silent" {
			r.changed.Wait()
		}
		half := r.mode == "half" && answers && n > halfBytes
		r.mutex.Unlock()
		if half {
			_, _ = to.Write(buffer[:halfBytes])
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// relayed is the other side of a relay: who gives the orders.
type relayed struct {
	in  io.Writer
	out *bufio.Reader
}

// relay starts one in the control plane's network, and gives its URL.
func (c *Cluster) relay() (*relayed, string, error) {
	cmd, err := c.insideHere(command, "relay")
	if err != nil {
		return nil, "", err
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		return nil, "", err
	}
	if err := inNamespace(control, cmd.Start); err != nil {
		return nil, "", err
	}
	r := &relayed{in, bufio.NewReader(out)}
	return r, c.controlURL(relayPort), r.heard("listening")
}

func (r *relayed) heard(wanted string) error {
	line, err := r.out.ReadString('\n')
	if err == nil && strings.TrimSpace(line) != wanted {
		err = fmt.Errorf("it says %q", line)
	}
	if err != nil {
		return fmt.Errorf("the relay, of %q: %w", wanted, err)
	}
	return nil
}

// order gives one, and returns when it is in force.
func (r *relayed) order(mode string) error {
	if _, err := fmt.Fprintln(r.in, mode); err != nil {
		return fmt.Errorf("the relay: %w", err)
	}
	return r.heard(mode)
}

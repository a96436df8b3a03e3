package main

import (
	"bytes"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy stands before a Redis server. It counts what passes, and may let requests arrive late.
type proxy struct {
	addr     string
	target   string
	delay    time.Duration
	commands atomic.Int64
	trips    atomic.Int64 // round trips: how often a client sent something after it had heard something
	sent     atomic.Int64 // bytes, by clients
	received atomic.Int64 // bytes, by clients
}

// newProxy starts a proxy on a loopback port. It ends with tb.
func newProxy(tb testing.TB, target string, delay time.Duration) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), target: target, delay: delay}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.pass(client)
		}
	}()
	return p
}

// pass connects a client with the server until one of them hangs up.
func (p *proxy) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	var asked atomic.Bool
	go func() {
		defer client.Close()
		defer server.Close()
		forward(client, server, func(chunk []byte) {
			asked.Store(false)
			p.received.Add(int64(len(chunk)))
		})
	}()
	var c counter
	forward(server, client, func(chunk []byte) {
		if !asked.Swap(true) {
			p.trips.Add(1)
		}
		p.sent.Add(int64(len(chunk)))
		p.commands.Add(c.count(chunk))
		time.Sleep(p.delay)
	})
}

// forward shows each chunk before it hands it on.
func forward(to, from net.Conn, see func(chunk []byte)) {
	buf := make([]byte, 128<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			see(buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// A counter counts the commands in what a Redis client sends, which are arrays of strings.
type counter struct {
	line []byte // begun, not ended yet
	skip int    // of a string, to come
}

func (c *counter) count(p []byte) (commands int64) {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(p))
			c.skip -= n
			p = p[n:]
			continue
		}
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			c.line = append(c.line, p...)
			break
		}
		c.line = append(c.line, p[:i]...)
		p = p[i+1:]
		if line := bytes.TrimSuffix(c.line, []byte("\r")); len(line) > 0 {
			switch line[0] {
			case '*':
				commands++
			case '$':
				n, _ := strconv.Atoi(string(line[1:]))
				c.skip = n + 2
			}
		}
		c.line = c.line[:0]
	}
	return commands
}

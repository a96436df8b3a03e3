package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// connections is how many clients a server has, each with a keep-alive connection and a session of its own.
const connections = 64

// overHTTP are the scenarios that are measured over HTTP, too.
var overHTTP = []string{"untouched-redis", "read-cookie", "change-cookie", "read-redis", "change-redis", "three-read", "memory-read"}

// A load is how a scenario does over HTTP.
type load struct {
	Scenario string           `json:"scenario"`
	Libs     map[string]speed `json:"libs"`
	Ratio    float64          `json:"ratio"` // requests per second of sessplus to those of "hand", median of the rounds
}

type speed struct {
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ns"`
	P99       float64 `json:"p99_ns"`
}

// A client is a connection that sends the same request again and again.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	times   []time.Duration
}

// run sends a request and reads the response, which has no content.
func (c *client) run() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 204 ")):
			return fmt.Errorf("answer %q", line)
		case len(line) <= 2:
			return nil
		}
	}
}

// A site is an app that is served on loopback, with its clients.
type site struct {
	name    string
	clients []*client
	rates   []float64
}

// open serves an app and connects its clients.
func openSite(e *env, name string, a *app, s scenario) (*site, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: a.serve}
	go server.Serve(l)
	e.tb.Cleanup(func() { server.Close() })
	site := &site{name: name}
	for range connections {
		r, err := a.logIn(s)
		if err != nil {
			return nil, err
		}
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		e.tb.Cleanup(func() { conn.Close() })
		text := "GET / HTTP/1.1\r\nHost: localhost\r\n"
		if cookies := r.Header.Get("Cookie"); cookies != "" {
			text += "Cookie: " + cookies + "\r\n"
		}
		site.clients = append(site.clients, &client{conn: conn, in: bufio.NewReader(conn), request: []byte(text + "\r\n")})
	}
	return site, nil
}

// slice lets all clients send requests for d.
func (x *site) slice(d time.Duration) error {
	var all sync.WaitGroup
	errs := make([]error, len(x.clients))
	counts := make([]int, len(x.clients))
	start := time.Now()
	for i, c := range x.clients {
		all.Go(func() {
			for begin := start; begin.Sub(start) < d; counts[i]++ {
				if errs[i] = c.run(); errs[i] != nil {
					return
				}
				end := time.Now()
				c.times = append(c.times, end.Sub(begin))
				begin = end
			}
		})
	}
	all.Wait()
	n := 0
	for _, c := range counts {
		n += c
	}
	x.rates = append(x.rates, float64(n)/time.Since(start).Seconds())
	return errors.Join(errs...)
}

func (x *site) speed() speed {
	var times []time.Duration
	for _, c := range x.clients {
		times = append(times, c.times...)
	}
	slices.Sort(times)
	return speed{middle(x.rates), float64(times[len(times)/2]), float64(times[len(times)*99/100])}
}

func measureHTTP(e *env, s scenario, rounds int, d time.Duration) (load, error) {
	var sites []*site
	var own, hand *site
	for _, lib := range libraries {
		a := lib.open(e, s)
		if a == nil {
			continue
		}
		x, err := openSite(e, lib.Name, a, s)
		if err != nil {
			return load{}, fmt.Errorf("%s: %w", lib.Name, err)
		}
		if err := x.slice(d / 10); err != nil {
			return load{}, fmt.Errorf("%s: %s: %w", lib.Name, s.Name, err)
		}
		for _, c := range x.clients { // that was to warm up
			c.times = nil
		}
		x.rates = nil
		sites = append(sites, x)
		switch lib.Name {
		case "hand":
			hand = x
		case "sessplus":
			own = x
		}
	}
	for round := range rounds {
		for i := range sites {
			x := sites[(i+round)%len(sites)]
			if err := x.slice(d); err != nil {
				return load{}, fmt.Errorf("%s: %s: %w", x.name, s.Name, err)
			}
		}
	}
	l := load{Scenario: s.Name, Libs: map[string]speed{}}
	for _, x := range sites {
		l.Libs[x.name] = x.speed()
	}
	ratios := make([]float64, rounds)
	for i := range ratios {
		ratios[i] = own.rates[i] / hand.rates[i]
	}
	l.Ratio = middle(ratios)
	return l, nil
}

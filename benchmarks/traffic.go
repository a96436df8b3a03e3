package main

import (
	"fmt"
	"slices"
)

// Traffic is what one request of a scenario exchanges with Redis.
type traffic struct {
	Scenario string           `json:"scenario"`
	Libs     map[string]flows `json:"libs"`
}

// Flows are means per request.
type flows struct {
	Commands float64 `json:"commands"`
	Trips    float64 `json:"trips"`
	Sent     float64 `json:"sent"`
	Received float64 `json:"received"`
}

// count sends n requests of a library's app through a counting proxy. It is false if the library does not have the
// scenario.
func count(e *env, s scenario, lib library, n int) (flows, bool, error) {
	e.redis() // starts the server
	p := newProxy(e.tb, e.redisAddr, 0)
	a := lib.open(&env{tb: e.tb, redisAddr: p.addr}, s)
	if a == nil {
		return flows{}, false, nil
	}
	x, err := newRunner(a, s)
	if err != nil {
		return flows{}, false, fmt.Errorf("%s: %w", lib.Name, err)
	}
	read := func() flows {
		return flows{float64(p.commands.Load()), float64(p.trips.Load()), float64(p.sent.Load()), float64(p.received.Load())}
	}
	before := read()
	for range n {
		if err := x.run(); err != nil {
			return flows{}, false, fmt.Errorf("%s: %s: %w", lib.Name, s.Name, err)
		}
	}
	after, per := read(), float64(n)
	return flows{
		Commands: (after.Commands - before.Commands) / per, Trips: (after.Trips - before.Trips) / per,
		Sent: (after.Sent - before.Sent) / per, Received: (after.Received - before.Received) / per,
	}, true, nil
}

// usesRedis tells the scenarios that have traffic to count.
func (s scenario) usesRedis() bool { return slices.Contains([]place{inRedis, inBig, inThree}, s.place) }

func measureTraffic(e *env, s scenario) (traffic, error) {
	t := traffic{s.Name, map[string]flows{}}
	for _, lib := range slices.Concat(libraries, otherWays) {
		f, ok, err := count(e, s, lib, 100)
		if err != nil {
			return t, err
		}
		if ok {
			t.Libs[lib.Name] = f
		}
	}
	return t, nil
}

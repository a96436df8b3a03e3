package sessplustest_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplustest"
)

// A breaker is a backend that breaks one rule.
type breaker struct {
	sessplus.Backend
	create func(r *sessplus.Record)
	update func(c *sessplus.Change, r *sessplus.Record) // r is the record as it is, or nil
	end    func(e *sessplus.Ending, r *sessplus.Record)
	load   func(r *sessplus.Record)
	key    func(key string) string
}

func (b *breaker) stored(key string) string {
	if b.key != nil {
		return b.key(key)
	}
	return key
}

func (b *breaker) Owned(ctx context.Context, owner string) ([]sessplus.KeyedRecord, error) {
	return b.Backend.(sessplus.Indexer).Owned(ctx, owner)
}

func (b *breaker) Load(ctx context.Context, key string) (*sessplus.Record, error) {
	r, err := b.Backend.Load(ctx, b.stored(key))
	if b.load != nil && err == nil {
		b.load(r)
	}
	return r, err
}

func (b *breaker) Create(ctx context.Context, key string, r *sessplus.Record) error {
	altered := *r
	if b.create != nil {
		b.create(&altered)
	}
	return b.Backend.Create(ctx, b.stored(key), &altered)
}

func (b *breaker) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	altered := *c
	if b.update != nil {
		r, _ := b.Backend.Load(ctx, b.stored(key))
		b.update(&altered, r)
	}
	return b.Backend.Update(ctx, b.stored(key), &altered)
}

func (b *breaker) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	altered := *e
	if b.end != nil {
		r, _ := b.Backend.Load(ctx, b.stored(key))
		b.end(&altered, r)
	}
	return b.Backend.End(ctx, b.stored(key), &altered)
}

// breakers are named after the rule they break. The promise that is broken is a test of the suite, whose message must
// match.
var breakers = map[string]struct {
	breaker
	promise, message string
}{
	"fields stay": {breaker{update: func(c *sessplus.Change, _ *sessplus.Record) {
		if c.Delete != nil {
			c.Delete = []string{"other"}
		}
	}}, "History", `field "(a|:b|__c__)" is "\d", and by Change.Apply it is absent\n`},
	"other values": {breaker{update: func(c *sessplus.Change, _ *sessplus.Record) {
		c.Set = slices.Clone(c.Set)
		for i := range c.Set {
			c.Set[i].Value = []byte("x")
		}
	}}, "History", `field "(a|:b|__c__)" is "x", and by Change.Apply it is "\d"\n`},
	"earlier expiry": {breaker{update: func(c *sessplus.Change, r *sessplus.Record) { c.Exact, c.Seen = true, r }}, "History",
		`Expires is [\d:.]{12}, and by Change.Apply it is [\d:.]{12}, [\dhms.]+ later \(the later of Change.Expires and the stored time\)\n`},
	"no permanence": {breaker{update: func(c *sessplus.Change, _ *sessplus.Record) { c.Permanent, c.Expires = nil, c.Now }}, "Permanent",
		`after an Update with Permanent true the Expires is [\d:.]{12}, want [\d:.]{12}, 1h0m0s later\n.*Permanent is false, want true\n`},
	"no condition": {breaker{update: func(c *sessplus.Change, _ *sessplus.Record) { c.Match = nil }}, "History",
		`the error of Update is nil, and by Change.Apply it is ErrConflict\n`},
	"another clock": {breaker{update: func(c *sessplus.Change, _ *sessplus.Record) { c.Now = c.Now.Add(time.Second) }}, "UpdateOnlyThat",
		`after an Update of some fields the Saved is [\d:.]{12}, want [\d:.]{12}, 1s earlier\n`},
	"no owner of a take": {breaker{end: func(e *sessplus.Ending, r *sessplus.Record) {
		if r != nil && r.Mark != nil && e.Token != "" && e.Step == sessplus.StepEnd {
			e.Token = r.Mark.Token
		}
	}}, "History", `the error of End is nil, and by Ending.Apply it is ErrTaken\n`},
	"no origin": {breaker{create: func(r *sessplus.Record) { r.Origin = "" }}, "RoundTrip",
		`after Create the Origin is "", want "0123abc"\n`},
	"long values cut": {breaker{load: func(r *sessplus.Record) {
		for i, f := range r.Fields {
			r.Fields[i].Value = f.Value[:min(len(f.Value), 100)]
		}
	}}, "Large", `in the record field "field0" is "x{20}"…"x{20}" \(100 bytes\), want "x{20}"…"x{20}" \(500 bytes\)\n`},
	"keys of one case": {breaker{key: strings.ToLower}, "Keys", `Create: sessplus: the record exists already\n`},
	"short keys": {breaker{key: func(key string) string { return key[:min(len(key), 832)] }}, "Keys",
		`Create: sessplus: the record exists already\n`},
	"no mark": {breaker{load: func(r *sessplus.Record) { r.Mark = nil }}, "Take",
		`Load gives the Mark <nil> of a record that was taken by mine\n`},
	"short devices": {breaker{create: func(r *sessplus.Record) { r.Device = r.Device[:min(len(r.Device), 250)] }}, "OwnedCreate",
		`Load = Owner ".*" and Device "Browser/.*", want ".*" and "Browser/.*"\n`},
}

// SPEC 13.2: a failure of the suite names the field or the rule that differs, in a message that a person can read.
func TestSuiteNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	const env = "SESSPLUS_TEST_BREAKER"
	if rule, set := os.LookupEnv(env); set {
		sessplustest.TestBackend(t, func(*testing.T) sessplus.Backend {
			b := breakers[rule].breaker
			b.Backend = sessplus.Memory()
			return &b
		})
		return
	}
	var wg sync.WaitGroup
	for rule, b := range breakers {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$/^"+b.promise+"$", "-test.timeout=60s",
				"-test.count=50", "-test.failfast") // a random history may not meet the rule
			cmd.Env = append(os.Environ(), env+"="+rule)
			out, _ := cmd.CombinedOutput()
			if !regexp.MustCompile(b.message).Match(out) || !bytes.Contains(out, []byte("breaks the promise: ")) {
				t.Errorf("a backend with %s: the suite says\n%.2000s\nwant %s", rule, out, b.message)
			}
			if len(out) > 1500 {
				t.Errorf("a backend with %s: the suite says this in %d bytes, want at most 1500\n%.4000s", rule, len(out), out)
			}
		})
	}
	wg.Wait()
}

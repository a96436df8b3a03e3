package sessplus_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplustest"
)

// A mutant is an Indexer and DeviceKeeper that forgets one rule.
type mutant struct {
	sessplus.Indexer
	rule string

	mu     sync.Mutex
	former map[string][]sessplus.KeyedRecord // what owners had
	hidden map[string]bool                   // keys
}

var mutants = []string{"", "each twice", "no key", "no mark", "no device", "any case", "no end", "no release", "no change of owner", "owner lost", "no cancel", "only one",
	"key dropped", "key never set", "last key stays"}

func (b *mutant) Create(ctx context.Context, key string, r *sessplus.Record) error {
	c := *r
	switch b.rule {
	case "no device":
		c.Device = ""
	case "any case":
		c.Owner = strings.ToLower(c.Owner)
	case "key dropped":
		c.DeviceKey = ""
	}
	return b.Indexer.Create(ctx, key, &c)
}

func (b *mutant) Update(ctx context.Context, key string, c *sessplus.Change) (sessplus.Result, error) {
	other := *c
	switch {
	case b.rule == "no change of owner":
		other.Owner = nil
	case b.rule == "owner lost" && c.Owner == nil && c.Permanent != nil:
		other.Owner = new(string)
	case b.rule == "key never set":
		other.DeviceKey = ""
	case b.rule == "last key stays" && c.DeviceKey != "":
		if r, err := b.Load(ctx, key); err == nil && r.DeviceKey != "" {
			other.DeviceKey = r.DeviceKey
		}
	}
	return b.Indexer.Update(ctx, key, &other)
}

func (b *mutant) End(ctx context.Context, key string, e *sessplus.Ending) (*sessplus.Record, error) {
	r, err := b.Indexer.End(ctx, key, e)
	if b.rule == "no release" && e.Step == sessplus.StepEnd {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.hidden[key] = true
	}
	return r, err
}

func (b *mutant) Owned(ctx context.Context, owner string) ([]sessplus.KeyedRecord, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.rule {
	case "any case":
		owner = strings.ToLower(owner)
	case "no cancel":
		ctx = context.WithoutCancel(ctx)
	}
	all, err := b.Indexer.Owned(ctx, owner)
	var list []sessplus.KeyedRecord
	for _, r := range all {
		switch {
		case b.rule == "each twice":
			list = append(list, r)
		case b.rule == "no key":
			r.Key = owner
		case b.rule == "no mark":
			r.Mark = nil
		case b.hidden[r.Key]:
			continue
		}
		list = append(list, r)
	}
	if len(list) == 0 && b.rule == "no end" {
		return b.former[owner], err
	}
	b.former[owner] = list
	if b.rule == "only one" && len(list) > 0 {
		return list[:1], err
	}
	return list, err
}

// KeepsDeviceKeys implements [sessplus.DeviceKeeper].
func (*mutant) KeepsDeviceKeys() {}

// SPEC 10.7, 14.1: the suite tells an Indexer and DeviceKeeper that keeps its promises from one that forgets a rule.
func TestSuiteCatchesMutants(t *testing.T) {
	t.Parallel()
	const env = "SESSPLUS_TEST_MUTANT"
	if rule, set := os.LookupEnv(env); set {
		sessplustest.TestBackend(t, func(*testing.T) sessplus.Backend {
			return &mutant{Indexer: sessplus.Memory().(sessplus.Indexer), rule: rule, former: make(map[string][]sessplus.KeyedRecord), hidden: make(map[string]bool)}
		})
		return
	}
	var wg sync.WaitGroup
	for _, rule := range mutants {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$/^(Owned|History|Device)", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), env+"="+rule)
			out, err := cmd.CombinedOutput()
			if caught := strings.Contains(string(out), "breaks the promise: "); rule == "" && (err != nil || caught) || rule != "" && !caught {
				t.Errorf("mutant %q: %v\n%.500s", rule, err, out)
			}
		})
	}
	wg.Wait()
}

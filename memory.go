package sessplus

import (
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"
)

// Memory keeps records in this process: for development, tests and programs on one machine. They end with the process. It
// needs no Close: expired records are removed, a few at a time, by the calls that store new ones.
func Memory() Backend {
	m := &memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].records, m.shards[i].owners = make(map[string]*memoryRecord), &m.owners
	}
	m.owners.seed = m.seed
	return m
}

// memoryShards is how many locks and maps the records are spread over, so that calls rarely wait for each other and no
// single map grows so large that growing it is felt.
const memoryShards = 256

// memorySweep is how many records a Create looks at for expired ones. More than one, so that they go faster than they
// come.
const memorySweep = 4

type memory struct {
	seed   maphash.Seed
	shards [memoryShards]memoryShard
	owners memoryOwners
}

type memoryShard struct {
	mu      sync.Mutex // guards what follows
	records map[string]*memoryRecord
	keys    []string // of records, in no order; a sweep goes round
	hand    int      // where the sweep goes on
	owners  *memoryOwners
}

type memoryRecord struct {
	Record
	at int // its index in keys
}

// owner is what Owned finds the record by.
func (r *memoryRecord) owner() string {
	if r.Mark != nil && r.Mark.Ended {
		return ""
	}
	return r.Owner
}

// memoryOwners knows the keys of each owner's records. A lock of it may be taken under that of a memoryShard, and not the
// other way round.
type memoryOwners struct {
	seed   maphash.Seed
	shards [memoryShards]struct {
		mu   sync.Mutex // guards what follows
		keys map[string]map[string]struct{}
	}
}

// move notes that the record of the key has another owner; "" is none.
func (o *memoryOwners) move(key, from, to string) {
	if from == to {
		return
	}
	o.with(from, func(keys map[string]map[string]struct{}) {
		if delete(keys[from], key); len(keys[from]) == 0 {
			delete(keys, from)
		}
	})
	o.with(to, func(keys map[string]map[string]struct{}) {
		if keys[to] == nil {
			keys[to] = make(map[string]struct{})
		}
		keys[to][key] = struct{}{}
	})
}

// with calls f, under its lock, with the map that has the owner, unless that is "".
func (o *memoryOwners) with(owner string, f func(keys map[string]map[string]struct{})) {
	if owner == "" {
		return
	}
	s := &o.shards[maphash.String(o.seed, owner)%memoryShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = make(map[string]map[string]struct{})
	}
	f(s.keys)
}

func (m *memory) String() string { return "memory" }

// KeepsDeviceKeys implements [DeviceKeeper].
func (m *memory) KeepsDeviceKeys() {}

func (m *memory) client() any { return m }

// doAll makes the calls. None of them waits.
func (m *memory) doAll(ctx context.Context, _ time.Duration, calls []*call) {
	for _, c := range calls {
		c.do(ctx)
	}
}

// lock returns the shard of the key, locked.
func (m *memory) lock(key string) *memoryShard {
	s := &m.shards[maphash.String(m.seed, key)%memoryShards]
	s.mu.Lock()
	return s
}

// find returns the record, and the error of Load.
func (s *memoryShard) find(key string, now time.Time) (*memoryRecord, error) {
	r, ok := s.records[key]
	if !ok {
		return nil, ErrNoRecord
	}
	return r, r.live(now)
}

func (s *memoryShard) remove(key string) {
	r, ok := s.records[key]
	if !ok {
		return
	}
	s.owners.move(key, r.owner(), "")
	last := len(s.keys) - 1
	s.keys[r.at] = s.keys[last]
	s.records[s.keys[r.at]].at = r.at
	s.keys = s.keys[:last]
	delete(s.records, key)
}

// sweep removes what has expired among the next records.
func (s *memoryShard) sweep(now time.Time) {
	for range min(memorySweep, len(s.keys)) {
		if s.hand >= len(s.keys) {
			s.hand = 0
		}
		if key := s.keys[s.hand]; !s.records[key].Expires.After(now) {
			s.remove(key) // another key takes its place
		} else {
			s.hand++
		}
		if len(s.keys) == 0 {
			return
		}
	}
}

func (m *memory) Load(_ context.Context, key string) (*Record, error) {
	s := m.lock(key)
	defer s.mu.Unlock()
	r, err := s.find(key, time.Now())
	if err != nil {
		return nil, err
	}
	return r.clone(), nil
}

func (r *Record) clone() *Record {
	c := *r
	c.Fields = slices.Clone(r.Fields)
	return &c
}

func (m *memory) Create(_ context.Context, key string, r *Record) error {
	s := m.lock(key)
	defer s.mu.Unlock()
	now := time.Now()
	if _, err := s.find(key, now); err != ErrNoRecord {
		return ErrRecordExists
	}
	s.remove(key)
	s.sweep(now)
	s.records[key] = &memoryRecord{*r.clone(), len(s.keys)}
	s.keys = append(s.keys, key)
	s.owners.move(key, "", r.Owner)
	return nil
}

func (m *memory) Update(_ context.Context, key string, c *Change) (Result, error) {
	s := m.lock(key)
	defer s.mu.Unlock()
	r, ok := s.records[key]
	if !ok {
		return Result{}, ErrNoRecord
	}
	before := r.owner()
	result, err := c.Apply(&r.Record)
	s.owners.move(key, before, r.owner())
	return result, err
}

func (m *memory) End(_ context.Context, key string, e *Ending) (*Record, error) {
	s := m.lock(key)
	defer s.mu.Unlock()
	r, ok := s.records[key]
	if !ok {
		return nil, ErrNoRecord
	}
	before := r.owner()
	err := e.Apply(&r.Record)
	s.owners.move(key, before, r.owner())
	if err != nil {
		return nil, err
	}
	return r.clone(), nil
}

func (m *memory) Owned(ctx context.Context, owner string) (list []KeyedRecord, err error) {
	known := make(map[string]struct{})
	m.owners.with(owner, func(keys map[string]map[string]struct{}) { maps.Copy(known, keys[owner]) })
	for all := slices.Collect(maps.Keys(known)); len(all) > 0; all = all[1:] {
		r, err := m.Load(ctx, all[0])
		if err == nil && r.Owner == owner { // as it is now
			list = append(list, KeyedRecord{all[0], r})
		}
		if next := nextKey(err); next != "" {
			if _, found := known[next]; !found { // made since
				known[next] = struct{}{}
				all = append(all, next)
			}
		}
	}
	return list, ctx.Err()
}

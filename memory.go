package sessplus

import (
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"
)

// Memory returns a backend that stores records in this process, for development, tests and programs on one machine.
// They are lost when the process ends. It needs no Close and starts no goroutine: a call that stores a new record also
// removes a few expired ones.
func Memory() Backend {
	m := &memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].index, m.shards[i].owners = make(map[string]int), &m.owners
	}
	m.owners.seed = m.seed
	return m
}

// memoryShards is the number of locks and maps that the records are spread over. Calls rarely wait for each other, and
// no map becomes so large that its growth is felt.
const memoryShards = 256

// memorySweep is how many records a Create checks for expiry: more than one, so that expired records are removed faster
// than records are added.
const memorySweep = 4

type memory struct {
	seed   maphash.Seed
	shards [memoryShards]memoryShard
	owners memoryOwners
}

type memoryShard struct {
	mu      sync.Mutex     // guards what follows
	index   map[string]int // of records, by their keys
	records []memoryRecord // in any order; the sweep goes round
	hand    int            // where the sweep continues
	room    []RawField     // empty; for the fields of the record that is being changed
	owners  *memoryOwners
}

// memoryOwners holds the keys of each owner's records. Its locks may be acquired while that of a memoryShard is held,
// and not the other way round.
type memoryOwners struct {
	seed   maphash.Seed
	shards [memoryShards]struct {
		mu   sync.Mutex // guards what follows
		keys map[string]map[string]struct{}
	}
}

// move changes the owner of the record of the key; "" means none.
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

// with calls f with the map that the owner is in, and holds its lock. It does nothing for the owner "".
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

// doAll makes the calls one after the other, because none of them waits.
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

// owner is what Owned finds the record by.
func (r *Record) owner() string {
	if r.Mark != nil && r.Mark.Ended {
		return ""
	}
	return r.Owner
}

// find returns the record, if there is one, and the error of Load.
func (s *memoryShard) find(key string, now time.Time) (*Record, error) {
	i, ok := s.index[key]
	if !ok {
		return nil, ErrNoRecord
	}
	r := s.records[i].copy()
	return r, r.live(now)
}

func (s *memoryShard) remove(key string) {
	i, ok := s.index[key]
	if !ok {
		return
	}
	s.owners.move(key, s.records[i].copy().owner(), "")
	last := len(s.records) - 1
	s.records[i] = s.records[last]
	s.records[last] = memoryRecord{}
	s.records = s.records[:last]
	if i < last {
		s.index[s.records[i].key()] = i
	}
	delete(s.index, key)
}

// sweep removes the expired ones among the next few records.
func (s *memoryShard) sweep(now time.Time) {
	for range min(memorySweep, len(s.records)) {
		if s.hand >= len(s.records) {
			s.hand = 0
		}
		if r := &s.records[s.hand]; !r.expires().After(now) {
			s.remove(r.key()) // another one takes its place
		} else {
			s.hand++
		}
		if len(s.records) == 0 {
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
	return r, nil
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
	s.records = append(s.records, newMemoryRecord(key, r))
	last := len(s.records) - 1
	s.index[s.records[last].key()] = last
	s.owners.move(key, "", r.Owner)
	return nil
}

func (m *memory) Update(_ context.Context, key string, c *Change) (Result, error) {
	s := m.lock(key)
	defer s.mu.Unlock()
	i, ok := s.index[key]
	if !ok {
		return Result{}, ErrNoRecord
	}
	stored := &s.records[i]
	if stored.outgrows(c.Set) {
		return s.apply(c, key, stored.enlarge())
	}
	r := readBlock(stored.block, s.room)
	result, err := s.apply(c, key, &r)
	if err == nil {
		stored.block = newBlock(key, &r)
		s.index[stored.key()] = i // and the index lets go of the old block
	}
	clear(r.Fields)
	s.room = r.Fields[:0]
	return result, err
}

func (s *memoryShard) apply(c *Change, key string, r *Record) (Result, error) {
	before := r.owner()
	result, err := c.Apply(r)
	s.owners.move(key, before, r.owner())
	return result, err
}

func (m *memory) End(_ context.Context, key string, e *Ending) (*Record, error) {
	s := m.lock(key)
	defer s.mu.Unlock()
	i, ok := s.index[key]
	if !ok {
		return nil, ErrNoRecord
	}
	r := s.records[i].enlarge() // a block has no Mark
	before := r.owner()
	err := e.Apply(r)
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

//go:build !noredis

package sessplus

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The index of Redis is a sorted set for each owner, under a key of its own, which on a cluster may be on another node
// than the records. A member is "SINCE KEY": since when the record of that key has this owner. Its score is when the
// record expires, and the set expires with the last of them. An entry is written before its record, so it may name
// nothing, but is never missing; a list checks the records.

// redisIndex: KEYS owner; ARGV what has expired long ago, the expiry of the record, the entry. It begins with a write
// that frees memory, because a full Redis accepts no script that begins with another.
var redisIndex = newRedisScript(`
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
local stored = redis.call('ZSCORE', KEYS[1], ARGV[3])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
local expires = ARGV[2]
if last and tonumber(last) > tonumber(expires) then expires = last end
redis.call('PEXPIREAT', KEYS[1], expires) -- before there is a set, to see that it may be done
if not stored or tonumber(stored) < tonumber(ARGV[2]) then redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3]) end
if not last then redis.call('PEXPIREAT', KEYS[1], expires) end
return 'done'
`)

// redisOwned: KEYS owner. A script goes to where writes go.
var redisOwned = newRedisScript(`return redis.call('ZRANGE', KEYS[1], 0, -1)`)

// redisForget: KEYS owner; ARGV entries.
var redisForget = newRedisScript(`
for i = 1, #ARGV, 1000 do
  redis.call('ZREM', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
return 'done'
`)

// redisEntry is the member for a record.
func redisEntry(key string, since time.Time) string {
	return strconv.FormatInt(since.UnixMilli(), 10) + " " + key
}

// redisIndexArgs are the arguments of the command that writes an entry. They include the text of the script, so that an
// entry never comes after its record because the server did not know the script.
func (c *call) redisIndexArgs() []any {
	r := c.record
	return []any{"eval", redisIndex.text, 1, c.key, r.Saved.Add(-EndGrace).UnixMilli(), r.Expires.UnixMilli(), redisEntry(c.asked, r.owned)}
}

// An indexed is a call together with the one that writes its entry in the index.
type indexed struct{ call, entry *call }

// indexedCalls returns the calls that change the index.
func indexedCalls(calls []*call) (list []indexed) {
	for _, c := range calls {
		if r := c.indexRecord(); r.Owner != "" {
			entry := &call{op: opIndex, sessionName: sessionName{key: r.Owner}, asked: c.key, record: r.clone()}
			list = append(list, indexed{c, entry})
		}
	}
	return list
}

// indexRecord is what the index needs of the call's record: an Owner, the expiry, and since when.
func (c *call) indexRecord() (r Record) {
	switch u := c.change; {
	case c.op == opCreate:
		r = Record{Owner: c.record.Owner, Saved: c.record.Saved, Expires: c.record.Expires, owned: c.record.since()}
	case c.op != opUpdate:
	case u.Owner != nil:
		r = Record{Owner: *u.Owner, Saved: u.Now, Expires: u.Now.Add(EndGrace), owned: u.Now} // until it answers
		if u.Expires.After(r.Expires) {
			r.Expires = u.Expires
		}
		if u.Seen != nil && u.Seen.Expires.After(r.Expires) {
			r.Expires = u.Seen.Expires
		}
	case u.Seen != nil && (u.Expires.After(u.Seen.Expires) || u.Permanent != nil):
		r = Record{Owner: u.Seen.Owner, Saved: u.Now, Expires: u.Expires, owned: u.Seen.owned}
	}
	return r
}

// makeIndexed makes the calls together with those that keep the index. On one server the entries go first in the same
// round trip. On several they have no order, which does not matter for a new record, whose id nobody knows yet. A new
// owner of an existing record is indexed first.
func (b *redisBackend) makeIndexed(ctx context.Context, calls []*call, list []indexed) {
	var before, beside []*call
	for _, i := range list {
		if b.sharded && i.call.op == opUpdate && i.call.change.Owner != nil {
			before = append(before, i.entry)
		} else {
			beside = append(beside, i.entry)
		}
	}
	if len(before) > 0 {
		b.makePlain(ctx, before)
	}
	for _, c := range calls {
		if c.err = unindexed(c, list); c.err == nil {
			beside = append(beside, c)
		}
	}
	if len(beside) > 0 {
		b.makePlain(ctx, beside)
	}
	for _, c := range calls {
		if c.err == nil {
			c.err = unindexed(c, list)
		}
	}
}

// indexLate corrects the index where calls turned out differently than expected, because others have changed the record
// or moved its expiry further.
func (b *redisBackend) indexLate(ctx context.Context, calls []*call, list []indexed) {
	var late []indexed
	for _, c := range calls {
		if c.op != opUpdate || c.err != nil {
			continue
		}
		i := slices.IndexFunc(list, func(i indexed) bool { return i.call == c })
		var entry *call
		if i >= 0 {
			entry = list[i].entry
		}
		if c.filed != "" {
			at, owner, _ := strings.Cut(c.filed, ":")
			since, _ := redisTime(at)
			if entry == nil || entry.key != owner || entry.record.owned.UnixMilli() != since.UnixMilli() {
				entry = &call{op: opIndex, sessionName: sessionName{key: owner}, asked: c.key, record: &Record{Saved: c.change.Now, owned: since}}
			}
		}
		if entry != nil && c.result.Expires.After(entry.record.Expires) {
			entry.record.Expires = c.result.Expires
			late = append(late, indexed{c, entry})
		}
	}
	if late == nil {
		return
	}
	entries := make([]*call, len(late))
	for i := range late {
		entries[i] = late[i].entry
	}
	b.makePlain(ctx, entries)
	for _, i := range late {
		i.call.err = i.entry.err
	}
}

// unindexed returns the error because of which the call's entry was not written.
func unindexed(c *call, list []indexed) error {
	for _, i := range list {
		if i.call == c {
			return i.entry.err
		}
	}
	return nil
}

// redisOwnedAtOnce is how many records are loaded in one round trip.
const redisOwnedAtOnce = 1000

func (b *redisBackend) Owned(ctx context.Context, owner string) ([]KeyedRecord, error) {
	index := b.do(ctx, &call{op: opOwned, sessionName: sessionName{key: owner}})
	if index.err != nil {
		return nil, index.err
	}
	entries := make(map[string][]string, len(index.entries)) // by key, which may have had this owner several times
	keys := make([]string, 0, len(index.entries))
	ask := func(key string) {
		if _, known := entries[key]; !known {
			keys = append(keys, key)
			entries[key] = nil
		}
	}
	for _, entry := range index.entries {
		_, key, _ := strings.Cut(entry, " ")
		ask(key)
		entries[key] = append(entries[key], entry)
	}
	var list []KeyedRecord
	var stale []string
	now := time.Now()
	for len(keys) > 0 {
		loads := make([]*call, min(len(keys), redisOwnedAtOnce))
		for i := range loads {
			loads[i] = &call{op: opLoad, sessionName: sessionName{key: keys[i]}}
		}
		keys = keys[len(loads):]
		b.make(&redisContext{ctx, ctx, b.binding}, loads)
		for _, c := range loads {
			switch {
			case c.err == nil && c.record.Owner == owner:
				list = append(list, KeyedRecord{c.key, c.record})
			case c.err != nil && !errors.Is(c.err, ErrNoRecord):
				return nil, c.err
			}
			if next := nextKey(c.err); next != "" {
				ask(next) // it may be younger than the list of entries
			}
			for _, entry := range entries[c.key] {
				if c.unfiled(owner, entry, now) {
					stale = append(stale, entry)
				}
			}
		}
	}
	if len(stale) > 0 { // if this fails, then next time, or when they expire
		b.do(ctx, &call{op: opForget, sessionName: sessionName{key: owner}, entries: stale})
	}
	return list, nil
}

// unfiled reports whether no record belongs to the entry, and none can any more: a record that is about to be created,
// or whose end may be undone, still can. If the owner has the record by a later entry, this one dates from before
// another owner had it.
func (c *call) unfiled(owner, entry string, now time.Time) bool {
	if ended := endedBy(c.err); ended != nil {
		return ended.forGood
	}
	text, _, _ := strings.Cut(entry, " ")
	since, ok := redisTime(text)
	if c.err == nil && c.record.Owner == owner {
		return since.UnixMilli() < c.record.owned.UnixMilli()
	}
	return !ok || now.Sub(since) > EndGrace
}

// redisEntries parses the list of an owner's entries.
func (c *call) redisEntries(reply []any) {
	c.err = nil
	for _, entry := range reply {
		if text, ok := entry.(string); ok {
			c.entries = append(c.entries, text)
		}
	}
}

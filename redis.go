package sessplus

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisClient is what sessplus needs of a go-redis client. [redis.Client] (also one for Sentinel), [redis.ClusterClient]
// and [redis.Ring] have it, and so has every [redis.UniversalClient].
type RedisClient interface {
	Process(ctx context.Context, cmd redis.Cmder) error
	Pipeline() redis.Pipeliner
}

// Redis keeps each record as one hash, with a Redis field per field, and lets Redis expire it. All configs on one client
// load in one round trip and save in one. It needs Redis 4 or newer, or a server that is compatible, with scripts.
//
// Timeout holds also when the server accepts and never answers. A ClusterClient and a Ring should have
// ContextTimeoutEnabled set: without it a goroutine is left waiting for up to their ReadTimeout then.
func Redis(client RedisClient) Backend {
	b := &redisBackend{original: client, bounded: client}
	if isNil(client) {
		return b
	}
	// go-redis takes the context's deadline to the socket only with ContextTimeoutEnabled, which is off by default. A
	// clone shares the connections, and its options are its own.
	switch c := client.(type) {
	case *redis.Client:
		if !c.Options().ContextTimeoutEnabled {
			clone := c.WithTimeout(c.Options().ReadTimeout)
			clone.Options().WriteTimeout = c.Options().WriteTimeout
			clone.Options().ContextTimeoutEnabled = true
			b.bounded = clone
		}
	case *redis.ClusterClient:
		b.cluster = c
		b.abandon = !c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		b.abandon = !c.Options().ContextTimeoutEnabled
	default:
		b.abandon = true
	}
	return b
}

type redisBackend struct {
	original RedisClient // tells which configs share a client
	bounded  RedisClient // makes the calls
	abandon  bool        // calls may outlive their context, and are then left to themselves

	cluster *redis.ClusterClient // or nil
}

func (b *redisBackend) String() string { return "redis" }

func (b *redisBackend) problem() string {
	if isNil(b.original) {
		return "the Redis client is nil"
	}
	return ""
}

func (b *redisBackend) client() any { return b.original }

// A record in Redis is a hash. The names of its own fields begin with one colon; the name of a session's field that
// begins with a colon gets one more, so that they cannot meet.
//
//	:record   "1 CREATED p" or "1 CREATED -": the format's version, the time of creation, and whether it is permanent
//	:expires  the time of expiry, which the key's PEXPIREAT repeats
//	:saved    the time of the last save
//	NAME      the encoded value of the field NAME
//
// Times are in Unix milliseconds.
const (
	redisRecord  = ":record"
	redisExpires = ":expires"
	redisSaved   = ":saved"

	redisVersion = "1"
)

func redisName(name string) string {
	if name[0] == ':' {
		return ":" + name
	}
	return name
}

func redisFlag(permanent bool) string {
	if permanent {
		return "p"
	}
	return "-"
}

// decodeRedis makes a record of a hash. An empty hash is a missing one.
func decodeRedis(hash map[string]string) (*Record, error) {
	if len(hash) == 0 {
		return nil, ErrNoRecord
	}
	part := strings.Split(hash[redisRecord], " ")
	if len(part) > 0 && part[0] != "" && part[0] != redisVersion {
		return nil, fmt.Errorf("%w: it has a later format", ErrNoRecord)
	}
	created, ok1 := redisTime(at(part, 1))
	expires, ok2 := redisTime(hash[redisExpires])
	saved, ok3 := redisTime(hash[redisSaved])
	if len(part) != 3 || !ok1 || !ok2 || !ok3 {
		return nil, fmt.Errorf("%w: it is corrupt", ErrNoRecord)
	}
	r := &Record{Created: created, Saved: saved, Expires: expires, Permanent: part[2] == "p"}
	r.Fields = make([]RawField, 0, max(0, len(hash)-3))
	for name, value := range hash {
		if name != "" && name[0] == ':' {
			if len(name) < 2 || name[1] != ':' {
				continue
			}
			name = name[1:]
		}
		r.Fields = append(r.Fields, RawField{name, []byte(value)})
	}
	return r, nil
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

func redisTime(s string) (time.Time, bool) {
	ms, err := strconv.ParseInt(s, 10, 64)
	return time.UnixMilli(ms), err == nil
}

// A redisScript runs in one atomic step. It is sent once to each server, and called by its hash from then on.
type redisScript struct{ text, sha string }

func newRedisScript(text string) *redisScript {
	sum := sha1.Sum([]byte(text)) // Redis names scripts so; nothing depends on it being hard to invert
	return &redisScript{text, hex.EncodeToString(sum[:])}
}

// redisCreate: KEYS record; ARGV expiry, then names and values. It answers 0 if the key is there.
var redisCreate = newRedisScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 2, #ARGV, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 1
`)

// redisUpdate: KEYS record; ARGV now, the longest expiry of an empty record, expiry, the flag of permanence or "", the
// number of fields to match, to set and to delete, then their names, the first two with their values. A value to match is preceded
// by "=", "" stands for absent. See Change for the rules.
var redisUpdate = newRedisScript(`
local key, now, expires = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3])
local stored = tonumber(redis.call('HGET', key, ':expires') or nil)
if not stored or stored <= now then return 'gone' end
local i, matches, sets, deletes = 8, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
for _ = 1, matches do
  local value = redis.call('HGET', key, ARGV[i])
  if (value and '=' .. value or '') ~= ARGV[i + 1] then return 'conflict' end
  i = i + 2
end
local before = redis.call('HLEN', key) - 3
local last = i + 2 * sets - 1
while i <= last do
  redis.call('HSET', key, unpack(ARGV, i, math.min(i + 999, last)))
  i = math.min(i + 1000, last + 1)
end
last = i + deletes - 1
while i <= last do
  redis.call('HDEL', key, unpack(ARGV, i, math.min(i + 999, last)))
  i = math.min(i + 1000, last + 1)
end
if sets + deletes > 0 then redis.call('HSET', key, ':saved', ARGV[1]) end
if ARGV[4] ~= '' then
  local record = redis.call('HGET', key, ':record')
  redis.call('HSET', key, ':record', string.sub(record, 1, -2) .. ARGV[4])
end
local after = redis.call('HLEN', key) - 3
local moved = nil
if after == 0 then
  if tonumber(ARGV[2]) < stored then moved = ARGV[2] end
elseif before == 0 or ARGV[4] ~= '' or expires > stored then
  moved = ARGV[3]
end
if moved then
  redis.call('HSET', key, ':expires', moved)
  redis.call('PEXPIREAT', key, moved)
end
if after == 0 then return 'empty' end
if before == 0 then return 'refilled' end
return 'saved'
`)

// redisTake: KEYS record. It answers the hash and removes it.
var redisTake = newRedisScript(`
local hash = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
return hash
`)

func redisMillis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// command gives the Redis command of a call, and the script that it runs, if any.
func (c *call) redisCommand(ctx context.Context) (redis.Cmder, *redisScript) {
	run := func(s *redisScript, args []any) (redis.Cmder, *redisScript) {
		head := [4]any{"evalsha", s.sha, 1, c.key}
		return redis.NewCmd(ctx, append(head[:], args...)...), s
	}
	switch c.op {
	case opLoad:
		return redis.NewMapStringStringCmd(ctx, "hgetall", c.key), nil
	case opDelete:
		return redis.NewIntCmd(ctx, "del", c.key), nil
	case opTake:
		return run(redisTake, nil)
	case opCreate:
		r := c.record
		args := make([]any, 0, 7+2*len(r.Fields))
		args = append(args, redisMillis(r.Expires), redisRecord,
			redisVersion+" "+redisMillis(r.Created)+" "+redisFlag(r.Permanent), redisExpires, redisMillis(r.Expires), redisSaved, redisMillis(r.Saved))
		for _, f := range r.Fields {
			args = append(args, redisName(f.Name), f.Value)
		}
		return run(redisCreate, args)
	}
	u := c.change
	flag := ""
	if u.Permanent != nil {
		flag = redisFlag(*u.Permanent)
	}
	args := make([]any, 0, 7+2*len(u.Match)+2*len(u.Set)+len(u.Delete))
	args = append(args, redisMillis(u.Now), redisMillis(u.Now.Add(EmptyGrace)), redisMillis(u.Expires), flag,
		len(u.Match), len(u.Set), len(u.Delete))
	for _, f := range u.Match {
		want := ""
		if f.Value != nil {
			want = "=" + string(f.Value)
		}
		args = append(args, redisName(f.Name), want)
	}
	for _, f := range u.Set {
		args = append(args, redisName(f.Name), f.Value)
	}
	for _, name := range u.Delete {
		args = append(args, redisName(name))
	}
	cmd, script := run(redisUpdate, args)
	if len(u.Match) > 0 {
		cmd = onceCmd{cmd.(*redis.Cmd)}
	}
	return cmd, script
}

// A onceCmd is not sent again when its answer is lost: a compare-and-set that may have happened would be taken for
// somebody else's, and done twice.
type onceCmd struct{ *redis.Cmd }

func (onceCmd) NoRetry() bool { return true }

// answer takes the reply to the command into the call.
func (c *call) redisAnswer(cmd redis.Cmder) {
	if err := cmd.Err(); err != nil {
		c.err = redisError(err)
		return
	}
	if once, ok := cmd.(onceCmd); ok {
		cmd = once.Cmd
	}
	switch cmd := cmd.(type) {
	case *redis.MapStringStringCmd:
		c.record, c.err = decodeRedis(cmd.Val())
	case *redis.Cmd:
		switch reply := cmd.Val().(type) {
		case int64:
			if reply == 0 {
				c.err = ErrRecordExists
			}
		case string:
			c.result = Result{Empty: reply == "empty", Refilled: reply == "refilled"}
			switch reply {
			case "gone":
				c.err = ErrNoRecord
			case "conflict":
				c.err = ErrConflict
			}
		case []any:
			hash := make(map[string]string, len(reply)/2)
			for i := 0; i+1 < len(reply); i += 2 {
				hash[fmt.Sprint(reply[i])] = fmt.Sprint(reply[i+1])
			}
			if c.record, c.err = decodeRedis(hash); c.err == nil && !c.record.Expires.After(time.Now()) {
				c.record, c.err = nil, ErrNoRecord
			}
		}
	}
}

// redisError keeps of an error what is fit for a log. A reply of Redis may quote the command, values and all.
func redisError(err error) error {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return err
	}
	code, _, _ := strings.Cut(reply.Error(), " ")
	if code == "WRONGTYPE" || strings.Contains(reply.Error(), "WRONGTYPE ") { // also from inside a script
		return fmt.Errorf("%w: its key holds something else", ErrNoRecord)
	}
	return errors.New("redis answers " + strings.TrimSuffix(code, ":"))
}

// doAll makes the calls in one round trip, and in one more where a server does not know a script yet, or where a cluster
// is choosing another master.
func (b *redisBackend) doAll(ctx context.Context, calls []*call) {
	cmds := make([]redis.Cmder, len(calls))
	err := b.within(ctx, func() {
		scripts := make([]*redisScript, len(calls))
		var due []int // of cmds
		for i, c := range calls {
			cmds[i], scripts[i] = c.redisCommand(ctx)
			due = append(due, i)
		}
		for attempt := 0; ; attempt++ {
			b.send(ctx, cmds, due)
			due = due[:0]
			for i, cmd := range cmds {
				if scripts[i] != nil && redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
					args := append([]any{"eval", scripts[i].text}, cmd.Args()[2:]...)
					cmds[i] = redis.NewCmd(ctx, args...)
					due = append(due, i)
				}
			}
			b.send(ctx, cmds, due)
			if due = b.failedOver(cmds, due[:0]); len(due) == 0 {
				return
			}
			b.cluster.ReloadState(ctx)
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(10*time.Millisecond<<attempt, 200*time.Millisecond)):
			}
			for _, i := range due {
				cmds[i], scripts[i] = calls[i].redisCommand(ctx)
			}
		}
	})
	for i, c := range calls {
		if err != nil { // cmds are still in use
			c.err = err
		} else {
			c.redisAnswer(cmds[i])
		}
	}
}

// failedOver appends the commands that may succeed once a cluster has another master in place of one that died. go-redis
// follows a redirection, but goes on sending pipelines to a dead master for up to ten seconds. All calls may be made
// twice, except a compare-and-set that was sent.
func (b *redisBackend) failedOver(cmds []redis.Cmder, due []int) []int {
	if b.cluster == nil {
		return nil
	}
	for i, cmd := range cmds {
		err := cmd.Err()
		var reply redis.Error
		var network *net.OpError
		retry := false
		switch {
		case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		case errors.As(err, &reply):
			for _, code := range []string{"CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "MOVED", "ASK"} {
				retry = retry || redis.HasErrorPrefix(err, code)
			}
		case errors.As(err, &network) && network.Op == "dial":
			retry = true
		default:
			_, once := cmd.(onceCmd)
			retry = !once
		}
		if retry {
			due = append(due, i)
		}
	}
	return due
}

// send lets each of the commands that are due get its reply or error.
func (b *redisBackend) send(ctx context.Context, cmds []redis.Cmder, due []int) {
	switch len(due) {
	case 0:
	case 1:
		b.bounded.Process(ctx, cmds[due[0]])
	default:
		pipe := b.bounded.Pipeline()
		for _, i := range due {
			pipe.Process(ctx, cmds[i])
		}
		pipe.Exec(ctx)
	}
}

// within calls f, but not for longer than ctx lasts where the client would not end it.
func (b *redisBackend) within(ctx context.Context, f func()) error {
	if !b.abandon {
		f()
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *redisBackend) do(ctx context.Context, c *call) *call {
	b.doAll(ctx, []*call{c})
	return c
}

func (b *redisBackend) Load(ctx context.Context, key string) (*Record, error) {
	c := b.do(ctx, &call{op: opLoad, key: key})
	return c.record, c.err
}

func (b *redisBackend) Create(ctx context.Context, key string, r *Record) error {
	return b.do(ctx, &call{op: opCreate, key: key, record: r}).err
}

func (b *redisBackend) Update(ctx context.Context, key string, change *Change) (Result, error) {
	c := b.do(ctx, &call{op: opUpdate, key: key, change: change})
	return c.result, c.err
}

func (b *redisBackend) Take(ctx context.Context, key string) (*Record, error) {
	c := b.do(ctx, &call{op: opTake, key: key})
	return c.record, c.err
}

func (b *redisBackend) Delete(ctx context.Context, key string) error {
	return b.do(ctx, &call{op: opDelete, key: key}).err
}

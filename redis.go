//go:build !noredis

package sessplus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisClient is the part of a go-redis client that sessplus needs. [redis.Client] (including one for Sentinel),
// [redis.ClusterClient], [redis.Ring] and every [redis.UniversalClient] implement it.
type RedisClient interface {
	Process(ctx context.Context, cmd redis.Cmder) error
	Pipeline() redis.Pipeliner
}

// Redis returns a backend that stores each record as one hash, with a hash field for each field, and lets Redis expire
// it. All configs on one client load in one round trip and save in one. It needs Redis 6 or later, or a compatible
// server, with Lua scripts.
//
// Loads go to the master, never to replicas or the client's own cache, whatever the options of the client are. A
// Sentinel client from NewFailoverClient with ReplicaOnly reaches no master: every call fails with an error that says
// so. A Ring that lacks a shard is unavailable for sessions that it does not find, and for new ones.
//
// [Options.Timeout] holds even if the server accepts connections and never answers. Set ContextTimeoutEnabled on a
// ClusterClient or a Ring: without it, each such call leaves a goroutine behind until the client's ReadTimeout, and
// while there are a thousand of these, the backend is unavailable.
//
// With a Client whose options have AutoPipelineOptions, the commands of concurrent requests are sent together while
// there are eight or more, on one connection and for a fraction of the work; go-redis calls that experimental. With
// what [redis.Client.AsyncAutoPipeline] returns, they always are, also on a Cluster. Hooks then see the commands of
// several requests at once, without their contexts. A change that has waited for longer than Options.Timeout is not
// sent any more. With what AutoPipeline returns, or AsyncAutoPipeline in full duplex, each call has a goroutine. See
// docs/scale.md for when to use which.
func Redis(client RedisClient) Backend {
	b := &redisBackend{original: client}
	switch c := client.(type) {
	case *redis.Client:
		if c != nil {
			b.elects = redisElects(c)
			b.binding = redisBindingOf(c)
			if o := c.Options().AutoPipelineOptions; o != nil && !o.FullDuplex {
				b.crowded = func() *redisPipe { return b.binding.crowdPipe(c) }
			}
		}
	case *redis.ClusterClient:
		b.cluster, b.elects, b.sharded, b.loose = c, true, true, newLooseCalls() // it waits for a lock of another call
	case *redis.Ring:
		if c != nil {
			b.ring = newRedisRing(c)
		}
		b.sharded, b.loose = true, newLooseCalls()
	case *redis.AutoPipeliner:
		if c != nil {
			b.pipe, b.elects = newRedisPipe(c), electsBehind(c)
		}
		b.sharded, b.loose = true, newLooseCalls()
	default:
		b.sharded, b.loose = true, newLooseCalls()
	}
	return b
}

type redisBackend struct {
	original RedisClient
	binding  *redisBinding // of a *redis.Client, or nil
	shared   atomic.Pointer[sharedDeadline]
	loose    *looseCalls // calls may outlive their context, and are then abandoned; nil: they do not

	sharded  bool                 // keys may be on different servers
	cluster  *redis.ClusterClient // or nil
	ring     *redisRing           // or nil
	pipe     *redisPipe           // or nil
	crowded  func() *redisPipe    // for calls in a crowd, or nil
	underWay atomic.Int64         // how many calls are, if there may be a crowd
	elects   bool                 // when a master dies, another takes its place
	answered atomic.Bool          // a server has answered something
}

func (b *redisBackend) String() string { return "redis" }

// KeepsDeviceKeys implements [DeviceKeeper].
func (b *redisBackend) KeepsDeviceKeys() {}

func (b *redisBackend) problem() string {
	if isNil(b.original) {
		return "the Redis client is nil"
	}
	return ""
}

func (b *redisBackend) client() any {
	if !reflect.ValueOf(b.original).Comparable() {
		return b
	}
	return b.original
}

// A record in Redis is a hash. The names of its own fields begin with one colon; the name of a session's field that
// begins with a colon gets one more, so that they cannot clash.
//
//	:record   "1 CREATED p" or "1 CREATED -": the format's version, the time of creation, and whether it is permanent;
//	          once rotated, the time of that and the origin; with IndexBy "@SINCE:OWNER" and "#DEVICE", escaped as in
//	          a URL; if it is bound to a device "!KEY"
//	:expires  the time of expiry, which the key's PEXPIREAT repeats
//	:saved    the time of the last save
//	:mark     that it is taken or has ended, see Mark; the other fields are gone if it was ended without a token
//	NAME      the encoded value of the field NAME
//
// Times are in Unix milliseconds.
const (
	redisRecord  = ":record"
	redisExpires = ":expires"
	redisSaved   = ":saved"
	redisMark    = ":mark"

	redisVersion = "1"
)

func redisName(name string) string {
	if strings.HasPrefix(name, ":") {
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

// decodeRedis makes a record of a hash, which may have ended. An empty hash is a missing one.
func decodeRedis(hash map[string]string) (*Record, error) {
	if len(hash) == 0 {
		return nil, ErrNoRecord
	}
	r := newRecord(max(0, len(hash)-3))
	ok := true
	if text, found := hash[redisMark]; found {
		r.Mark, ok = parseMark(text)
	}
	if ok && r.Mark != nil && r.Mark.Ended {
		r.Expires, ok = redisTime(hash[redisExpires])
		if ok {
			return r, nil
		}
	}
	version, rest, _ := strings.Cut(hash[redisRecord], " ")
	if version != "" && version != redisVersion {
		return nil, fmt.Errorf("%w: it has a later format", ErrNoRecord)
	}
	since, rest, _ := strings.Cut(rest, " ")
	flag, rest, _ := strings.Cut(rest, " ")
	var ok1, ok2, ok3, ok4 bool
	r.Created, ok1 = redisTime(since)
	r.Expires, ok2 = redisTime(hash[redisExpires])
	r.Saved, ok3 = redisTime(hash[redisSaved])
	r.Permanent, ok4 = flag == "p", flag != ""
	if rest != "" && ok4 {
		ok4 = r.redisMore(rest)
	}
	if !ok || version == "" || !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, errCorruptHash
	}
	for name, value := range hash {
		if own := strings.HasPrefix(name, ":"); own && !strings.HasPrefix(name, "::") {
			continue
		} else if own {
			name = name[1:]
		}
		r.Fields = append(r.Fields, RawField{name, bytesOf(value)})
	}
	return r, nil
}

// redisMore parses what follows the permanent flag.
func (r *Record) redisMore(text string) (ok bool) {
	words := strings.Split(text, " ")
	if first := words[0]; first != "" && !strings.Contains("@#!", first[:1]) {
		if r.Rotated, ok = redisTime(first); !ok || len(words) < 2 || words[1] == "" {
			return false
		}
		r.Origin, words = words[1], words[2:]
	}
	for _, w := range words {
		switch {
		case strings.HasPrefix(w, "@"):
			since, owner, found := strings.Cut(w[1:], ":")
			if r.owned, ok = redisTime(since); !ok || !found {
				return false
			}
			r.Owner = owner
		case strings.HasPrefix(w, "#"):
			r.Device, _ = url.QueryUnescape(w[1:])
		case strings.HasPrefix(w, "!"):
			r.DeviceKey = w[1:]
		default:
			return false
		}
	}
	return true
}

func redisOwner(owner string, since time.Time) string {
	return strconv.FormatInt(since.UnixMilli(), 10) + ":" + owner
}

var errCorruptHash = fmt.Errorf("%w: it is corrupt", ErrNoRecord)

func redisTime(s string) (time.Time, bool) {
	ms, ok := parseDigits(s)
	if !ok { // before 1970
		n, err := strconv.ParseInt(s, 10, 64)
		ms, ok = n, err == nil
	}
	return time.UnixMilli(ms), ok
}

// redisCommand returns the Redis command of a call.
func (c *call) redisCommand(ctx context.Context) redis.Cmder {
	switch c.op {
	case opLoad:
		return quietMap{redis.NewMapStringStringCmd(ctx, "hgetall", c.key)}
	case opEnd:
		e := c.ending
		token := e.Token
		if token == "" {
			token = "-"
		}
		args := redisArgs(redisEnd, c.key, 6)
		return newQuiet(ctx, append(args, e.Now.UnixMilli(), redisSteps[e.Step], token,
			e.Now.Add(TakeGrace).UnixMilli(), e.Now.Add(EndGrace).UnixMilli(), e.Next))
	case opCreate:
		r := c.record
		head := strconv.AppendInt(append(make([]byte, 0, 32), redisVersion+" "...), r.Created.UnixMilli(), 10)
		head = append(append(head, ' '), redisFlag(r.Permanent)...)
		if !r.Rotated.IsZero() {
			head = strconv.AppendInt(append(head, ' '), r.Rotated.UnixMilli(), 10)
			head = append(append(head, ' '), r.Origin...)
		}
		if r.Owner != "" {
			head = append(append(head, " @"...), redisOwner(r.Owner, r.since())...)
		}
		if r.Device != "" {
			head = append(append(head, " #"...), url.QueryEscape(r.Device)...)
		}
		if r.DeviceKey != "" {
			head = append(append(head, " !"...), r.DeviceKey...)
		}
		args := append(redisArgs(redisCreate, c.key, 4+2*len(r.Fields)), time.Now().UnixMilli(), r.Expires.UnixMilli(),
			string(head), r.Saved.UnixMilli())
		return newQuiet(ctx, redisFields(args, r.Fields))
	case opUpdate:
		args := c.change.redisUpdateArgs(c.redisScript(), c.key)
		if len(c.change.Match) > 0 {
			return onceCmd{newQuiet(ctx, args)}
		}
		return newQuiet(ctx, args)
	case opIndex:
		return newQuiet(ctx, c.redisIndexArgs())
	case opOwned:
		return newQuiet(ctx, redisArgs(redisOwned, c.key, 0))
	default: // opForget
		args := redisArgs(redisForget, c.key, len(c.entries))
		for _, entry := range c.entries {
			args = append(args, entry)
		}
		return newQuiet(ctx, args)
	}
}

// redisUpdateArgs is the command that makes the change by one of its two scripts.
func (c *Change) redisUpdateArgs(s *redisScript, key string) []any {
	if s == redisSet {
		args := append(redisArgs(redisSet, key, 2+2*len(c.Set)), c.Now.UnixMilli(), c.Expires.UnixMilli())
		return redisFields(args, c.Set)
	}
	flag, exact := "", ""
	if c.Permanent != nil {
		flag = redisFlag(*c.Permanent)
	}
	if c.Exact && c.Seen != nil {
		exact = strconv.FormatInt(c.Seen.Expires.UnixMilli(), 10) + " " + redisFlag(c.Seen.Permanent)
	}
	owner := ""
	if c.Owner != nil {
		owner = "@"
		if *c.Owner != "" {
			owner += redisOwner(*c.Owner, c.Now)
		}
	}
	sets := len(c.Set)
	if sets+len(c.Delete) > 0 {
		sets++ // the time of the save
	}
	args := redisArgs(redisUpdate, key, 10+2*len(c.Match)+2*sets+len(c.Delete))
	args = append(args, c.Now.UnixMilli(), c.Now.Add(EmptyGrace).UnixMilli(), c.Expires.UnixMilli(), flag, exact, owner, c.DeviceKey,
		len(c.Match), sets, len(c.Delete))
	for i := range c.Match {
		args = append(args, (*nameArg)(&c.Match[i]), (*matchArg)(&c.Match[i]))
	}
	if sets > 0 {
		args = append(args, redisSaved, c.Now.UnixMilli())
	}
	args = redisFields(args, c.Set)
	for _, name := range c.Delete {
		args = append(args, redisName(name))
	}
	return args
}

// redisArgs begins the command that runs a script by its hash, with room for n arguments.
func redisArgs(s *redisScript, key string, n int) []any {
	return append(make([]any, 0, 4+n), "evalsha", s.sha, 1, key)
}

// redisFields appends the names and values of fields as pointers to them, because strings and slices would each be an
// allocation. The hooks of a program, which may write arguments to a trace, see no values.
func redisFields(args []any, fields []RawField) []any {
	for i := range fields {
		args = append(args, (*nameArg)(&fields[i]), (*valueArg)(&fields[i]))
	}
	return args
}

type (
	nameArg  RawField
	valueArg RawField
	matchArg RawField // in the form that redisUpdate expects
)

// MarshalBinary and String are for go-redis: what it sends, and what it prints.

func (f *nameArg) MarshalBinary() ([]byte, error)  { return bytesOf(redisName(f.Name)), nil }
func (f *nameArg) String() string                  { return redisName(f.Name) }
func (f *valueArg) MarshalBinary() ([]byte, error) { return f.Value, nil }
func (f *valueArg) String() string                 { return fmt.Sprintf("[%d bytes]", len(f.Value)) }
func (f *matchArg) String() string                 { return (*valueArg)(f).String() }

func (f *matchArg) MarshalBinary() ([]byte, error) {
	if f.Value == nil {
		return nil, nil
	}
	return append([]byte("="), f.Value...), nil
}

// redisScript is the script that the call runs, or nil.
func (c *call) redisScript() *redisScript {
	switch c.op {
	case opCreate:
		return redisCreate
	case opUpdate:
		u := c.change
		if len(u.Match)+len(u.Delete) == 0 && u.Permanent == nil && u.Owner == nil && u.DeviceKey == "" && !u.Exact && len(u.Set) > 0 && len(u.Set) <= redisFew {
			return redisSet
		}
		return redisUpdate
	case opEnd:
		return redisEnd
	case opIndex:
		return redisIndex
	case opOwned:
		return redisOwned
	case opForget:
		return redisForget
	}
	return nil
}

// redisEval returns the command of a call with the text of its script, if the error is that the server does not know
// the script yet.
func (c *call) redisEval(ctx context.Context, err error) redis.Cmder {
	if err == nil || c.redisScript() == nil || !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	cmd := c.redisCommand(ctx)
	args := cmd.Args()
	args[0], args[1] = "eval", c.redisScript().text
	return cmd
}

// A onceCmd is not retried when its reply is lost: a compare-and-set that may have been applied would look like another
// request's, and be applied twice.
type onceCmd struct{ quietCmd }

func (onceCmd) NoRetry() bool { return true }

// A quietCmd and a quietMap do not print what Redis answered: the hooks of a program, which may write commands to a
// trace or a log, see no values there either.
type (
	quietCmd struct{ *redis.Cmd }
	quietMap struct{ *redis.MapStringStringCmd }
)

// Name returns that of a write, because go-redis routes commands by it: a read may go to a replica, or to a cache in
// this process, and miss what the last request has saved. FullName, which is for people, is unchanged.
func (c quietMap) Name() string { return "hset" }

func newQuiet(ctx context.Context, args []any) quietCmd { return quietCmd{redis.NewCmd(ctx, args...)} }

func (c quietCmd) Clone() redis.Cmder { return quietCmd{c.Cmd.Clone().(*redis.Cmd)} }
func (c onceCmd) Clone() redis.Cmder  { return onceCmd{c.quietCmd.Clone().(quietCmd)} }
func (c quietMap) Clone() redis.Cmder {
	return quietMap{c.MapStringStringCmd.Clone().(*redis.MapStringStringCmd)}
}

func (c quietMap) String() string { return quietText(c, len(c.Val())) }

func (c quietCmd) String() string {
	switch reply := c.Val().(type) {
	case string:
		return quietText(c, len(reply))
	case []any:
		return quietText(c, len(reply))
	}
	return quietText(c, 0)
}

// quietText is the command as go-redis prints it, with the length of the reply instead of the reply.
func quietText(cmd redis.Cmder, length int) string {
	var b []byte
	for _, arg := range cmd.Args() {
		b = append(fmt.Append(b, arg), ' ')
	}
	text := strings.TrimSuffix(string(b), " ")
	if err := cmd.Err(); err != nil {
		return text + ": " + redisError(err, cmd, nil).Error()
	}
	return fmt.Sprintf("%s: [%d]", text, length)
}

// redisAnswer stores the reply to the command in the call.
func (c *call) redisAnswer(cmd redis.Cmder) {
	if err := cmd.Err(); err != nil {
		if c.err = redisError(err, cmd, c.redisScript()); c.op >= opIndex && errors.Is(c.err, ErrNoRecord) {
			c.err = errors.New("redis: the key of the index of a user's sessions holds something else")
		}
		return
	}
	if once, ok := cmd.(onceCmd); ok {
		cmd = once.quietCmd
	}
	c.err = errNoReply // a hook has not passed the command on, or a proxy has made up a reply
	switch cmd := cmd.(type) {
	case quietMap:
		if hash := cmd.Val(); hash != nil {
			c.redisRecord(hash)
		}
	case quietCmd:
		switch reply := cmd.Val().(type) {
		case string:
			c.redisState(reply)
		case []any:
			if c.op == opOwned {
				c.redisEntries(reply)
				return
			}
			hash := make(map[string]string, len(reply)/2)
			for i := 0; i+1 < len(reply); i += 2 {
				name, _ := reply[i].(string)
				hash[name], _ = reply[i+1].(string)
			}
			c.redisRecord(hash)
		}
	}
}

// redisRecord makes a hash the record of the call, if it has not ended.
func (c *call) redisRecord(hash map[string]string) {
	r, err := decodeRedis(hash)
	if now := time.Now(); err == nil {
		if err = r.live(now); err == ErrNoRecord && now.Sub(r.Expires) > time.Second {
			err = errFastClock // Redis never returns what has expired by its own clock
		}
	}
	if c.err = err; err == nil {
		c.record = r
	}
}

// redisState handles what a script reports to have found and made.
func (c *call) redisState(reply string) {
	state, rest, _ := strings.Cut(reply, " ")
	switch state {
	case "created", "saved", "empty", "refilled", "done":
		c.err = nil
	case "exists":
		c.err = ErrRecordExists
	case "gone":
		c.err = ErrNoRecord
	case "ended":
		c.err = &EndedError{Next: rest}
		return
	case "taken":
		c.err = ErrTaken
	case "late":
		c.err = errSlowClock
	case "conflict":
		c.err = ErrConflict
	}
	c.result = Result{Empty: state == "empty", Refilled: state == "refilled"}
	if rest != "" {
		rest, c.filed, _ = strings.Cut(rest, " @")
		c.result.Expires, _ = redisTime(rest)
	}
}

func (b *redisBackend) do(ctx context.Context, c *call) *call {
	b.make(&redisContext{ctx, ctx, b.binding}, []*call{c})
	return c
}

func (b *redisBackend) Load(ctx context.Context, key string) (*Record, error) {
	c := b.do(ctx, &call{op: opLoad, sessionName: sessionName{key: key}})
	return c.record, c.err
}

func (b *redisBackend) Create(ctx context.Context, key string, r *Record) error {
	return b.do(ctx, &call{op: opCreate, sessionName: sessionName{key: key}, record: r}).err
}

func (b *redisBackend) Update(ctx context.Context, key string, change *Change) (Result, error) {
	c := b.do(ctx, &call{op: opUpdate, sessionName: sessionName{key: key}, change: change})
	return c.result, c.err
}

func (b *redisBackend) End(ctx context.Context, key string, e *Ending) (*Record, error) {
	c := b.do(ctx, &call{op: opEnd, sessionName: sessionName{key: key}, ending: e})
	return c.record, c.err
}

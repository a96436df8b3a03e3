//go:build !noredis

package sessplus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
// ContextTimeoutEnabled set: without it a goroutine is left waiting for up to their ReadTimeout then, and a thousand of them
// are an outage.
func Redis(client RedisClient) Backend {
	b := &redisBackend{original: client, calls: make(chan struct{}, maxCalls)}
	switch c := client.(type) {
	case *redis.Client:
		if c != nil {
			b.elects = c.Options().Addr == "FailoverClient" // how go-redis marks one for Sentinel
			if !c.Options().ContextTimeoutEnabled {
				b.bound(c)
			}
		}
	case *redis.ClusterClient:
		b.cluster, b.elects, b.sharded = c, true, true
		b.abandon = c != nil && !c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		b.sharded = true
		b.abandon = c != nil && !c.Options().ContextTimeoutEnabled
	default:
		b.abandon, b.sharded = true, true
	}
	return b
}

type redisBackend struct {
	original RedisClient
	bounded  *redis.Client // a clone that minds the deadline of a context, or nil
	detoured func()        // makes sure that calls get to it
	shared   atomic.Pointer[sharedDeadline]
	abandon  bool          // calls may outlive their context, and are then left to themselves
	calls    chan struct{} // a place taken for each of those, at most maxCalls
	left     atomic.Int64  // how many of them nobody waits for any more

	sharded bool                 // keys may be on different servers
	cluster *redis.ClusterClient // or nil
	elects  bool                 // when a master dies, another takes its place
}

// bound lets the calls of b end with their context. go-redis takes a context's deadline to the socket only with
// ContextTimeoutEnabled, which is off by default. A clone has options of its own and shares the connections, but not the
// hooks of the program (traces, metrics). So a call goes through the client and its hooks, to a last hook that sends it
// on through the clone. It is added with the first call, after those that the program adds when it starts.
func (b *redisBackend) bound(c *redis.Client) {
	b.bounded = c.WithTimeout(c.Options().ReadTimeout)
	b.bounded.Options().WriteTimeout = c.Options().WriteTimeout
	b.bounded.Options().ContextTimeoutEnabled = true
	b.detoured = sync.OnceFunc(func() { c.AddHook(detour{b}) })
}

// A detour is the hook that sends the calls of its backend through the clone. Other commands pass it by.
type detour struct{ b *redisBackend }

// A redisContext is the context of calls: with the values of the request, a deadline, and the backend that makes them.
type redisContext struct {
	context.Context // with the deadline
	values          context.Context
	backend         *redisBackend
}

// detourKey gets the backend from a redisContext.
type detourKey struct{}

func (c *redisContext) Value(key any) any {
	if key == (detourKey{}) {
		return c.backend
	}
	if v := c.Context.Value(key); v != nil { // what package context keeps of deadlines
		return v
	}
	return c.values.Value(key)
}

// A sharedDeadline is that of calls which begin within a moment. A timer for each would cost a twelfth of a call.
type sharedDeadline struct {
	context.Context
	timeout time.Duration
	until   time.Time          // for calls that begin before
	cancel  context.CancelFunc // never called: the deadline comes soon enough
}

// deadline gives a context that ends after the timeout, or up to one part in deadlineShare earlier.
func (b *redisBackend) deadline(timeout time.Duration) context.Context {
	now := time.Now()
	d := b.shared.Load()
	if d == nil || d.timeout != timeout || !now.Before(d.until) {
		ctx, cancel := context.WithDeadline(context.Background(), now.Add(timeout))
		d = &sharedDeadline{ctx, timeout, now.Add(timeout / deadlineShare), cancel}
		b.shared.Store(d)
	}
	return d.Context
}

func (d detour) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d detour) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ctx.Value(detourKey{}) != d.b {
			return next(ctx, cmd)
		}
		return d.b.bounded.Process(ctx, cmd)
	}
}

func (d detour) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if ctx.Value(detourKey{}) != d.b {
			return next(ctx, cmds)
		}
		pipe := d.b.bounded.Pipeline()
		for _, cmd := range cmds {
			pipe.Process(ctx, cmd)
		}
		_, err := pipe.Exec(ctx)
		return err
	}
}

func (b *redisBackend) String() string { return "redis" }

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
// begins with a colon gets one more, so that they cannot meet.
//
//	:record   "1 CREATED p" or "1 CREATED -": the format's version, the time of creation, and whether it is permanent;
//	          once rotated, the time of that and the origin; with IndexBy "@SINCE:OWNER" and "#DEVICE", escaped as in a URL
//	:expires  the time of expiry, which the key's PEXPIREAT repeats
//	:saved    the time of the last save
//	:mark     that it is taken or has ended, see Mark; of what was ended by nobody in particular all else is gone
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
	r := &Record{}
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
	r.Fields = make([]RawField, 0, max(0, len(hash)-3))
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

// redisMore reads what follows the flag of permanence.
func (r *Record) redisMore(text string) (ok bool) {
	words := strings.Split(text, " ")
	if first := words[0]; first != "" && first[0] != '@' && first[0] != '#' {
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
	ms, err := strconv.ParseInt(s, 10, 64)
	return time.UnixMilli(ms), err == nil
}

// redisCommand gives the Redis command of a call.
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
		args := append(redisArgs(redisCreate, c.key, 4+2*len(r.Fields)), time.Now().UnixMilli(), r.Expires.UnixMilli(),
			string(head), r.Saved.UnixMilli())
		return newQuiet(ctx, redisFields(args, r.Fields))
	case opIndex:
		return newQuiet(ctx, c.redisIndexArgs())
	case opOwned:
		return newQuiet(ctx, redisArgs(redisOwned, c.key, 0))
	case opForget:
		args := redisArgs(redisForget, c.key, len(c.entries))
		for _, entry := range c.entries {
			args = append(args, entry)
		}
		return newQuiet(ctx, args)
	}
	u := c.change
	if c.redisScript() == redisSet {
		args := append(redisArgs(redisSet, c.key, 2+2*len(u.Set)), u.Now.UnixMilli(), u.Expires.UnixMilli())
		return newQuiet(ctx, redisFields(args, u.Set))
	}
	flag, exact := "", ""
	if u.Permanent != nil {
		flag = redisFlag(*u.Permanent)
	}
	if u.Exact && u.Seen != nil {
		exact = strconv.FormatInt(u.Seen.Expires.UnixMilli(), 10) + " " + redisFlag(u.Seen.Permanent)
	}
	owner := ""
	if u.Owner != nil {
		owner = "@"
		if *u.Owner != "" {
			owner += redisOwner(*u.Owner, u.Now)
		}
	}
	sets := len(u.Set)
	if sets+len(u.Delete) > 0 {
		sets++ // the time of the save
	}
	args := redisArgs(redisUpdate, c.key, 9+2*len(u.Match)+2*sets+len(u.Delete))
	args = append(args, u.Now.UnixMilli(), u.Now.Add(EmptyGrace).UnixMilli(), u.Expires.UnixMilli(), flag, exact, owner,
		len(u.Match), sets, len(u.Delete))
	for i := range u.Match {
		args = append(args, (*nameArg)(&u.Match[i]), (*matchArg)(&u.Match[i]))
	}
	if sets > 0 {
		args = append(args, redisSaved, u.Now.UnixMilli())
	}
	args = redisFields(args, u.Set)
	for _, name := range u.Delete {
		args = append(args, redisName(name))
	}
	if len(u.Match) > 0 {
		return onceCmd{newQuiet(ctx, args)}
	}
	return newQuiet(ctx, args)
}

// redisArgs begins the command that runs a script by its hash, with room for n arguments.
func redisArgs(s *redisScript, key string, n int) []any {
	return append(make([]any, 0, 4+n), "evalsha", s.sha, 1, key)
}

// redisFields appends the names and values of fields. They stay where they are: as strings and slices, each would need
// memory of its own. The hooks of a program, which may write arguments to a trace, see no values.
func redisFields(args []any, fields []RawField) []any {
	for i := range fields {
		args = append(args, (*nameArg)(&fields[i]), (*valueArg)(&fields[i]))
	}
	return args
}

type (
	nameArg  RawField
	valueArg RawField
	matchArg RawField // as redisUpdate wants it
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
		if len(u.Match)+len(u.Delete) == 0 && u.Permanent == nil && u.Owner == nil && !u.Exact && len(u.Set) > 0 && len(u.Set) <= redisFew {
			return redisSet
		}
		return redisUpdate
	case opEnd:
		return redisEnd
	case opOwned:
		return redisOwned
	case opForget:
		return redisForget
	}
	return nil
}

// redisEval gives the command of a call with the text of its script, if the error is that the server does not know it yet.
func (c *call) redisEval(ctx context.Context, err error) redis.Cmder {
	if err == nil || c.redisScript() == nil || !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return nil
	}
	cmd := c.redisCommand(ctx)
	args := cmd.Args()
	args[0], args[1] = "eval", c.redisScript().text
	return cmd
}

// A onceCmd is not sent again when its answer is lost: a compare-and-set that may have happened would be taken for
// somebody else's, and done twice.
type onceCmd struct{ quietCmd }

func (onceCmd) NoRetry() bool { return true }

// A quietCmd and a quietMap do not print what Redis answered: the hooks of a program, which may write commands to a trace or a
// log, see no values there either.
type (
	quietCmd struct{ *redis.Cmd }
	quietMap struct{ *redis.MapStringStringCmd }
)

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

// quietText is the command as go-redis prints it, with the length of the reply in its place.
func quietText(cmd redis.Cmder, length int) string {
	var b []byte
	for _, arg := range cmd.Args() {
		b = append(fmt.Append(b, arg), ' ')
	}
	text := strings.TrimSuffix(string(b), " ")
	if err := cmd.Err(); err != nil {
		return text + ": " + redisError(err).Error()
	}
	return fmt.Sprintf("%s: [%d]", text, length)
}

// Clocks that differ by more than a lifetime end sessions at once. That must not look like visitors who log out.
var (
	errSlowClock = errors.New("redis: by its clock the new record has expired already; the clock of this machine is slow")
	errFastClock = fmt.Errorf("%w: by the clock of this machine it has expired, by that of Redis it has not", ErrNoRecord)
)

var errNoReply = errors.New("redis gave no answer")

// redisAnswer takes the reply to the command into the call.
func (c *call) redisAnswer(cmd redis.Cmder) {
	if err := cmd.Err(); err != nil {
		if c.err = redisError(err); c.op >= opIndex && errors.Is(c.err, ErrNoRecord) {
			c.err = errors.New("redis: the key of the index of a user's sessions holds something else")
		}
		return
	}
	if once, ok := cmd.(onceCmd); ok {
		cmd = once.quietCmd
	}
	c.err = errNoReply // a hook may not have let the command through, or a proxy has made one up
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

// redisRecord takes a hash for the record of the call, if it has not ended.
func (c *call) redisRecord(hash map[string]string) {
	r, err := decodeRedis(hash)
	if now := time.Now(); err == nil {
		if err = r.live(now); err == ErrNoRecord && now.Sub(r.Expires) > time.Second {
			err = errFastClock // Redis itself gives away nothing that has expired
		}
	}
	if c.err = err; err == nil {
		c.record = r
	}
}

// redisState takes what a script says it found and made.
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

// redisError keeps of an error what is fit for a log. A reply of Redis may quote the command, values and all, and an error
// of go-redis what it could not read.
func redisError(err error) error {
	var reply redis.Error
	var network net.Error
	switch {
	case errors.As(err, &reply):
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, io.EOF),
		errors.Is(err, redis.ErrClosed), errors.As(err, &network):
		return err
	default:
		return errors.New("redis did not answer")
	}
	code, _, _ := strings.Cut(reply.Error(), " ")
	if code == "WRONGTYPE" || strings.Contains(reply.Error(), "WRONGTYPE ") { // also from inside a script
		return fmt.Errorf("%w: its key holds something else", ErrNoRecord)
	}
	return errors.New("redis answers " + strings.TrimSuffix(code, ":"))
}

func (b *redisBackend) doAll(request context.Context, timeout time.Duration, calls []*call) {
	b.make(&redisContext{b.deadline(timeout), request, b}, calls)
}

// make makes the calls in one round trip, and in more where a server does not know a script yet or is not there for a
// moment.
func (b *redisBackend) make(ctx context.Context, calls []*call) {
	list := indexedCalls(calls)
	if list == nil {
		b.makePlain(ctx, calls)
	} else {
		b.makeIndexed(ctx, calls, list)
	}
	b.indexLate(ctx, calls, list)
}

func (b *redisBackend) makePlain(ctx context.Context, calls []*call) {
	if b.bounded != nil {
		b.detoured()
	}
	cmds := make([]redis.Cmder, len(calls))
	for i, c := range calls {
		cmds[i] = c.redisCommand(ctx)
	}
	if !b.abandon {
		b.exchange(ctx, calls, cmds)
	} else if err := b.within(ctx, func() { b.exchange(ctx, calls, cmds) }); err != nil { // cmds are still in use
		for _, c := range calls {
			c.err = err
		}
		return
	}
	for i, c := range calls {
		c.redisAnswer(cmds[i])
	}
}

// exchange lets each of the commands, which are those of the calls, get its reply or error.
func (b *redisBackend) exchange(ctx context.Context, calls []*call, cmds []redis.Cmder) {
	b.send(ctx, cmds)
	for attempt := 0; ; attempt++ {
		b.send(ctx, replace(cmds, func(i int) redis.Cmder { return calls[i].redisEval(ctx, cmds[i].Err()) }))
		if !slices.ContainsFunc(cmds, b.failedOver) {
			return
		}
		if b.cluster != nil {
			b.cluster.ReloadState(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond << min(attempt, 4)):
		}
		b.send(ctx, replace(cmds, func(i int) redis.Cmder {
			if !b.failedOver(cmds[i]) {
				return nil
			}
			return calls[i].redisCommand(ctx)
		}))
	}
}

// replace puts others in the place of commands: those that again gives, or nil. It returns the new ones.
func replace(cmds []redis.Cmder, again func(i int) redis.Cmder) []redis.Cmder {
	var list []redis.Cmder
	for i := range cmds {
		if cmd := again(i); cmd != nil {
			cmds[i] = cmd
			list = append(list, cmd)
		}
	}
	return list
}

// failedOver reports whether the command may succeed once a server is back, or another has taken its place. go-redis
// tries again, too, but for less than a second, and goes on sending pipelines to a dead master of a cluster for up to ten.
// Where nobody will take over, a server that refuses connections is down. All calls may be made twice, except a
// compare-and-set that was sent.
func (b *redisBackend) failedOver(cmd redis.Cmder) bool {
	err := cmd.Err()
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	var reply redis.Error
	var network *net.OpError
	switch {
	case errors.As(err, &reply):
		return slices.ContainsFunc(failoverCodes, func(code string) bool { return redis.HasErrorPrefix(err, code) })
	case errors.As(err, &network) && network.Op == "dial":
		return b.elects
	case errors.Is(err, io.EOF), errors.As(err, &network):
		_, once := cmd.(onceCmd)
		return !once
	}
	return false
}

var failoverCodes = []string{"CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "MOVED", "ASK"}

// send lets each of the commands get its reply or error.
func (b *redisBackend) send(ctx context.Context, cmds []redis.Cmder) {
	var err error
	switch len(cmds) {
	case 0:
		return
	case 1:
		err = b.original.Process(ctx, cmds[0])
	default:
		pipe := b.original.Pipeline()
		for _, cmd := range cmds {
			pipe.Process(ctx, cmd)
		}
		_, err = pipe.Exec(ctx)
	}
	// The error of a hook that let nothing through is on no command.
	if err != nil && !slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Err() != nil }) {
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
	}
}

// maxCalls is how many calls may be under way at a client that does not let go of them, with those that nobody waits for any
// more.
const maxCalls = 1000

var errManyLeft = errors.New("too many calls to it have not ended yet")

// within calls f in a goroutine of its own, so that it can be left to itself when ctx is done. There are at most maxCalls of
// them: more wait for their turn, or fail at once when nobody waits for any of those.
func (b *redisBackend) within(ctx context.Context, f func()) error {
	select {
	case b.calls <- struct{}{}:
	default:
		if b.left.Load() >= maxCalls {
			return errManyLeft
		}
		select {
		case b.calls <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done, alone := make(chan func()), make(chan struct{})
	go func() {
		defer func() { <-b.calls }()
		endOf(f, func(end func()) {
			select {
			case done <- end:
			case <-alone: // a panic is nobody's any more
				b.left.Add(-1)
			}
		})
	}()
	select {
	case end := <-done:
		if end != nil {
			end()
		}
		return nil
	case <-ctx.Done():
		b.left.Add(1)
		close(alone)
		return ctx.Err()
	}
}

func (b *redisBackend) do(ctx context.Context, c *call) *call {
	b.make(&redisContext{ctx, ctx, b}, []*call{c})
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

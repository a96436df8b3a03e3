//go:build !noredis

package sessplus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
)

// A redisBinding is what the backends on one [redis.Client] share: a clone of it that respects context deadlines, and
// the hook that sends their calls there. go-redis applies a context's deadline to the socket only with
// ContextTimeoutEnabled, which is off by default. A clone has its own options and shares the connections, but would run
// the hooks of the program (traces, metrics) a second time. So a call goes through the client and its hooks to a last
// hook, which sends it on, bypassing those of the clone. That hook is added with the first call, after those that the
// program adds at startup.
type redisBinding struct {
	once     sync.Once
	process  redis.ProcessHook         // of the clone
	pipeline redis.ProcessPipelineHook // of the clone
	refused  atomic.Pointer[error]     // why the last attempt to connect failed, or nil

	dial      func(context.Context) (net.Conn, error)
	startPipe sync.Once
	pipe      *redisPipe // for calls in a crowd, or nil

	asked atomic.Int64 // the second in which hasManyClients last asked
	full  atomic.Bool  // what the answer was
}

// redisBindings has the binding of each client, for as long as it is referenced elsewhere.
var redisBindings = struct {
	sync.Mutex
	of map[weak.Pointer[redis.Client]]weak.Pointer[redisBinding]
}{of: make(map[weak.Pointer[redis.Client]]weak.Pointer[redisBinding])}

func redisBindingOf(c *redis.Client) *redisBinding {
	redisBindings.Lock()
	defer redisBindings.Unlock()
	key := weak.Make(c)
	before, known := redisBindings.of[key]
	if bound := before.Value(); bound != nil {
		return bound
	}
	if !known {
		runtime.AddCleanup(c, func(key weak.Pointer[redis.Client]) {
			redisBindings.Lock()
			defer redisBindings.Unlock()
			delete(redisBindings.of, key)
		}, key)
	}
	bound := new(redisBinding)
	redisBindings.of[key] = weak.Make(bound)
	return bound
}

// attach creates the clone, and the hook of c that then references the binding.
func (b *redisBinding) attach(c *redis.Client) {
	b.once.Do(func() {
		o := c.Options()
		b.dial = func(ctx context.Context) (net.Conn, error) { return o.Dialer(ctx, o.Network, o.Addr) }
		clone := c.WithTimeout(o.ReadTimeout)
		clone.Options().WriteTimeout = o.WriteTimeout
		clone.Options().ContextTimeoutEnabled = true
		if redisElects(c) {
			clone.Options().OnConnect = func(ctx context.Context, conn *redis.Conn) error {
				if o.OnConnect != nil {
					if err := o.OnConnect(ctx, conn); err != nil {
						return err
					}
				}
				return refuseReplica(ctx, conn)
			}
		}
		clone.AddHook(handshake{b})
		c.AddHook(detour{b})
	})
}

// redisElects reports whether Sentinel replaces the master of the client when it dies. go-redis marks such clients.
func redisElects(c *redis.Client) bool { return c.Options().Addr == "FailoverClient" }

// refuseReplica fails calls to a replica, whose data is stale: with FailoverOptions.ReplicaOnly, or just after a
// failover.
func refuseReplica(ctx context.Context, conn *redis.Conn) error {
	role, err := conn.Do(ctx, "role").Slice()
	if err == nil && len(role) > 0 && role[0] == "slave" {
		return errReplica
	}
	return nil // the user may not be allowed to ask
}

// A handshake is the hook of the clone. It is the last one, so next is the clone itself, and it sees the commands that
// open a connection.
type handshake struct{ b *redisBinding }

func (h handshake) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h handshake) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	if h.b.process == nil { // later ones are of single connections
		h.b.process = next
	}
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() != "hello" {
			return err
		}
		switch {
		case err == nil:
			h.b.refused.Store(nil)
			return nil
		case redis.IsMaxClientsError(err): // go-redis takes any refusal for that of an old server, and continues
			err = &connectError{manyClients, err}
		case hungUp(err) && h.b.hasManyClients(ctx):
			err = &connectError{manyClients, err}
		case hungUp(err):
			err = &connectError{"redis, or a proxy before it, hangs up at HELLO, which it does not know, or wants TLS", err}
		default:
			return err
		}
		h.b.refuse(ctx, err)
		return err
	}
}

func (h handshake) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	if h.b.pipeline == nil { // the second one is for transactions
		h.b.pipeline = next
	}
	return next
}

const manyClients = "redis has as many clients as its maxclients allows"

// hasManyClients asks the server, at most once a second. The server tells every client that connects, but one that
// writes at once may only see that the connection is closed.
func (b *redisBinding) hasManyClients(ctx context.Context) bool {
	now := time.Now().Unix()
	if last := b.asked.Load(); last != now && b.asked.CompareAndSwap(last, now) {
		conn, err := b.dial(ctx)
		if err != nil {
			return false
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		text, _ := io.ReadAll(io.LimitReader(conn, 64))
		b.full.Store(bytes.HasPrefix(text, []byte("-ERR max number of clients")))
	}
	return b.full.Load()
}

// refuse records why there is no connection, unless the reason is the deadline.
func (b *redisBinding) refuse(ctx context.Context, err error) {
	if ctx.Err() == nil {
		b.refused.Store(&err)
	}
}

// A detour is the hook of the client. Commands that are not sessplus's are passed on.
type detour struct{ b *redisBinding }

func (d detour) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err != nil {
			d.b.refuse(ctx, err)
		}
		return conn, err
	}
}

func (d detour) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ctx.Value(detourKey{}) != d.b {
			return next(ctx, cmd)
		}
		return d.b.process(ctx, cmd)
	}
}

func (d detour) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if ctx.Value(detourKey{}) != d.b {
			return next(ctx, cmds)
		}
		return d.b.pipeline(ctx, cmds)
	}
}

// A redisContext is the context of calls: with the values of the request, a deadline, and the binding of the backend
// that makes them.
type redisContext struct {
	context.Context // with the deadline
	values          context.Context
	binding         *redisBinding
}

// detourKey gets the binding from a redisContext.
type detourKey struct{}

func (c *redisContext) Value(key any) any {
	if key == (detourKey{}) {
		return c.binding
	}
	if v := c.Context.Value(key); v != nil { // what package context keeps of deadlines
		return v
	}
	return c.values.Value(key)
}

// A sharedDeadline is that of calls which begin at nearly the same time. A timer for each would cost a twelfth of a
// call.
type sharedDeadline struct {
	context.Context
	timeout time.Duration
	until   time.Time          // for calls that begin before
	cancel  context.CancelFunc // never called, because the deadline comes soon enough
}

// deadline returns a context that ends after the timeout, or up to one part in deadlineShare earlier.
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

func (b *redisBackend) doAll(request context.Context, timeout time.Duration, calls []*call) {
	b.make(&redisContext{b.deadline(timeout), request, b.binding}, calls)
}

// make makes the calls in one round trip, or in more if a server does not know a script yet or is briefly unavailable.
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
	if b.binding != nil {
		b.binding.attach(b.original.(*redis.Client))
	}
	shards := 0
	if b.ring != nil {
		shards = b.ring.Len()
		if calls = b.ring.refuseCreates(calls, shards); len(calls) == 0 {
			return
		}
	}
	cmds := make([]redis.Cmder, len(calls))
	for i, c := range calls {
		cmds[i] = c.redisCommand(ctx)
	}
	pipe := b.pipe
	if b.crowded != nil {
		// An entry of the index must be in the same pipeline as its record.
		indexes := func(c *call) bool { return c.op == opIndex }
		if b.underWay.Add(1) >= crowd && !slices.ContainsFunc(calls, indexes) {
			pipe = b.crowded()
		}
		defer b.underWay.Add(-1)
	}
	if pipe == nil && b.loose == nil {
		b.exchange(ctx, nil, calls, cmds, nil)
	} else {
		var err error
		last := new(atomic.Pointer[error])
		if pipe != nil {
			err = b.exchange(ctx, pipe, calls, cmds, last)
		} else {
			err = b.loose.within(ctx, func() { b.exchange(ctx, nil, calls, cmds, last) })
		}
		if err != nil { // cmds are still in use
			before := last.Load()
			if before == nil && b.binding != nil {
				before = b.binding.refused.Load()
			}
			if before != nil && err != errManyLeft {
				err = redisError(*before, nil, nil)
			}
			for _, c := range calls {
				c.err = err
			}
			return
		}
	}
	for i, c := range calls {
		if err := cmds[i].Err(); !b.answered.Load() && (err == nil || isReply(err)) {
			b.answered.Store(true)
		}
		c.redisAnswer(cmds[i])
		if b.ring != nil && c.dependsOnShards() && !b.ring.whole(shards) {
			c.err, c.record = errShardMissing, nil
		}
	}
}

// exchange sends the commands of the calls until each has its reply or its final error. If it continues after an error,
// it keeps that in last, which may be nil. Its own error is that of submit.
func (b *redisBackend) exchange(ctx context.Context, pipe *redisPipe, calls []*call, cmds []redis.Cmder,
	last *atomic.Pointer[error]) error {
	var before error // what failed, before time ran out
	if err := b.send(ctx, pipe, cmds); err != nil {
		return err
	}
	for attempt := 0; ; attempt++ {
		again := replace(cmds, func(i int) redis.Cmder { return calls[i].redisEval(ctx, cmds[i].Err()) })
		if err := b.send(ctx, pipe, again); err != nil {
			return err
		}
		failed := slices.IndexFunc(cmds, b.failedOver)
		if failed < 0 {
			break
		}
		before = cmds[failed].Err()
		if last != nil {
			kept := before // only this one costs memory
			last.Store(&kept)
		}
		if b.cluster != nil {
			b.cluster.ReloadState(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond << min(attempt, 4)):
		}
		again = replace(cmds, func(i int) redis.Cmder {
			if !b.failedOver(cmds[i]) {
				return nil
			}
			return calls[i].redisCommand(ctx)
		})
		if err := b.send(ctx, pipe, again); err != nil {
			return err
		}
	}
	for _, cmd := range cmds {
		if !outOfTime(cmd.Err()) {
			continue
		}
		if before == nil && b.binding != nil {
			if refused := b.binding.refused.Load(); refused != nil {
				before = *refused
			}
		}
		if before != nil {
			cmd.SetErr(before)
		}
	}
	return nil
}

// replace replaces commands by those that again returns, unless that is nil. It returns the new ones.
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
// retries, too, but for less than a second, and keeps sending pipelines to a dead master of a cluster for up to a
// minute. Where no replica will take over, a server that refuses connections is down, and so is one that has never
// answered. All calls may be made twice, except a compare-and-set that was sent.
func (b *redisBackend) failedOver(cmd redis.Cmder) bool {
	err := cmd.Err()
	if err == nil {
		return false
	}
	var (
		reply   redis.Error
		refused *connectError
		network *net.OpError
	)
	switch {
	case errors.As(err, &refused), err == errReplica:
		return b.answered.Load()
	case outOfTime(err):
		return false
	case errors.As(err, &reply):
		return slices.Contains(failoverCodes, redisCode.FindString(redisReason(reply.Error())))
	case errors.As(err, &network) && network.Op == "dial":
		return b.elects
	case errors.Is(err, io.EOF), network != nil:
		_, once := cmd.(onceCmd)
		return !once && (b.elects || b.answered.Load())
	}
	return false
}

var failoverCodes = []string{"CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "MOVED", "ASK"}

func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

func outOfTime(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// hungUp reports whether the other side has closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// send sends the commands, so that each has its reply or error. Its own error is that of submit.
func (b *redisBackend) send(ctx context.Context, pipe *redisPipe, cmds []redis.Cmder) (err error) {
	switch {
	case len(cmds) == 0:
		return nil
	case pipe != nil:
		return pipe.submit(ctx, cmds)
	case len(cmds) == 1:
		err = b.original.Process(ctx, b.outgoing(ctx, cmds[0]))
	default:
		pipe := b.original.Pipeline()
		for _, cmd := range cmds {
			pipe.Process(ctx, b.outgoing(ctx, cmd))
		}
		_, err = pipe.Exec(ctx)
	}
	// If a hook has passed nothing on, no command has the error.
	if err != nil && !slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Err() != nil }) {
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
	}
	return nil
}

// A redisRing is a [redis.Ring] that may lack a shard. go-redis moves the keys of a dead shard to the others, which do
// not have their records, and back when it returns: a record that is not found may exist, and one that is created is
// lost.
type redisRing struct {
	*redis.Ring
	mu     sync.Mutex
	shards []*redis.Client // that have been up, and are part of it
	unseen int             // how many other shards there are
}

func newRedisRing(r *redis.Ring) *redisRing {
	shards := r.GetShardClients()
	return &redisRing{Ring: r, shards: shards, unseen: max(0, len(r.Options().Addrs)-len(shards))}
}

// whole reports whether the ring has all of its shards, and had when there were so many.
func (r *redisRing) whole(before int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	up := r.GetShardClients()
	for _, shard := range up {
		if !slices.Contains(r.shards, shard) {
			r.shards = append(r.shards, shard)
			r.unseen = max(0, r.unseen-1)
		}
	}
	if len(up) < len(r.shards) { // SetAddrs closes those that it removes
		r.shards = slices.DeleteFunc(r.shards, isClosed)
	}
	return min(before, r.Len()) >= len(r.shards)+r.unseen
}

// isClosed reports whether the client is closed. It sends nothing.
func isClosed(c *redis.Client) bool {
	return errors.Is(c.Process(over, redis.NewStatusCmd(over, "ping")), redis.ErrClosed)
}

// dependsOnShards reports whether the answer could differ if the record were on a missing shard.
func (c *call) dependsOnShards() bool {
	return c.err == ErrNoRecord || c.err == nil && (c.op == opCreate || c.op == opIndex || c.op == opOwned)
}

// refuseCreates fails calls that create records if a shard is missing, and returns the others.
func (r *redisRing) refuseCreates(calls []*call, shards int) []*call {
	creates := func(c *call) bool { return c.op == opCreate || c.op == opIndex }
	if !slices.ContainsFunc(calls, creates) || r.whole(shards) {
		return calls
	}
	var others []*call
	for _, c := range calls {
		if creates(c) {
			c.err = errShardMissing
		} else {
			others = append(others, c)
		}
	}
	return others
}

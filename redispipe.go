//go:build !noredis

package sessplus

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// A redisPipe is an AutoPipeliner that takes commands and lets its caller wait for them, with a context.
type redisPipe struct {
	*redis.AutoPipeliner
	loose *looseCalls
	mu    sync.Mutex
	left  [][]redis.AutoFuture // calls that nobody waits for any more, and that may not have ended yet
}

// newRedisPipe returns nil if the client itself waits. In full duplex, it may wait before it accepts a command.
func newRedisPipe(p *redis.AutoPipeliner) *redisPipe {
	if p.IsBlocking() || p.Config().FullDuplex {
		return nil
	}
	return &redisPipe{AutoPipeliner: p, loose: newLooseCalls()}
}

// crowd is how many concurrent calls it takes before a client with AutoPipelineOptions sends them together. Fewer calls
// would only pay for the goroutines that they pass through.
const crowd = 8

// crowdPipe returns the pipe for a call in a crowd, or nil if the call must be sent alone: because the client is
// closed, its options are wrong, or calls were abandoned there. What delays those would delay this one, too.
func (b *redisBinding) crowdPipe(c *redis.Client) *redisPipe {
	b.startPipe.Do(func() { b.pipe = newCrowdPipe(b, c) })
	if b.pipe == nil {
		return nil
	}
	if b.pipe.sweep(nil); b.pipe.loose.left.Load() > 0 {
		return nil
	}
	return b.pipe
}

// newCrowdPipe makes the pipe from another clone, because the program may close the client's own AutoPipeliner, and its
// commands there would delay those of sessions.
func newCrowdPipe(b *redisBinding, c *redis.Client) *redisPipe {
	o := *c.Options().AutoPipelineOptions
	o.MaxQueuedCommands = 0 // maxCalls is the limit
	clone := c.WithTimeout(c.Options().ReadTimeout)
	clone.AddHook(crossing{b, c})
	p, err := clone.AsyncAutoPipelineWithOptions(&o)
	if err != nil {
		return nil
	}
	return newRedisPipe(p)
}

// A crossing is the only hook of that clone, which has none of the program's. It sends everything through the client,
// like calls that are sent alone: through its hooks, to connections that the detour checks.
type crossing struct {
	b *redisBinding
	c *redis.Client
}

func (x crossing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (x crossing) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return x.c.Process(&redisContext{ctx, ctx, x.b}, cmd)
	}
}

func (x crossing) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		pipe := x.c.Pipeline()
		for _, cmd := range cmds {
			pipe.Process(ctx, cmd)
		}
		_, err := pipe.Exec(&redisContext{ctx, ctx, x.b})
		if err == nil { // asking each command for its error takes longer than sending it
			return nil
		}
		if slices.ContainsFunc(cmds, func(cmd redis.Cmder) bool { return cmd.Err() != nil }) {
			return nil // go-redis would make it the error of the others, too
		}
		return err
	}
}

// electsBehind reports whether another server replaces the client's when that dies. An AutoPipeliner does not say to
// which client it belongs, but a transaction on no key does, and sends nothing; a cluster has none.
func electsBehind(p *redis.AutoPipeliner) (elects bool) {
	err := p.Watch(context.Background(), func(tx *redis.Tx) error {
		elects = strings.HasPrefix(tx.String(), "Redis<FailoverClient ")
		return nil
	})
	return elects || err != nil
}

// submit is send for a redisPipe. If it returns an error, nobody waits for the commands any more, and they are still in
// use.
func (p *redisPipe) submit(ctx context.Context, cmds []redis.Cmder) error {
	p.sweep(nil)
	if err := p.loose.enter(ctx); err != nil {
		return err
	}
	futures := make([]redis.AutoFuture, len(cmds))
	for i, cmd := range cmds {
		futures[i] = p.Submit(ctx, timely(ctx, cmd))
	}
	for _, f := range futures {
		if f.WaitContext(ctx) != nil && ctx.Err() != nil {
			p.sweep(futures)
			return ctx.Err()
		}
	}
	<-p.loose.places
	return nil
}

// sweep frees the places of abandoned calls that have ended in the meantime, so that no goroutine has to wait for them.
// It first adds more, which may be nil, to the abandoned calls.
func (p *redisPipe) sweep(more []redis.AutoFuture) {
	if more == nil && p.loose.left.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.left)
	if more != nil {
		p.left = append(p.left, more)
	}
	p.left = slices.DeleteFunc(p.left, func(futures []redis.AutoFuture) bool {
		underWay := func(f redis.AutoFuture) bool { return f.WaitContext(over) == errOver }
		if slices.ContainsFunc(futures, underWay) {
			return false
		}
		<-p.loose.places
		return true
	})
	p.loose.left.Add(int64(len(p.left) - before))
}

// over is a context that has ended, with an error that no command ends with.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return overContext{ctx}
}()

type overContext struct{ context.Context }

func (overContext) Err() error { return errOver }

var errOver = errors.New("over")

// outgoing returns the command in the form that the client must send.
func (b *redisBackend) outgoing(ctx context.Context, cmd redis.Cmder) redis.Cmder {
	if b.loose != nil {
		return timely(ctx, cmd)
	}
	return cmd
}

// timely wraps a command that changes something, so that it is sent in time or not at all. A client that ignores its
// context, and queues or retries commands, may send them long after the request was answered, when others have changed
// the same record.
func timely(ctx context.Context, cmd redis.Cmder) redis.Cmder {
	switch cmd := cmd.(type) {
	case quietCmd:
		return timelyCmd{cmd, ctx, false}
	case onceCmd:
		return timelyCmd{cmd.quietCmd, ctx, true}
	}
	return cmd
}

type timelyCmd struct {
	quietCmd
	ctx  context.Context
	once bool
}

func (c timelyCmd) NoRetry() bool { return c.once }

func (c timelyCmd) Clone() redis.Cmder {
	c.quietCmd = c.quietCmd.Clone().(quietCmd)
	return c
}

// Once the time is over, Args are those of a script that no server knows, because a command cannot be withdrawn from
// those that are sent with it.
func (c timelyCmd) Args() []any {
	args := c.quietCmd.Args()
	if c.ctx.Err() != nil {
		return []any{"evalsha", noScript, 1, args[3]}
	}
	return args
}

var noScript = strings.Repeat("0", 40)

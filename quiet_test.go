package sessplus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A loggingHook prints commands after they have run, in all the ways that logs and traces print something.
type loggingHook struct {
	mu    sync.Mutex
	lines strings.Builder
	names map[string]bool // of the commands that were seen
}

func (h *loggingHook) print(cmds ...redis.Cmder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, cmd := range cmds {
		for _, format := range []string{"finished <%s>\n", "finished %v\n", "%+v\n", "%q\n", "%#v\n", "%x\n", "%d\n"} {
			fmt.Fprintf(&h.lines, format, cmd)
		}
		fmt.Fprintln(&h.lines, cmd, cmd.String(), cmd.Args(), cmd.Err(), cmd.Clone())
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("finished", "cmd", cmd)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("finished", "cmd", cmd)
		h.lines.Write(b.Bytes())
		h.names[cmd.FullName()] = true
	}
	for _, format := range []string{"%s\n", "%v\n", "%+v\n", "%#v\n"} {
		fmt.Fprintf(&h.lines, format, cmds)
	}
}

func (h *loggingHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *loggingHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.print(cmd)
		return err
	}
}

func (h *loggingHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		h.print(cmds...)
		return err
	}
}

// SPEC 7.3: what a hook of the program prints of a command that has run, has no value of a field and no id.
func TestRepliesOfRedisPrintNoValues(t *testing.T) {
	t.Parallel()
	const secret = "secret-value"
	clients := map[string]func(t *testing.T) redis.UniversalClient{
		"client":       func(t *testing.T) redis.UniversalClient { return servers.Redis(t) },
		"autopipeline": func(t *testing.T) redis.UniversalClient { return autoPipeline(t, servers.Redis(t)) },
		"ring": func(t *testing.T) redis.UniversalClient {
			return redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": servers.Redis(t).Options().Addr}})
		},
		"cluster": func(t *testing.T) redis.UniversalClient {
			return redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{newCluster(t).Addr}})
		},
	}
	for name, open := range clients {
		for _, configs := range []int{1, 2} { // alone, and in a pipeline
			t.Run(fmt.Sprint(name, configs), func(t *testing.T) {
				client := open(t)
				h := &loggingHook{names: make(map[string]bool)}
				client.AddHook(h)
				backend := closing(t, client)
				s := newSite(t, newManager(t, nil, []sessplus.Config{
					{CookieName: "c", Backend: backend, Fields: sessplus.Include("a", "b")},
					{CookieName: "d", Backend: backend, Fields: sessplus.Exclude("a", "b")},
				}[:configs]...))
				var ids []string
				for i, do := range []func(*sessplus.Session){
					func(s *sessplus.Session) { s.Set("a", secret+"1"); s.Set("b", secret) },
					func(s *sessplus.Session) {
						if _, err := sessplus.Field[string]("b").Update(s, func(v string) string { return v + secret }); err != nil {
							t.Errorf("Update(): %v", err)
						}
					},
					func(s *sessplus.Session) { s.Renew() },
					func(s *sessplus.Session) {
						if s.GetString("a") != secret+"1" || s.GetString("b") != secret+secret {
							t.Errorf("after all of it the fields are %q", s.Fields())
						}
					},
				} {
					r := s.with(func(k *sessplus.Session) {
						if configs > 1 && i == 0 {
							k.Set("other", secret)
						}
						do(k)
						ids = append(ids, k.ID("c"))
					})
					if r.StatusCode != 200 {
						t.Errorf("step %d: status %d", i, r.StatusCode)
					}
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				text := h.lines.String()
				for _, word := range append(ids[1:], secret, fmt.Sprintf("%x", secret)) {
					if i := strings.Index(text, word); i >= 0 {
						t.Errorf("%q is among what was printed: …%.300s", word, text[max(0, i-200):])
					}
				}
				if !h.names["hgetall"] || !h.names["evalsha"] || !strings.Contains(text, "hgetall session:c:") {
					t.Errorf("the commands are %v; printed was %.500s", h.names, text)
				}
			})
		}
	}
}

// SPEC 7.3: an answer that quotes the command shows no more where a command is printed than in an error.
func TestErrorRepliesOfRedisPrintNoValues(t *testing.T) {
	t.Parallel()
	client := servers.NewRedis(t).Client()
	t.Cleanup(func() { client.Close() })
	h := &quotedHook{}
	client.AddHook(h)
	client.AddHook(quotingHook{func(text string) error { return replyError(text) }})
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: sessplus.Redis(client)}))
	s.with(func(s *sessplus.Session) {
		s.Set("a", "s3cr3t-value")
		if err := s.Save(); !errors.Is(err, sessplus.ErrUnavailable) {
			t.Errorf("Save() = %v, want ErrUnavailable", err)
		}
	})
	if strings.Contains(h.text, "beginning with") || !strings.Contains(h.text, "redis answers ERR") {
		t.Errorf("printed was %q", h.text)
	}
}

// quotedHook keeps the text of the last command.
type quotedHook struct {
	loggingHook
	text string
}

func (h *quotedHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.text = fmt.Sprint(cmd)
		return err
	}
}

// SPEC 7.3: what a hook of the program writes of a command to a trace, as redisotel does, has no id and no value of a
// field.
func TestCommandsOfRedisPrintNoValues(t *testing.T) {
	t.Parallel()
	const secret = "secret-value"
	client := servers.Redis(t)
	var mu sync.Mutex
	var printed strings.Builder
	client.AddHook(commandHook(func(_ context.Context, cmd redis.Cmder) error {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&printed, cmd, cmd.Args())
		return nil
	}))
	var ids []string
	s := newSite(t, newManager(t, nil, sessplus.Config{CookieName: "c", Backend: sessplus.Redis(client)}))
	for _, do := range []func(*sessplus.Session){
		func(s *sessplus.Session) { s.Set("a", secret); s.Set("b", secret) },
		func(s *sessplus.Session) { s.Set("a", secret+"2") },
		func(s *sessplus.Session) { s.Delete("b"); s.Set("c", secret) },
		func(s *sessplus.Session) {
			if v, err := sessplus.Field[string]("c").Update(s, func(v string) string { return v + secret }); err != nil || v != secret+secret {
				t.Errorf("Update() = %q, %v", v, err)
			}
		},
		func(s *sessplus.Session) { s.Renew() },
		func(s *sessplus.Session) {
			if s.GetString("a") != secret+"2" || s.Has("b") || s.GetString("c") != secret+secret {
				t.Error("the fields are not those that were set")
			}
		},
	} {
		s.with(func(k *sessplus.Session) {
			do(k)
			ids = append(ids, k.ID("c"))
		})
	}
	mu.Lock()
	defer mu.Unlock()
	for _, word := range append(ids[1:], secret) {
		if strings.Contains(printed.String(), word) {
			t.Errorf("%q is among what was printed:\n%s", word, printed.String())
		}
	}
	if !strings.Contains(printed.String(), "evalsha") {
		t.Errorf("no script is among what was printed:\n%s", printed.String())
	}
}

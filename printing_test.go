package sessplus_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus/internal/servers"

	"github.com/sessplus/sessplus"
)

// SPEC 7.3: what a program logs of a request shows nothing of its session: neither its context, nor those made from it,
// nor the writer, nor the request itself beyond its own headers.
func TestContextShowsNothing(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-value"
	type key struct{}
	for _, config := range []sessplus.Config{{CookieName: "sid", Backend: sessplus.Memory()}, {CookieName: "sid"}} {
		for _, managers := range [][]*sessplus.Manager{
			{newManager(t, nil, config)},
			{newManager(t, nil, config), newManager(t, nil, sessplus.Config{CookieName: "inner"})},
			{newManager(t, nil, config, sessplus.Config{CookieName: "second", Fields: sessplus.Include("x")})},
		} {
			s := newSite(t, managers...)
			s.visit(func(_ http.ResponseWriter, r *http.Request) { managers[0].Get(r).Set("user", secret) })
			cookie := s.jar(s.client)["sid"]
			if cookie == "" {
				t.Fatal("no cookie")
			}
			s.visit(func(w http.ResponseWriter, r *http.Request) {
				sess := managers[0].Get(r)
				if sess.GetString("user") != secret {
					t.Error("the session was not loaded")
				}
				sess.Set("more", secret)
				if err := sess.Save(); err != nil {
					t.Errorf("Save() = %v", err)
				}
				ctx := r.Context()
				canceled, cancel := context.WithCancel(ctx)
				defer cancel()
				timed, stop := context.WithTimeout(ctx, time.Minute)
				defer stop()
				bare := r.Clone(ctx)
				bare.Header = nil
				hex := func(text string) string { return fmt.Sprintf("%x", text) }
				for what, v := range map[string]any{
					"the context": ctx, "WithValue": context.WithValue(ctx, key{}, 1), "WithCancel": canceled, "WithTimeout": timed,
					"WithoutCancel": context.WithoutCancel(ctx), "all of them": context.WithValue(context.WithoutCancel(timed), key{}, canceled),
					"the value": ctx.Value(http.ServerContextKey), "the session": sess, "the writer": w, "the controller": http.NewResponseController(w),
					"a writer around it": struct{ http.ResponseWriter }{w}, "the request": bare, "its value": *bare, "a slice": []any{ctx, sess, w},
					"a struct": struct {
						C context.Context
						s *sessplus.Session
					}{ctx, sess}, "the manager": managers[0],
				} {
					var b bytes.Buffer
					for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
						fmt.Fprintf(&b, verb+"\n", v)
					}
					log.New(&b, "", 0).Println("ctx:", v)
					slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
					slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
					json.NewEncoder(&b).Encode(v)
					for _, hidden := range []string{secret, cookie, hex(secret), hex(cookie), strings.ToUpper(hex(secret)), fmt.Sprint([]byte(secret)), fmt.Sprintf("%#v", []byte(secret))} {
						if strings.Contains(b.String(), strings.Trim(hidden, "[]")) {
							t.Errorf("%s shows %.40s: %.500s", what, hidden, b.String())
							break
						}
					}
				}
			})
		}
	}
}

// SPEC 1.8
func TestNothingPrintsKeys(t *testing.T) {
	t.Parallel()
	var keys []sessplus.KeyPair
	var needles []string
	for i := range 3 {
		hash, block := make([]byte, 32), make([]byte, 32)
		for j := range hash {
			hash[j], block[j] = byte(33+7*j+3*i), byte(250-5*j-i)
		}
		keys = append(keys, sessplus.KeyPair{Hash: hash, Block: block})
		for _, k := range [][]byte{hash, block} {
			for at := 0; at+6 <= len(k); at += 3 {
				part := k[at : at+6]
				decimal := strings.Trim(fmt.Sprint(part), "[]")
				goSyntax := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}")
				octal := strings.Trim(fmt.Sprintf("%o", part), "[]")
				needles = append(needles, string(part), hex.EncodeToString(part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part),
					base64.RawStdEncoding.EncodeToString(part), base64.RawURLEncoding.EncodeToString(part),
					decimal, strings.ReplaceAll(decimal, " ", ","), strings.ReplaceAll(decimal, " ", ", "), goSyntax, octal,
					strings.Trim(fmt.Sprintf("%q", part), `"`))
			}
		}
	}
	leak := func(text string) string {
		for _, n := range needles {
			if strings.Contains(text, n) {
				return n
			}
		}
		return ""
	}
	raw, _ := json.Marshal(struct{ Hash []byte }{keys[0].Hash})
	for _, seen := range []string{fmt.Sprint(keys[0].Hash), fmt.Sprintf("%x", keys[2].Block), fmt.Sprintf("%#v", keys[1].Block), string(raw)} {
		if leak(seen) == "" {
			t.Fatalf("the test does not find the key in %q", seen)
		}
	}

	config := sessplus.Config{CookieName: "s", Keys: keys[1:]}
	opts := sessplus.Options{Keys: keys[:1]}
	m := newManager(t, &opts, config, sessplus.Config{CookieName: "signed", Backend: sessplus.Memory(), SignID: true})
	_, wrong := sessplus.New([]sessplus.Config{{CookieName: "s", Keys: []sessplus.KeyPair{{Hash: keys[0].Hash[:31], Block: keys[0].Block[:31]}}}}, nil)
	var session *sessplus.Session
	newSite(t, m).with(func(s *sessplus.Session) { session = s })
	type holder struct {
		K sessplus.KeyPair
		L []sessplus.KeyPair
		C sessplus.Config
		P *sessplus.Config
		O sessplus.Options
		Q *sessplus.Options
		M *sessplus.Manager
		A any
		m *sessplus.Manager
		_ func()
	}
	h := holder{K: keys[0], L: keys, C: config, P: &config, O: opts, Q: &opts, M: m, A: keys[0], m: m}
	type plain struct { // what encoding/json can marshal
		K sessplus.KeyPair
		L []sessplus.KeyPair
		C sessplus.Config
		P *sessplus.Config
		M *sessplus.Manager
		N map[string]sessplus.KeyPair
	}
	values := []any{
		keys[0], &keys[0], keys, &keys, map[string]sessplus.KeyPair{"k": keys[0]}, [1]sessplus.KeyPair{keys[0]},
		config, &config, []sessplus.Config{config}, []*sessplus.Config{&config}, opts, &opts, m, []*sessplus.Manager{m}, session,
		h, &h, []holder{h}, plain{keys[0], keys, config, &config, m, map[string]sessplus.KeyPair{"k": keys[0]}}, wrong,
		config.Keys, m.Describe(),
	}
	for _, v := range values {
		check := func(how, text string) {
			t.Helper()
			if n := leak(text); n != "" {
				t.Errorf("%s of a %T shows key bytes: %.150q", how, v, text[max(0, strings.Index(text, n)-100):])
			}
		}
		// Not %p and %w, which fmt does not let a Formatter see, and go vet reports.
		for _, verb := range strings.Fields("%v %+v %#v %s %q %+q %#q %x %X %#x %d %o %b %c %U %t %e %f %g %T %y %10v %-200s %!") {
			check(verb, fmt.Sprintf(verb, v))
		}
		check("% x", fmt.Sprintf("% x", v))
		check("Sprint", fmt.Sprint(v))
		check("Sprintln", fmt.Sprintln(v))
		check("Errorf", fmt.Errorf("wrapped: %v", v).Error())
		data, err := json.Marshal(v)
		check("json.Marshal", fmt.Sprint(string(data), err))
		data, _ = json.MarshalIndent(map[string]any{"v": v}, "", " ")
		check("json.MarshalIndent", string(data))
		var text, object bytes.Buffer
		for _, l := range []*slog.Logger{slog.New(slog.NewTextHandler(&text, nil)), slog.New(slog.NewJSONHandler(&object, nil))} {
			l.Info("message", "v", v)
			l.With("v", v).WithGroup("g").Info("message", slog.Group("h", "v", v))
		}
		check("slog's text", text.String())
		check("slog's JSON", object.String())
	}
	for _, v := range []any{keys[0], keys, config, &config, m, plain{}} {
		if _, err := json.Marshal(v); err != nil {
			t.Errorf("json.Marshal of a %T: %v", v, err)
		}
	}
}

// quoting is a codec whose errors quote what they read, as those of encoding/json do.
type quoting struct{}

func (quoting) Marshal(any) ([]byte, error) { return nil, errQuoting }
func (quoting) Unmarshal([]byte, any) error { return errQuoting }

var errQuoting = errors.New("codec: cannot take s3cr3t-value")

// chain is every text of an error and of what it wraps.
func chain(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error() + "\n" + fmt.Sprintf("%+v %#v\n", err, err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		text += chain(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			text += chain(inner)
		}
	}
	return text
}

// SPEC 7.3: of a codec
func TestErrorsQuoteNoValue(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-value"
	var logged bytes.Buffer
	opts := &sessplus.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	b := sessplus.Memory()
	config := sessplus.Config{CookieName: "c", Backend: b}
	s := newSite(t, newManager(t, opts, config))
	var texts []string
	note := func(err error) {
		if err == nil {
			t.Error("an error was expected")
		}
		texts = append(texts, chain(err))
	}
	s.with(func(s *sessplus.Session) {
		s.Set("a", secret)
		s.Set("when", "not a time "+secret)
		s.Set("n", 12345678901)
		var n int8
		note(s.Decode("a", &n))
		note(s.Decode("n", &n))
		var when time.Time
		note(s.Decode("when", &when))
		note(s.Decode("absent", &n))
	})
	s.with(func(s *sessplus.Session) {
		s.Set("ch", map[string]any{secret: make(chan int)})
		note(s.Err())
		note(s.Save())
	})
	other := *opts
	other.Codec = quoting{}
	q := newSite(t, newManager(t, &other, config))
	q.client = s.client
	u := s.jar(s.client)["c"]
	q.answerTo(func(s *sessplus.Session) string {
		if v := s.Get("a"); v != nil {
			t.Errorf("Get of what cannot be decoded = %v, want nil", v)
		}
		var v any
		note(s.Decode("a", &v))
		s.Set("b", 1)
		note(s.Save())
		return ""
	}, "c="+u)
	for _, text := range append(texts, logged.String()) {
		if strings.Contains(text, secret) || strings.Contains(text, "12345678901") || strings.Contains(text, u) {
			t.Errorf("a value or an id shows: %s", text)
		}
	}
}

// replyError is an answer of Redis, or of a proxy before it, that quotes the command.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

// quotingHook answers every command so.
type quotingHook struct{ answer func(text string) error }

func (quotingHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h quotingHook) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		err := h.answer(fmt.Sprintf("ERR unknown command, with args beginning with: %s", cmd.Args()))
		cmd.SetErr(err)
		return err
	}
}

func (quotingHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// SPEC 7.3: of a driver
func TestDriverErrorsQuoteNothing(t *testing.T) {
	t.Parallel()
	for want, answer := range map[string]func(text string) error{
		"redis answers ERR": func(text string) error { return replyError(text) },
		// The error is go-redis's.
		"redis did not answer": func(text string) error { return errors.New("redis: can't parse reply " + text) },
	} {
		client := servers.NewRedis(t).Client()
		t.Cleanup(func() { client.Close() })
		client.AddHook(quotingHook{answer})
		var logged bytes.Buffer
		s := newSite(t, newManager(t, &sessplus.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))},
			sessplus.Config{CookieName: "c", Backend: sessplus.Redis(client)}))
		var text string
		s.with(func(s *sessplus.Session) {
			s.Set("a", "s3cr3t-value")
			err := s.Save()
			if !errors.Is(err, sessplus.ErrUnavailable) {
				t.Errorf("Save() = %v, want ErrUnavailable", err)
			}
			text = chain(err)
		})
		if text += logged.String(); strings.Contains(text, "s3cr3t-value") || !strings.Contains(text, want) {
			t.Errorf("the error shows what it should not, or not what it should: %s", text)
		}
	}
}

// SPEC 7.3: whoever prints a session shows nothing of it, and no event has its id.
func TestSessionAndEventsShowNothing(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-value"
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, IdleTimeout: time.Hour}))
		var id string
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", secret) })
		c.mustAsk(c.client, func(s *sessplus.Session) {
			id = s.ID("s")
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
				if text := fmt.Sprintf(verb, s); strings.Contains(text, secret) || strings.Contains(text, id) || strings.Contains(text, fmt.Sprintf("%x", id)) {
					t.Errorf("%s shows %q", verb, text)
				}
			}
			s.Set("user", "x")
			s.Save()
			s.Renew()
		})
		c.mustAsk(c.client, func(s *sessplus.Session) { s.Destroy() })
		j.mu.Lock()
		defer j.mu.Unlock()
		for _, e := range j.events {
			if text := fmt.Sprintf("%+v", e); strings.Contains(text, id) || strings.Contains(text, secret) || len(e.Handle) != 64 {
				t.Errorf("the event %s shows more than a handle: %s", e.Kind, text)
			}
		}
	})
}

package sessplus_test

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

var (
	historySeed  = flag.Uint64("history.seed", 0, "seed of the history checker; 0: of the clock")
	historyTimes = flag.Int("history.times", 1, "how many times as many operations the history checker makes")
)

// An operation is one request of a client, as the client saw it.
type operation struct {
	field      string
	kind       string
	value      string // written, or read
	start, end time.Duration
	acked      bool // it has happened; otherwise it must not have
}

// writes reports whether the operation changes its field.
func (o *operation) writes() bool { return o.kind != "get" }

// A shared session is one that several clients use at the same time.
type sharedSession struct {
	name string
	over time.Duration // when its lifetime is over at the latest, 0 for never here
	soon time.Duration // and at the earliest

	mu         sync.Mutex
	cookie     string            // the newest that a response set
	dead       []string          // those of sessions that were destroyed or renewed
	first      map[string]string // of a cookie that a rotation has set, that of the session's first id
	before     map[string]string // of the first cookie of a renewed session, that of the one before
	ended      bool              // destroyed
	destroys   []string          // the first cookies of the sessions that logouts have ended
	destroying []string          // and of those that they were asked to end
	ends       []ending
	refused    []refusal
	history    []*operation
	counted    int // acknowledged updates
}

// An ending is a renewal or a logout that has happened.
type ending struct {
	cookie string
	start  time.Duration
	logout bool
}

// A refusal says that a request was answered as if there were no session.
type refusal struct {
	cookie, answer string
	end            time.Duration
}

func (s *sharedSession) current() (cookie string, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cookie, s.ended
}

// root returns the cookie that the session of this one had first.
func (s *sharedSession) root(cookie string) string {
	if first, ok := s.first[cookie]; ok {
		return first
	}
	return cookie
}

// rotated notes that a response has set another cookie of the same session.
func (s *sharedSession) rotated(cookie, set string) {
	s.first[set] = s.root(cookie)
	if s.root(s.cookie) == s.root(cookie) {
		s.cookie = set
	}
	if slices.Contains(s.dead, cookie) {
		s.dead = append(s.dead, set)
	}
}

// bury notes that all cookies of the session are dead.
func (s *sharedSession) bury(cookie string) {
	root := s.root(cookie)
	s.dead = append(s.dead, root)
	for other, first := range s.first {
		if first == root {
			s.dead = append(s.dead, other)
		}
	}
}

// descends reports whether the session of the cookie, or one that it was renewed from, is in the list.
func (s *sharedSession) descends(cookie string, from []string) bool {
	for root := s.root(cookie); root != ""; root = s.before[root] {
		if slices.Contains(from, root) {
			return true
		}
	}
	return false
}

// explains reports whether the session had ended, or might have, when the request was refused. A logout also ends what
// the session has been renewed to.
func (s *sharedSession) explains(r refusal) bool {
	if s.over > 0 && r.end >= s.soon {
		return true
	}
	for root := s.root(r.cookie); root != ""; root = s.before[root] {
		for _, e := range s.ends {
			if s.root(e.cookie) == root && e.start < r.end && (e.logout || root == s.root(r.cookie)) {
				return true
			}
		}
	}
	return false
}

// A historian makes random requests and writes down what became of them.
type historian struct {
	*testing.T
	client *http.Client
	url    string               // where sessions live for an hour
	soon   string               // and where not
	users  [2]*sessplus.Manager // theirs, to list, end and edit sessions from outside
	begun  time.Time
	tried  struct {
		sync.Mutex
		count map[string]int // operations by kind and outcome
	}
}

func (h *historian) now() time.Duration { return time.Since(h.begun) }

func (h *historian) count(what string) {
	h.tried.Lock()
	defer h.tried.Unlock()
	h.tried.count[what]++
}

var errNoAnswer = errors.New("no answer")

// request makes one request with the cookie. A crash of the handler is errNoAnswer.
func (h *historian) request(s *sharedSession, cookie, kind, field, value string) (status int, body, setCookie string, err error) {
	url := h.url
	if s.soon > 0 {
		url = h.soon
	}
	req, err := http.NewRequest("GET", url+"/"+kind+"?field="+field+"&value="+value, nil)
	if err != nil {
		return 0, "", "", err
	}
	if cookie != "" {
		req.AddCookie(&http.Cookie{Name: "session", Value: cookie})
	}
	res, err := h.client.Do(req)
	if err != nil {
		return 0, "", "", errNoAnswer
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", "", errNoAnswer
	}
	for _, c := range res.Cookies() {
		if c.Name == "session" && c.MaxAge >= 0 {
			setCookie = c.Value
		}
	}
	return res.StatusCode, string(text), setCookie, nil
}

// manage does from outside of any request what is no kind of request, and answers as a handler would.
func (h *historian) manage(s *sharedSession, cookie, kind, field, value string) (status int, body string, ok bool) {
	m, ctx, handle := h.users[0], h.Context(), handleFrom(cookie)
	if s.soon > 0 {
		m = h.users[1]
	}
	var err error
	switch kind {
	case "edit":
		err = m.Edit(ctx, "session", handle, func(s *sessplus.Session) error { s.Set(field, value); return nil })
	case "editupdate":
		err = m.Edit(ctx, "session", handle, func(s *sessplus.Session) error {
			_, err := sessplus.Field[int]("counter").Update(s, func(n int) int { return n + 1 })
			return err
		})
	case "revoke":
		err = m.Revoke(ctx, "session", handle)
	case "revokeall":
		_, err = m.RevokeAll(ctx, "session", s.name)
	case "revokeothers":
		_, err = m.RevokeAll(ctx, "session", s.name, handle)
	case "list":
		var infos []sessplus.Info
		infos, err = m.Sessions(ctx, "session", s.name)
		body = strconv.Itoa(len(infos))
	default:
		return 0, "", false
	}
	switch {
	case err == nil:
		return http.StatusOK, body, true
	case errors.Is(err, sessplus.ErrSessionGone):
		return http.StatusConflict, err.Error(), true
	}
	return http.StatusServiceUnavailable, err.Error(), true
}

// handleFrom is a handle of the session that a cookie names, though not the one that it began with.
func handleFrom(cookie string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(cookie))) }

// handle is the handle of the session that a cookie names.
func (h *historian) handle(cookie string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "session", Value: cookie})
	s, _, err := h.users[0].Load(nil, r)
	if err != nil {
		h.Error(err)
		return ""
	}
	s.SkipTouch()
	return s.Handle("session")
}

// historyHandler does what a request asks for, to a session that there must be.
func historyHandler(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	field, value := r.FormValue("field"), r.FormValue("value")
	kind := strings.Trim(r.URL.Path, "/")
	if kind == "new" {
		s.Set("owner", value)
		return
	}
	if s.IsNew("session") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch kind {
	case "get":
		io.WriteString(w, s.GetString("owner")+" "+s.GetString(field))
	case "count":
		fmt.Fprint(w, s.GetInt("counter"))
	case "set":
		s.Set(field, value)
	case "savecrash":
		s.Set(field, value)
		if err := s.Save(); err == nil {
			io.WriteString(w, "saved")
			w.(http.Flusher).Flush()
		}
		panic(http.ErrAbortHandler)
	case "delete":
		s.Delete(field)
	case "pop":
		io.WriteString(w, s.GetString("owner")+" "+fmt.Sprint(s.Pop(field)))
	case "update":
		if _, err := sessplus.Field[int]("counter").Update(s, func(n int) int { return n + 1 }); errors.Is(err, sessplus.ErrSessionGone) {
			w.WriteHeader(http.StatusConflict)
		} else if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	case "crash":
		s.Set(field, value)
		panic(http.ErrAbortHandler)
	case "fail":
		s.Set(field, value)
		w.WriteHeader(http.StatusInternalServerError)
	case "renew":
		s.Renew()
	case "destroy":
		s.Destroy()
	}
}

// act makes one random operation on the session.
func (h *historian) act(s *sharedSession, rng *rand.Rand, n int) {
	cookie, ended := s.current()
	if ended {
		return
	}
	kinds := []string{"get", "get", "set", "set", "set", "set", "delete", "pop", "update", "update", "crash", "savecrash", "fail", "renew",
		"edit", "edit", "editupdate", "revokeothers", "list"}
	kind := kinds[rng.IntN(len(kinds))]
	if kind == "renew" && (s.over > 0 || rng.IntN(4) > 0) {
		kind = "set"
	}
	if n > 40 && rng.IntN(150) == 0 {
		kind = []string{"destroy", "revoke", "revokeall"}[rng.IntN(3)]
	}
	ends := kind == "destroy" || kind == "revoke" || kind == "revokeall"
	if ends {
		s.mu.Lock()
		s.destroying = append(s.destroying, s.root(cookie))
		s.mu.Unlock()
	}
	op := &operation{field: fmt.Sprintf("f%d", rng.IntN(4)), kind: kind, start: h.now()}
	if kind == "set" || kind == "edit" || kind == "crash" || kind == "savecrash" || kind == "fail" {
		op.value = fmt.Sprintf("%s-%d", s.name, rng.Uint64())
	}
	var set string
	var err error
	status, body, outside := h.manage(s, cookie, kind, op.field, op.value)
	if !outside {
		status, body, set, err = h.request(s, cookie, kind, op.field, op.value)
	}
	op.end = h.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case kind == "savecrash":
		// The answer is cut off, so the client cannot tell: it may have happened.
		op.kind, op.acked = "maybe", true
	case err != nil && kind != "crash":
		h.Errorf("%s: %v", kind, err)
		return
	case kind == "crash" || kind == "fail":
		op.acked = false
	case status == http.StatusUnauthorized || status == http.StatusConflict:
		h.count(kind + " refused")
		s.refused = append(s.refused, refusal{cookie, fmt.Sprintf("%s: %d", kind, status), op.end})
		op.acked = false
	case status == http.StatusServiceUnavailable && kind == "renew" && op.end-op.start > sessplus.TakeGrace:
		h.count("renew lapsed") // on a slow machine: it gave way to another one, and saved nothing
		op.acked = false
	case status != http.StatusOK:
		h.Errorf("%s: %s: status %d %q", s.name, kind, status, body)
		return
	default:
		op.acked = true
		if s.over > 0 && op.start > s.over && !strings.HasPrefix(kind, "revoke") && body != "0" {
			h.Errorf("%s: %s succeeded %v after the session's end", s.name, kind, op.start-s.over)
		}
	}
	h.count(kind)
	if set != "" && kind != "renew" {
		h.count("rotated")
		s.rotated(cookie, set)
	}
	switch kind {
	case "get", "pop":
		if op.acked {
			owner, value, _ := strings.Cut(body, " ")
			if owner != s.name || value != "" && value != "<nil>" && !strings.HasPrefix(value, s.name+"-") {
				h.Errorf("a request of %s was answered with data of another session: %q", s.name, body)
			}
			if value == "<nil>" {
				value = ""
			}
			op.value = value
		}
		if kind == "pop" { // a read, and then a delete
			read := *op
			read.kind = "get"
			s.history = append(s.history, &read)
			op.value = ""
		}
	case "update", "editupdate":
		if op.acked {
			s.counted++
		}
		return
	case "revokeothers":
		return
	case "list":
		if body == "0" && len(s.destroying) == 0 && s.over == 0 {
			h.Errorf("no session of %s is listed", s.name)
		}
		return
	case "renew":
		if op.acked {
			if set == "" {
				return // somebody else was faster, and it had nothing to lose
			}
			s.bury(cookie)
			s.ends = append(s.ends, ending{cookie, op.start, false})
			s.first[set] = set
			s.before[set] = s.root(cookie)
			s.cookie = set
			s.ended = s.descends(set, s.destroys) // or by one that ran at the same time, but later
		}
		return
	case "destroy", "revoke", "revokeall":
		if op.acked {
			s.bury(cookie)
			s.ends = append(s.ends, ending{cookie, op.start, true})
			s.destroys = append(s.destroys, s.root(cookie))
			s.ended = s.descends(s.cookie, s.destroys)
		}
		return
	}
	s.history = append(s.history, op)
}

// explain checks that a read of value between start and end fits the history of the field: some write gave it that
// value, and no other that happened came entirely after that write and entirely before the read.
func (s *sharedSession) explain(field, value string, start, end time.Duration) error {
	superseded := func(after time.Duration) bool {
		for _, w := range s.history {
			if w.field == field && w.writes() && w.kind != "maybe" && w.acked && w.start > after && w.end < start {
				return true
			}
		}
		return false
	}
	for _, w := range s.history {
		if w.field == field && w.writes() && w.value == value && w.start < end {
			if w.acked && !superseded(w.end) {
				return nil
			}
		}
	}
	if value == "" && !superseded(-1) {
		return nil
	}
	return fmt.Errorf("%s of %s is %q at %v, which no order of the operations explains", field, s.name, value, end)
}

// Random operations of many clients leave a state that some order of the acknowledged ones explains, per field:
// nothing is lost, nothing comes back, nothing leaks, also while ids rotate and while sessions are edited and revoked
// from outside (SPEC 3.12, SPEC 4.1, SPEC 4.2, SPEC 4.4, SPEC 4.5, SPEC 5.6, SPEC 10.2, SPEC 10.3).
func TestHistory(t *testing.T) {
	t.Parallel()
	// How many operations each client makes.
	sizes := map[string]int{"memory": 150, "redis": 100, "autopipeline": 100, "firestore": 15}
	onEveryBackend(t, func(t *testing.T, b sessplus.Backend) {
		seed := *historySeed
		if seed == 0 {
			seed = uint64(time.Now().UnixNano())
		}
		_, name, _ := strings.Cut(t.Name(), "/")
		checkHistory(t, b, seed, times(sizes[name])**historyTimes)
	})
}

func checkHistory(t *testing.T, b sessplus.Backend, seed uint64, size int) {
	const sessions, clients, short = 6, 5, 1500 * time.Millisecond
	rotate := 200 * time.Millisecond
	if strings.HasSuffix(t.Name(), "firestore") {
		rotate = 2 * time.Second // a rotation of the emulator takes a good part of a second
	}
	t.Logf("-history.seed=%d", seed)
	opts := &sessplus.Options{Timeout: 20 * time.Second, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
		status := http.StatusServiceUnavailable
		if errors.Is(err, sessplus.ErrSessionGone) {
			status = http.StatusConflict
		}
		http.Error(w, err.Error(), status)
	}}
	site := func(life time.Duration, users **sessplus.Manager) *httptest.Server {
		m := newManager(t, opts, sessplus.Config{CookieName: "session", Backend: b, Lifetime: life, RotateEvery: rotate, IndexBy: "owner"})
		*users = m
		srv := httptest.NewUnstartedServer(m.Handler(http.HandlerFunc(historyHandler)))
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.Start()
		t.Cleanup(srv.Close)
		return srv
	}
	h := &historian{T: t, client: &http.Client{Transport: new(http.Transport)}, begun: time.Now()}
	t.Cleanup(h.client.CloseIdleConnections)
	h.url, h.soon = site(time.Hour, &h.users[0]).URL, site(short, &h.users[1]).URL
	h.tried.count = make(map[string]int)

	var all []*sharedSession
	var wg sync.WaitGroup
	for i := range sessions {
		s := &sharedSession{name: "s" + strconv.Itoa(i), first: make(map[string]string), before: make(map[string]string)}
		if i == 0 {
			s.soon = h.now() + short
		}
		status, _, cookie, err := h.request(s, "", "new", "", s.name)
		if err != nil || status != http.StatusOK || cookie == "" {
			t.Fatalf("new: %d, %v", status, err)
		}
		s.cookie = cookie
		if i == 0 {
			s.over = h.now() + short
		}
		all = append(all, s)
		for j := range clients {
			rng := rand.New(rand.NewPCG(seed, uint64(i*clients+j)))
			wg.Go(func() {
				for n := range size {
					h.act(s, rng, n)
				}
			})
		}
	}
	wg.Wait()
	time.Sleep(time.Until(h.begun.Add(all[0].over)) + 50*time.Millisecond)

	for _, s := range all {
		for _, op := range s.history {
			if op.kind == "get" && op.acked {
				if err := s.explain(op.field, op.value, op.start, op.end); err != nil {
					t.Error(err)
				}
			}
		}
		for _, r := range s.refused {
			if !s.explains(r) {
				t.Errorf("%s: %s at %v, of a session that lives", s.name, r.answer, r.end)
			}
		}
		for _, dead := range s.dead {
			if status, _, _, err := h.request(s, dead, "get", "f0", ""); err != nil || status != http.StatusUnauthorized {
				t.Errorf("an ended session of %s is answered %d, %v", s.name, status, err)
			}
		}
		if s.ended || s.over > 0 {
			if status, _, _, err := h.request(s, s.cookie, "get", "f0", ""); err != nil || status != http.StatusUnauthorized {
				t.Errorf("%s has ended, and is answered %d, %v", s.name, status, err)
			}
			if status, _, _ := h.manage(s, s.cookie, "edit", "f0", "late"); status != http.StatusConflict {
				t.Errorf("%s has ended, and an edit is answered %d", s.name, status)
			}
			if _, n, _ := h.manage(s, s.cookie, "list", "", ""); n != "0" {
				t.Errorf("%s has ended, and has %s sessions", s.name, n)
			}
			continue
		}
		if infos, err := h.users[0].Sessions(t.Context(), "session", s.name); err != nil || len(infos) != 1 || infos[0].Handle != h.handle(s.cookie) {
			t.Errorf("%s has the sessions %v, %v, want one", s.name, infos, err)
		}
		for i := range 4 {
			field := fmt.Sprintf("f%d", i)
			start := h.now()
			status, body, _, err := h.request(s, s.cookie, "get", field, "")
			if err != nil || status != http.StatusOK {
				t.Errorf("%s is answered %d, %v", s.name, status, err)
				continue
			}
			_, value, _ := strings.Cut(body, " ")
			if err := s.explain(field, value, start, h.now()); err != nil {
				t.Error(err)
			}
		}
		h.checkCounter(s)
	}
	t.Log(h.tried.count)
}

// checkCounter fails unless the counter has counted every acknowledged update, and no other.
func (h *historian) checkCounter(s *sharedSession) {
	h.Helper()
	_, body, _, err := h.request(s, s.cookie, "count", "", "")
	if got, want := strings.TrimSpace(body), strconv.Itoa(s.counted); err != nil || got != want {
		h.Errorf("the counter of %s is %s, want %s acknowledged updates", s.name, got, want)
	}
}

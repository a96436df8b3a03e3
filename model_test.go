package sessplus_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessplus/sessplus"
)

var (
	modelSeed     = flag.Uint64("model.seed", 1, "where the random requests of TestModel begin")
	modelRequests = flag.Int("model.requests", 6000, "how many random requests TestModel makes on each backend")
	modelPrint    = flag.Bool("model.print", false, "print what the first play of TestModel does")
)

// The model: random requests of a few visitors, with faults and with other requests in their midst, against what must
// be true of every answer (SPEC 2.1, 3.8, 3.9, 3.11, 4.1, 4.2, 5.4, 5.6, 5.9, 6.1, 6.2, 7.7). Each value that is set is
// a token of its own, so that a read tells who has set it, and when. A play is a list of requests that is drawn from a
// seed, and can be played again without some of them: that is how a breach is made small.

// The cookies of the model, and the fields of each.
const (
	mA = iota // server-side
	mB        // server-side, on another backend
	mC        // a secure cookie that is bound to mA
	mCookies
)

var (
	mNames  = [mCookies]string{"a", "b", "bound"}
	mFields = [mCookies][2]string{{"u1", "u2"}, {"v1", "v2"}, {"w1", "w2"}}
)

// modelTimeout is short, because now and then a request waits for one in whose midst it is made.
const modelTimeout = 50 * time.Millisecond

// An mReq is a request of a play.
type mReq struct {
	visitor, browser int
	copies           bool // the browser's cookies are copied before: a second tab, or a thief
	lost             bool // the answer does not arrive
	blind            bool // does not read at first
	ops              []mOp
	faults           []mFault
}

// An mOp is what the handler of a request does.
type mOp struct {
	do     string
	cookie int // mCookies: all
	field  int
	nested *mReq
}

// An mFault is what befalls a call of the backend of a cookie.
type mFault struct {
	cookie int
	op     string
	nth    int
	what   string // "before", "after", "panic", or for nested "nest before", "nest after"
	nested *mReq
}

func (r *mReq) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{visitor %d browser %d", r.visitor, r.browser)
	for name, on := range map[string]bool{"copies": r.copies, "lost": r.lost, "blind": r.blind} {
		if on {
			b.WriteString(" " + name)
		}
	}
	b.WriteString(":")
	for _, o := range r.ops {
		b.WriteString(" " + o.do)
		switch o.do {
		case "set", "delete", "update":
			b.WriteString(" " + mFields[o.cookie][o.field])
		case "renew", "destroy", "permanent":
			if o.cookie < mCookies {
				b.WriteString(" " + mNames[o.cookie])
			}
		}
		if o.nested != nil {
			b.WriteString(" " + o.nested.String())
		}
		b.WriteString(";")
	}
	for _, f := range r.faults {
		fmt.Fprintf(&b, " FAULT %s %s #%d %s", mNames[f.cookie], f.op, f.nth, f.what)
		if f.nested != nil {
			b.WriteString(" " + f.nested.String())
		}
		b.WriteString(";")
	}
	return b.String() + "}"
}

// mDraw draws a request. depth is how many it is nested in.
func mDraw(r *rand.Rand, visitor, depth int) *mReq {
	q := &mReq{visitor: visitor, browser: r.IntN(3), copies: r.IntN(5) == 0, lost: r.IntN(25) == 0, blind: r.IntN(8) == 0}
	if depth > 0 && r.IntN(8) == 0 {
		q.visitor = 1 - visitor
	}
	for range r.IntN(5) + 1 {
		o := mOp{cookie: r.IntN(mCookies), field: r.IntN(2)}
		switch n := r.IntN(100); {
		case n < 38:
			o.do = "set"
		case n < 46:
			o.do = "delete"
		case n < 49:
			o.do = "clear"
		case n < 60:
			o.do, o.cookie = "renew", []int{mA, mB, mC, mCookies, mCookies}[r.IntN(5)]
		case n < 67:
			o.do, o.cookie = "destroy", []int{mA, mB, mC, mCookies, mCookies}[r.IntN(5)]
		case n < 73:
			o.do = "save"
		case n < 80:
			o.do = "update"
		case n < 83:
			o.do = "permanent"
		case n < 87:
			o.do = "flush"
		case n < 89:
			o.do = "500"
		case n < 91:
			o.do = "panic"
		case n < 92:
			o.do = "cancel"
		default:
			if depth == 2 {
				continue
			}
			o.do, o.nested = "nest", mDraw(r, q.visitor, depth+1)
		}
		if o.do == "500" && r.IntN(2) == 0 {
			continue
		}
		q.ops = append(q.ops, o)
		if o.do == "500" || o.do == "panic" {
			break
		}
	}
	for n := r.IntN(12); n < 4; n++ {
		f := mFault{cookie: r.IntN(2), op: []string{"load", "create", "create", "update", "update", "take", "take", "end", "end", "delete", "release"}[r.IntN(11)],
			nth: r.IntN(5) / 4, what: []string{"before", "after", "after", "panic"}[r.IntN(4)]}
		if depth < 2 && r.IntN(3) == 0 && !slices.ContainsFunc(q.faults, func(f mFault) bool { return f.nested != nil }) {
			f.what, f.nested = []string{"nest before", "nest after"}[r.IntN(2)], mDraw(r, q.visitor, depth+1)
		}
		q.faults = append(q.faults, f)
		if n > 0 {
			break
		}
	}
	return q
}

// An mWorld is what the two fields of a cookie may hold, "" for absent.
type mWorld [2]string

// mWorlds are those of which one is true.
type mWorlds map[mWorld]bool

func (w mWorlds) mayBeEmpty() bool { return w[mWorld{}] }

// An mSession is what is known of the session under an id.
type mSession struct {
	id     string
	worlds mWorlds
	former mWorlds     // before it ended
	next   *mSession   // what it was renewed to, if that is sure
	other  []*mSession // what it may have been renewed to
	dead   bool        // nothing can be read under it or saved in it any more
	bound  []string    // tokens that were sealed with it
}

// An mToken is a value.
type mToken struct {
	visitor int
	before  int    // ids from before this time must not show it; 0: no such thing
	gone    string // why nobody may see it
	goneAt  int    // since when
}

// An mSealed is the text of the secure cookie.
type mSealed struct {
	id     string
	worlds mWorlds // nil: unknown
}

// A model knows what may be true.
type model struct {
	manager  *sessplus.Manager
	inner    [2]sessplus.Backend
	bubble   bool
	clock    int
	tokens   map[string]*mToken
	sessions [2]map[string]*mSession
	sealed   map[string]*mSealed
	issued   map[string]int // when a cookie's text was first seen
	browsers [2][]map[string]string
	stack    []*mTurn
	loose    bool // a request had so many faults that something may be taken yet
	breach   string
	log      []string
	made     int
	mu       sync.Mutex // guards the counters of calls
}

// An mTurn is a request that is under way.
type mTurn struct {
	*model
	req       *mReq
	jar       map[string]string
	start     time.Time
	began     int
	came, cur [mCookies]string
	base      [mCookies]mWorld // as read or confirmed
	view      [mCookies]mWorld // as this request has it
	unknown   [mCookies]bool   // it has not been read
	touched   [mCookies][2]bool
	disturbed [mCookies][2]bool // a request in its midst has changed the field
	stored    [mCookies][2]bool // an Update has saved the field at once
	ended     [mCookies]bool    // or has ended the session
	destroyed [mCookies]bool
	renew     [mCookies]bool
	afresh    [mCookies]bool // Renew or Destroy was called before
	open      []string       // tokens that were not tried to be saved
	ran       bool
	sent      bool // the header has gone
	saved     bool // Save was called and answered nil
	rejected  bool // the script has answered 500
	scripted  bool // the script has panicked
	late      bool // Destroy was called after the header
	reason    bool // a 409 that was answered before the end had one
	setBound  bool // a field of the secure cookie was set
	lenient   bool // in the midst of a commit of the same visitor
	nests     int
	canceled  bool
	cancel    func()

	calls  map[string]int
	faults int
	inCall bool
	slow   bool // a request was made in the midst of a call, and may have taken longer than the Timeout
}

func (m *model) fail(format string, args ...any) {
	if m.breach == "" {
		m.breach = fmt.Sprintf(format, args...)
		m.note("BREACH %s", m.breach)
	}
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, strings.Repeat("    ", len(m.stack))+fmt.Sprintf(format, args...))
}

type mTurnKey struct{}

// An mBackend is a Backend whose calls fail as the request says that makes them.
type mBackend struct {
	sessplus.Backend
	cookie int
}

func (b *mBackend) call(ctx context.Context, op string, do func() error) error {
	t, _ := ctx.Value(mTurnKey{}).(*mTurn)
	if t == nil {
		return do()
	}
	t.mu.Lock()
	n := t.calls[mNames[b.cookie]+op]
	t.calls[mNames[b.cookie]+op]++
	i := slices.IndexFunc(t.req.faults, func(f mFault) bool { return f.cookie == b.cookie && f.op == op && f.nth == n })
	if i >= 0 && t.req.faults[i].nested == nil {
		t.faults++
	}
	t.mu.Unlock()
	if i < 0 {
		return do()
	}
	f := t.req.faults[i]
	switch f.what {
	case "before":
		return errors.New("it is down")
	case "panic":
		panic("a fault")
	case "nest before":
		t.nest(f.nested)
	}
	err := do()
	switch f.what {
	case "after":
		return errors.New("the answer is lost")
	case "nest after":
		t.nest(f.nested)
	}
	return err
}

// nest makes a request in the midst of a call.
func (t *mTurn) nest(q *mReq) {
	if t.bubble {
		synctest.Wait() // for the calls beside this one
	}
	t.inCall, t.slow = true, true
	t.play(q)
	t.inCall = false
}

func (b *mBackend) Load(ctx context.Context, key string) (r *sessplus.Record, err error) {
	err = b.call(ctx, "load", func() error { r, err = b.Backend.Load(ctx, key); return err })
	return r, err
}

func (b *mBackend) Create(ctx context.Context, key string, r *sessplus.Record) error {
	return b.call(ctx, "create", func() error { return b.Backend.Create(ctx, key, r) })
}

func (b *mBackend) Update(ctx context.Context, key string, c *sessplus.Change) (r sessplus.Result, err error) {
	err = b.call(ctx, "update", func() error { r, err = b.Backend.Update(ctx, key, c); return err })
	return r, err
}

func (b *mBackend) End(ctx context.Context, key string, e *sessplus.Ending) (r *sessplus.Record, err error) {
	err = b.call(ctx, stepName(e), func() error { r, err = b.Backend.End(ctx, key, e); return err })
	return r, err
}

// Variants of the configs, as bits.
const (
	mLazy = 1 << iota
	mAges // idle timeouts are moved, and cookies are sent again with each save
	mRaw  // both cookies are on one client, with one round trip for both, and nothing fails
)

func newModel(t *testing.T, backends [2]sessplus.Backend, bubble bool, variant uint64) *model {
	m := &model{inner: backends, bubble: bubble, tokens: make(map[string]*mToken), sealed: make(map[string]*mSealed), issued: make(map[string]int)}
	for k := range m.sessions {
		m.sessions[k] = make(map[string]*mSession)
	}
	for v := range m.browsers {
		m.browsers[v] = []map[string]string{{}}
	}
	configs := []sessplus.Config{
		{CookieName: "a", Backend: &mBackend{backends[mA], mA}, Fields: sessplus.Include("u1", "u2")},
		{CookieName: "b", Backend: &mBackend{backends[mB], mB}, Fields: sessplus.Include("v1", "v2")},
		{CookieName: "bound", BoundTo: "a", Fields: sessplus.Include("w1", "w2")},
	}
	for k := range configs[:mC] {
		if configs[k].Lazy = variant&mLazy != 0; variant&mAges != 0 {
			configs[k].IdleTimeout, configs[k].MaxAge = 30*time.Second, time.Hour
		}
		if variant&mRaw != 0 {
			configs[k].Backend, m.inner[k] = backends[0], backends[0]
		}
	}
	m.manager = newManager(t, &sessplus.Options{Timeout: modelTimeout, Logger: slog.New(slog.DiscardHandler)}, configs...)
	return m
}

// play makes the request, and checks what becomes of it.
func (m *model) play(q *mReq) {
	if m.breach != "" || len(m.stack) > 3 {
		return
	}
	m.made++
	m.clock++
	tabs := m.browsers[q.visitor]
	jar := tabs[q.browser%len(tabs)]
	if q.copies && len(tabs) < 4 {
		m.browsers[q.visitor] = append(tabs, maps.Clone(jar))
	}
	t := &mTurn{model: m, req: q, jar: jar, start: time.Now(), began: m.clock, calls: make(map[string]int)}
	r := httptest.NewRequest("GET", "/", nil)
	for k, name := range mNames {
		if value, ok := jar[name]; ok {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
			t.came[k] = value
		}
	}
	t.cur = t.came
	for _, o := range m.stack {
		if o.req.visitor == q.visitor && (o.inCall || o.lenient) {
			t.lenient = true
			for k := range mCookies {
				t.ended[k], t.disturbed[k] = true, [2]bool{true, true}
			}
		}
		o.nests++
	}
	m.note("%v", q)
	m.stack = append(m.stack, t)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), mTurnKey{}, t))
	t.cancel = cancel
	defer cancel()
	rec := httptest.NewRecorder()
	panicked := t.serve(rec, r.WithContext(ctx))
	t.finish(rec, panicked)
	m.stack = m.stack[:len(m.stack)-1]
	m.note("= %d panicked %v faults %d, jar %v", rec.Code, panicked, t.faults, short(jar))
}

func short(jar map[string]string) map[string]string {
	s := make(map[string]string)
	for k, v := range jar {
		s[k] = v[len(v)-5:]
	}
	return s
}

func (t *mTurn) serve(w http.ResponseWriter, r *http.Request) (panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			if p != "a fault" && p != "as the script says" {
				panic(p)
			}
		}
	}()
	t.manager.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.handle(w, sessplus.Get(r))
	})).ServeHTTP(w, r)
	return false
}

func (t *mTurn) handle(w http.ResponseWriter, s *sessplus.Session) {
	t.ran = true
	if t.req.blind {
		t.unknown = [mCookies]bool{true, true, true}
	} else {
		t.read(s)
	}
	for _, o := range t.req.ops {
		if t.breach != "" {
			return
		}
		t.do(w, s, o)
	}
}

// read reads all fields, and checks what it sees.
func (t *mTurn) read(s *sessplus.Session) {
	s.Fields()
	failed := s.Err() != nil // a lazy load, whose fields are absent
	for k := range mCookies {
		var seen mWorld
		for i, field := range mFields[k] {
			seen[i] = s.GetString(field)
			if seen[i] != "" {
				t.checkToken(k, seen[i])
			}
		}
		t.base[k], t.view[k] = seen, seen
		if t.lenient || t.nests > 0 || failed { // in the midst of its load
			continue
		}
		if k == mC {
			t.checkSealed(seen)
			continue
		}
		switch x := t.sessions[k][t.came[k]]; {
		case t.came[k] == "" && seen != mWorld{}:
			t.fail("without a cookie %s reads %v", mNames[k], seen)
		case x == nil:
		case !x.worlds[seen]:
			t.fail("%s reads %v, want one of %v", mNames[k], seen, x.worlds)
		default:
			x.worlds = mWorlds{seen: true}
		}
	}
	t.note("reads %v", t.view)
}

func (t *mTurn) checkToken(k int, value string) {
	tok := t.tokens[value]
	id := t.came[min(k, mB)]
	if k == mC {
		id = t.came[mA]
	}
	switch {
	case tok == nil:
		t.fail("nobody has set %q", value)
	case tok.visitor != t.req.visitor:
		t.fail("visitor %d sees %q of another", t.req.visitor, value)
	case tok.gone != "" && tok.goneAt < t.began:
		t.fail("%q is seen, which was %s", value, tok.gone)
	case tok.before > 0 && t.issued[id] < tok.before:
		t.fail("%q was set after Renew or Destroy, and is seen under a cookie from before", value)
	}
}

func (t *mTurn) checkSealed(seen mWorld) {
	text := t.came[mC]
	x := t.sealed[text]
	a := t.sessions[mA][t.came[mA]]
	switch {
	case text == "":
		if seen != (mWorld{}) {
			t.fail("without a cookie bound reads %v", seen)
		}
	case x == nil || a == nil && x.worlds == nil:
	case x.id != t.came[mA]:
		if seen != (mWorld{}) {
			t.fail("bound reads %v, which belongs to another session", seen)
		}
	case x.worlds == nil:
	case seen == mWorld{} && (a == nil || a.dead || a.worlds.mayBeEmpty()):
	case !x.worlds[seen]:
		t.fail("bound reads %v, want one of %v", seen, x.worlds)
	}
}

// each calls f for the cookie, or all.
func each(cookie int, f func(k int)) {
	for k := range mCookies {
		if cookie == k || cookie == mCookies {
			f(k)
		}
	}
}

// token makes a value for a field.
func (t *mTurn) token(k int) string {
	value := fmt.Sprintf("t%d", len(t.tokens)+1)
	tok := &mToken{visitor: t.req.visitor}
	if t.afresh[k] && !t.sent {
		tok.before = t.began
	}
	t.tokens[value] = tok
	t.open = append(t.open, value)
	return value
}

func (t *mTurn) put(k, i int, value string) {
	t.view[k][i], t.touched[k][i] = value, true
	t.setBound = t.setBound || k == mC && value != ""
}

func (t *mTurn) do(w http.ResponseWriter, s *sessplus.Session, o mOp) {
	var names []string
	if o.cookie < mCookies {
		names = []string{mNames[o.cookie]}
	}
	switch o.do {
	case "set":
		value := t.token(o.cookie)
		s.Set(mFields[o.cookie][o.field], value)
		t.put(o.cookie, o.field, value)
	case "delete":
		field := mFields[o.cookie][o.field]
		if s.Has(field) {
			t.put(o.cookie, o.field, "")
		}
		s.Delete(field)
	case "clear":
		for k := range mCookies {
			for i, field := range mFields[k] {
				if s.Has(field) {
					t.put(k, i, "")
				}
			}
		}
		s.Clear()
	case "renew":
		s.Renew(names...)
		each(o.cookie, func(k int) {
			t.renew[k], t.afresh[k] = true, true
			if k == mA {
				t.renew[mC], t.afresh[mC] = true, true
			}
			if k == mC && o.cookie == mC {
				t.afresh[mC] = t.afresh[mA] // the content is written anew, but for the same session
			}
		})
	case "destroy":
		s.Destroy(names...)
		t.late = t.late || t.sent
		end := func(k int) {
			t.destroyed[k], t.afresh[k], t.renew[k] = true, true, false
			t.view[k], t.touched[k], t.unknown[k] = mWorld{}, [2]bool{}, false
		}
		each(o.cookie, func(k int) {
			end(k)
			if k == mA {
				end(mC)
			}
			if k == mC && o.cookie == mC {
				t.afresh[mC] = t.afresh[mA]
			}
		})
	case "save":
		err := s.Save()
		t.note("Save: %v", err)
		defer t.told(s, err)
		t.saved = t.saved || err == nil
		if err == nil && !t.sent { // the cookies go with the header, and only then can be looked at
			w.(http.Flusher).Flush()
			t.headers(w, s)
			return
		}
		open := t.open
		t.open = nil
		t.settle(err == nil, open, w.Header())
	case "update":
		k, i := o.cookie, o.field
		value := t.token(k)
		t.open = slices.DeleteFunc(t.open, func(v string) bool { return v == value })
		_, err := sessplus.Field[string](mFields[k][i]).Update(s, func(string) string { return value })
		t.note("Update %s: %v", value, err)
		x := (*mSession)(nil)
		if k != mC && !t.destroyed[k] && !t.renew[k] {
			x = t.sessions[k][t.cur[k]]
		}
		if x != nil {
			t.stored[k][i] = true
			t.overlay(x, k, [2]bool{i == 0, i == 1}, value)
		}
		if err == nil {
			others := t.touched[k]
			t.put(k, i, value)
			if x != nil && !x.dead && t.base[k] != (mWorld{}) { // it is saved already
				t.touched[k] = [2]bool{i == 0, i == 1}
				t.keep(k, x)
				others[i], t.base[k][i] = false, value
				t.touched[k] = others
			}
		}
		t.told(s, err)
	case "permanent":
		s.SetPermanent(mNames[o.cookie], o.field == 0)
	case "flush":
		w.(http.Flusher).Flush()
		t.headers(w, s)
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
		if !t.sent {
			t.sent, t.rejected = true, true
		}
	case "panic":
		t.scripted = true
		panic("as the script says")
	case "cancel":
		t.canceled = true
		t.cancel()
	case "nest":
		t.play(o.nested)
	}
}

// told lets go of what the session has let go of, because it told the program that it has ended.
func (t *mTurn) told(s *sessplus.Session, err error) {
	if !errors.Is(err, sessplus.ErrSessionGone) {
		return
	}
	for k := range mCookies {
		var now mWorld
		for i, field := range mFields[k] {
			now[i] = s.GetString(field)
		}
		if now != t.view[k] && (!t.unknown[k] || now == mWorld{}) {
			t.view[k], t.base[k], t.touched[k] = now, now, [2]bool{}
		}
	}
}

// overlay adds to what may be stored a value of one field.
func (t *mTurn) overlay(x *mSession, k int, mask [2]bool, value string) {
	for _, x := range append(x.successors(), x) {
		if !x.dead {
			for w := range maps.Clone(x.worlds) {
				for i := range w {
					if mask[i] {
						w[i] = value
					}
				}
				x.worlds[w] = true
			}
		}
	}
	for _, o := range t.outer() {
		for i := range mask {
			o.disturbed[k][i] = o.disturbed[k][i] || mask[i]
		}
	}
}

func (t *mTurn) outer() []*mTurn { return t.stack[:max(0, slices.Index(t.stack, t))] }

// headers notes that the headers have gone.
func (t *mTurn) headers(w http.ResponseWriter, s *sessplus.Session) {
	if t.sent {
		return
	}
	rec := w.(interface{ Unwrap() http.ResponseWriter }).Unwrap().(*httptest.ResponseRecorder)
	open := t.open
	t.open = nil
	t.reason = t.reasonFor409()
	t.settle(rec.Code == http.StatusOK, open, rec.Result().Header)
	t.sent = true
	if rec.Code == http.StatusConflict {
		t.told(s, sessplus.ErrSessionGone)
	}
}

// lines gives the values that a header sets, "" for what it drops.
func lines(h http.Header) map[string]string {
	set := make(map[string]string)
	for _, line := range h["Set-Cookie"] {
		if k, err := http.ParseSetCookie(line); err == nil {
			set[k.Name] = k.Value
			if k.MaxAge < 0 {
				set[k.Name] = ""
			}
		}
	}
	return set
}

// over gives what becomes of a world by what this request has touched: all of it, or without some of what others have
// changed in its midst.
func (t *mTurn) over(k int, w mWorld) []mWorld {
	all := []mWorld{w}
	for i := range w {
		if !t.touched[k][i] {
			continue
		}
		more := slices.Clone(all)
		for j := range all {
			all[j][i] = t.view[k][i]
		}
		if t.disturbed[k][i] {
			all = append(all, more...)
		}
	}
	return all
}

// settle takes over what a commit has done: with certain, all of it.
func (t *mTurn) settle(certain bool, open []string, h http.Header) {
	set := lines(h)
	for name, value := range set {
		if value != "" && t.issued[value] == 0 {
			t.clock++
			t.issued[value] = t.clock
		}
		_ = name
	}
	oldA := t.cur[mA]
	for k := range mC {
		id := set[mNames[k]]
		x := t.sessions[k][t.cur[k]]
		fresh := id != "" && id != t.cur[k]
		filled := t.view[k] != mWorld{}
		changes := t.touched[k] != [2]bool{}
		switch {
		case !certain:
			if fresh {
				t.sessions[k][id] = nil // unknown
			}
			t.doubt(k, x)
			if came := t.sessions[k][t.came[k]]; t.destroyed[k] && came != x { // Destroy ends every id that came
				t.doubt(k, came)
			}
			continue
		case t.destroyed[k]:
			if x != nil {
				t.kill(k, x)
			}
			if came := t.sessions[k][t.came[k]]; came != nil {
				t.kill(k, came)
			}
			if fresh {
				t.sessions[k][id] = &mSession{id: id, worlds: mWorlds{t.view[k]: true}}
				t.cur[k], t.renew[k] = id, false
			} else {
				if filled && changes && !t.sent {
					t.fail("%s was set after Destroy and confirmed, and there is no cookie", mNames[k])
				}
				t.cur[k] = ""
			}
			t.destroyed[k] = false
		case fresh:
			t.renewed(k, x, id)
			t.cur[k], t.renew[k] = id, false
		default:
			if t.renew[k] && filled && !t.sent && x != nil && !x.dead && !x.worlds.mayBeEmpty() && !t.ended[k] && t.disturbed[k] == [2]bool{} {
				t.fail("%s was renewed and confirmed, and there is no new cookie", mNames[k])
			}
			if filled && changes && !t.sent && (x == nil || x.dead) && !t.ended[k] {
				t.fail("%s was set and confirmed, and there is no session", mNames[k])
			}
			if x != nil && changes {
				t.keep(k, x)
			}
		}
		t.touched[k], t.base[k] = [2]bool{}, t.view[k]
	}
	t.settleSealed(certain, set[mNames[mC]], oldA, h)
}

// keep notes that what was touched has been saved under the id.
func (t *mTurn) keep(k int, x *mSession) {
	if !x.dead {
		worlds := make(mWorlds)
		if t.ended[k] && x.worlds.mayBeEmpty() { // it may have ended in the midst of this request
			worlds[mWorld{}] = true
		}
		for w := range x.worlds {
			for _, w := range t.over(k, w) {
				worlds[w] = true
			}
		}
		x.worlds = worlds
	}
	t.disturb(k, x)
	for _, y := range x.successors() { // it was saved before it ended, or not
		if t.ended[k] && !y.dead {
			for w := range maps.Clone(y.worlds) {
				for _, w := range t.over(k, w) {
					y.worlds[w] = true
				}
			}
		}
	}
}

// disturb tells the requests in whose midst this one is.
func (t *mTurn) disturb(k int, x *mSession) {
	for _, o := range t.outer() {
		if o.req.visitor == t.req.visitor {
			for i := range 2 {
				o.disturbed[k][i] = o.disturbed[k][i] || t.touched[k][i]
			}
		}
	}
}

// doubt notes that what was to be saved may be saved.
func (t *mTurn) doubt(k int, x *mSession) {
	if x == nil {
		return
	}
	for _, x := range append(x.successors(), x) {
		if x.dead {
			continue
		}
		worlds := maps.Clone(x.worlds)
		if t.destroyed[k] || t.renew[k] && t.faults > 1 {
			worlds[mWorld{}] = true
		}
		if (!t.renew[k] || t.view[k] == mWorld{}) && !t.destroyed[k] {
			for w := range x.worlds {
				for _, w := range t.over(k, w) {
					worlds[w] = true
				}
			}
		}
		x.worlds = worlds
		t.disturb(k, x)
		if t.destroyed[k] {
			t.tellEnded(k)
		}
	}
}

func (t *mTurn) tellEnded(k int) {
	for _, o := range t.outer() {
		if o.req.visitor == t.req.visitor {
			o.ended[k] = true
		}
	}
}

// kill notes that a session was destroyed, and what it has become.
func (t *mTurn) kill(k int, x *mSession) {
	t.tellEnded(k)
	for ; x != nil; x = x.next {
		for w := range x.worlds {
			for i, value := range w {
				sure := true
				for w := range x.worlds {
					sure = sure && w[i] == value
				}
				if value != "" && sure {
					t.lose(value, "destroyed")
				}
			}
		}
		if k == mA {
			for _, value := range x.bound {
				t.lose(value, "destroyed with the session that it was bound to")
			}
		}
		if !x.dead {
			x.former = x.worlds
		}
		x.worlds, x.dead = mWorlds{{}: true}, true
		x.weaken()
	}
}

// lose notes that nobody who asks from now on may see a value.
func (t *mTurn) lose(value, why string) {
	if tok := t.tokens[value]; tok.gone == "" {
		tok.gone, tok.goneAt = why, t.clock
	}
}

// successors are the sessions that it may have become.
func (x *mSession) successors() (list []*mSession) {
	next := x.other
	if x.next != nil {
		next = append(slices.Clone(next), x.next)
	}
	for _, y := range next {
		list = append(append(list, y), y.successors()...)
	}
	return list
}

// weaken notes that what x may have been renewed to may have ended with it.
func (x *mSession) weaken() {
	for _, y := range x.other {
		for _, y := range append(y.successors(), y) {
			y.worlds[mWorld{}] = true
		}
	}
}

// renewed notes that a session has got another id, or that there is a new one.
func (t *mTurn) renewed(k int, x *mSession, id string) {
	y := &mSession{id: id, worlds: make(mWorlds)}
	from := mWorlds{{}: true}
	if x != nil {
		if from = x.worlds; x.dead && t.ended[k] {
			from = x.former
		}
		if !t.renew[k] && !x.dead && !x.worlds.mayBeEmpty() && !t.ended[k] {
			t.fail("%s got a new id without Renew", mNames[k])
		}
		if !t.renew[k] && x.dead && !t.ended[k] {
			t.fail("a dead id of %s was given a new one", mNames[k])
		}
	}
	for w := range from {
		for _, w := range t.over(k, w) {
			y.worlds[w] = true
		}
	}
	unsure := x == nil || x.dead || x.worlds.mayBeEmpty() || t.ended[k]
	if unsure {
		for i, stored := range t.stored[k] { // by an Update, and has gone with the session
			t.disturbed[k][i] = t.disturbed[k][i] || stored
		}
		for _, w := range t.over(k, mWorld{}) {
			y.worlds[w] = true
		}
	}
	if x != nil && t.ended[k] {
		y.worlds[mWorld{}] = true // ended in the midst of the commit
	}
	t.sessions[k][id] = y
	if x == nil {
		return
	}
	if !unsure {
		x.next = y
	} else {
		x.other = append(x.other, y)
	}
	if !x.dead {
		x.former = x.worlds
	}
	x.worlds, x.dead = mWorlds{{}: true}, true
	t.tellEnded(k)
}

// settleSealed is settle for the secure cookie.
func (t *mTurn) settleSealed(certain bool, text, oldA string, h http.Header) {
	if !certain {
		return
	}
	if t.view[mA] == (mWorld{}) {
		t.unknown[mC] = true // the session may have gone with its last field, and the cookie with it
	}
	_, answered := lines(h)[mNames[mC]]
	a := t.sessions[mA][t.cur[mA]]
	sure := !t.ended[mA] && a != nil && !a.worlds.mayBeEmpty()
	if text != "" && t.sealed[text] == nil {
		x := &mSealed{id: t.cur[mA]}
		if !t.unknown[mC] {
			x.worlds = make(mWorlds)
			x.worlds[t.view[mC]] = true
			if !sure || t.cur[mA] != oldA {
				for _, w := range t.over(mC, mWorld{}) {
					x.worlds[w] = true
				}
			}
			if a != nil {
				for _, value := range t.view[mC] {
					if value != "" {
						a.bound = append(a.bound, value)
					}
				}
			}
		}
		t.sealed[text] = x
		t.cur[mC] = text
	} else if held := t.came[mC] != "" || t.view[mC] != (mWorld{}); held && !t.sent && sure && !t.unknown[mC] && !answered {
		if t.base[mC] != t.view[mC] || t.cur[mA] != oldA && t.view[mC] != (mWorld{}) {
			t.fail("bound is %v now and was %v, and there is no cookie", t.view[mC], t.base[mC])
		}
	}
	t.base[mC], t.touched[mC], t.renew[mC], t.destroyed[mC] = t.view[mC], [2]bool{}, false, false
}

// finish checks the answer, and takes it over.
func (t *mTurn) finish(rec *httptest.ResponseRecorder, panicked bool) {
	if t.breach != "" {
		return
	}
	open := t.open
	arrives := !panicked || t.sent
	var h http.Header
	if arrives {
		h = rec.Result().Header
	}
	destroyed, gone := t.destroyed, t.reason || t.reasonFor409()
	switch {
	case !t.ran:
	case panicked && t.scripted, t.rejected:
		for _, value := range open {
			t.lose(value, "not to be saved")
		}
	case panicked, t.sent:
		t.settle(false, open, h)
	default:
		t.settle(rec.Code == http.StatusOK, open, h)
	}
	if t.faults > 1 || panicked && t.faults > 0 || t.slow && !t.bubble {
		t.loose = true
	}
	if !arrives {
		return
	}
	switch code := rec.Code; {
	case code == http.StatusOK, code == http.StatusInternalServerError && t.rejected:
	case code == http.StatusServiceUnavailable:
		inTime := t.bubble || time.Since(t.start) < modelTimeout // a busy machine takes long
		if t.faults == 0 && !t.loose && !t.lenient && !t.slow && inTime {
			t.fail("503 without a fault")
		}
	case code == http.StatusConflict:
		if !gone {
			t.fail("409 without a reason")
		}
	case code == http.StatusInternalServerError && t.setBound: // to no session
	default:
		t.fail("status %d", code)
	}
	t.checkHeader(rec.Code, h, destroyed)
	for k, name := range mNames[:mC] {
		if id := t.cur[k]; id != t.came[k] && id != "" && lines(h)[name] == "" && t.view[k] != (mWorld{}) && !t.ended[k] && !destroyed[k] {
			t.fail("the session %s was renewed, and the answer does not say so", name)
		}
	}
	if t.req.lost {
		for k := range mC {
			if t.cur[k] != t.came[k] {
				break
			}
		}
		return
	}
	for name, value := range lines(h) {
		if t.jar[name] = value; value == "" {
			delete(t.jar, name)
		}
	}
}

// reasonFor409 reports whether a session of the request may have ended.
func (t *mTurn) reasonFor409() bool {
	for k := range mC {
		x := t.sessions[k][t.cur[k]]
		if t.ended[k] || t.came[k] != "" && (x == nil || x.dead || x.worlds.mayBeEmpty()) {
			return true
		}
	}
	return t.setBound && (t.view[mA] == mWorld{} || t.disturbed[mA] != [2]bool{})
}

// checkHeader checks the Set-Cookie lines of an answer.
func (t *mTurn) checkHeader(status int, h http.Header, destroyed [mCookies]bool) {
	names := make(map[string]int)
	for _, line := range h["Set-Cookie"] {
		name, _, _ := strings.Cut(line, "=")
		if names[name]++; names[name] > 1 {
			t.fail("%d Set-Cookie for %s", names[name], name)
		}
	}
	for k, name := range mNames {
		value, ok := lines(h)[name]
		if !ok {
			continue
		}
		if status >= 400 && !t.saved && !t.rejected && (value != "" || !destroyed[k]) {
			t.fail("an answer of %d sets %s to %q", status, name, value)
		}
		if value == "" || k == mC || t.nests > 0 || t.lenient || t.late {
			continue
		}
		key := fmt.Sprintf("session:%s:%x", name, sha256.Sum256([]byte(value)))
		if _, err := t.inner[k].Load(context.Background(), key); err != nil {
			t.fail("the answer names a session of %s that is not there: %v", name, err)
		}
	}
}

// calm checks that every browser works once the faults have stopped.
func (m *model) calm() {
	if m.bubble {
		time.Sleep(sessplus.TakeGrace + time.Second)
		m.loose = false
	}
	for v := range m.browsers {
		for b := range m.browsers[v] {
			m.play(&mReq{visitor: v, browser: b})
			m.play(&mReq{visitor: v, browser: b, ops: []mOp{{do: "set", cookie: mA}, {do: "set", cookie: mB}, {do: "set", cookie: mC}}})
			m.play(&mReq{visitor: v, browser: b})
			m.play(&mReq{visitor: v, browser: b, ops: []mOp{{do: "destroy", cookie: mCookies}}})
		}
	}
	for v := range m.browsers {
		for b := range m.browsers[v] {
			m.play(&mReq{visitor: v, browser: b})
		}
	}
}

// An mPlay is what is played from one seed.
type mPlay []*mReq

func mDrawPlay(seed uint64) (p mPlay) {
	r := rand.New(rand.NewPCG(seed, 0))
	for range 4 + r.IntN(10) {
		p = append(p, mDraw(r, r.IntN(2), 0))
	}
	return p
}

// smaller gives plays that lack something of p.
func (p mPlay) smaller() (list []mPlay) {
	for i := range p {
		list = append(list, slices.Delete(slices.Clone(p), i, i+1))
	}
	for i, q := range p {
		for _, q := range q.smaller() {
			one := slices.Clone(p)
			one[i] = q
			list = append(list, one)
		}
	}
	return list
}

func (r *mReq) smaller() (list []*mReq) {
	with := func(f func(c *mReq)) {
		c := *r
		c.ops, c.faults = slices.Clone(r.ops), slices.Clone(r.faults)
		f(&c)
		list = append(list, &c)
	}
	for i := range r.ops {
		with(func(c *mReq) { c.ops = slices.Delete(c.ops, i, i+1) })
	}
	for i := range r.faults {
		with(func(c *mReq) { c.faults = slices.Delete(c.faults, i, i+1) })
	}
	if r.copies {
		with(func(c *mReq) { c.copies = false })
	}
	if r.lost {
		with(func(c *mReq) { c.lost = false })
	}
	if r.blind {
		with(func(c *mReq) { c.blind = false })
	}
	for i := range r.ops {
		if n := r.ops[i].nested; n != nil {
			for _, n := range n.smaller() {
				with(func(c *mReq) { c.ops[i].nested = n })
			}
		}
	}
	for i := range r.faults {
		if n := r.faults[i].nested; n != nil {
			for _, n := range n.smaller() {
				with(func(c *mReq) { c.faults[i].nested = n })
			}
		}
	}
	return list
}

// perform plays p on backends of its own.
func (p mPlay) perform(t *testing.T, backends [2]sessplus.Backend, bubble bool, variant uint64) *model {
	m := newModel(t, backends, bubble, variant)
	for i, q := range p {
		if bubble && i%3 == 2 {
			time.Sleep(3100 * time.Millisecond) // more than a tenth of the idle timeout
		}
		m.play(q)
	}
	m.calm()
	return m
}

// TestModel plays.
func TestModel(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(26 * 365 * 24 * time.Hour) // a secure cookie's date has ten digits
			runModel(t, func() [2]sessplus.Backend { return [2]sessplus.Backend{sessplus.Memory(), sessplus.Memory()} }, true, 0, mLazy, mAges, mLazy|mAges)
		})
	})
	t.Run("redis", func(t *testing.T) {
		b := [2]sessplus.Backend{backends[1].open(t), backends[1].open(t)}
		runModel(t, func() [2]sessplus.Backend { return b }, false, 0, mLazy, mAges, mRaw)
	})
}

func runModel(t *testing.T, open func() [2]sessplus.Backend, bubble bool, variants ...uint64) {
	made, breaches := 0, 0
	for seed := *modelSeed; made < times(*modelRequests); seed++ {
		p := mDrawPlay(seed)
		variant := variants[seed%uint64(len(variants))]
		m := p.perform(t, open(), bubble, variant)
		made += m.made
		if *modelPrint && seed == *modelSeed {
			t.Logf("%s", strings.Join(m.log, "\n"))
		}
		if m.breach == "" {
			continue
		}
		breaches++
		kind := strings.Fields(m.breach)[0]
		for again := true; again; {
			again = false
			for _, q := range p.smaller() {
				if n := q.perform(t, open(), bubble, variant); n.breach != "" && strings.Fields(n.breach)[0] == kind {
					p, m, again = q, n, true
					break
				}
			}
		}
		t.Errorf("seed %d, variant %d: %s\n%s", seed, variant, m.breach, strings.Join(m.log, "\n"))
		if breaches == 3 {
			break
		}
	}
	t.Logf("%d requests", made)
}

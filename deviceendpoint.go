package sessplus

import (
	"cmp"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A deviceEndpoint is where a browser registers a key for a session of the cookie, or proves possession of it.
//
// Browsers give up the key of a bound session after a redirect and after any 4xx but 403. So an endpoint only responds
// with 200, 403 and 503.
type deviceEndpoint struct {
	cookie    *cookie
	registers bool
}

// deviceEndpoints gives cookies their endpoints below scope, and returns these by path, or nil if there are none.
func deviceEndpoints(cookies []*cookie, scope string) map[string]deviceEndpoint {
	scope = cmp.Or(scope, defaultDevicePath)
	var m map[string]deviceEndpoint
	for _, c := range cookies {
		if c.device == nil {
			continue
		}
		if m == nil {
			m = make(map[string]deviceEndpoint)
		}
		at := scope + "/" + c.CookieName + "/"
		m[at+forRegistration], m[at+forRefresh] = deviceEndpoint{c, true}, deviceEndpoint{c, false}
		at = scope + "/" + url.PathEscape(c.CookieName) + "/"
		c.device.scope, c.device.registration, c.device.refresh = scope, at+forRegistration, at+forRefresh
	}
	return m
}

// serveDevice answers a request to an endpoint. It reports whether it was one.
func (m *Manager) serveDevice(w http.ResponseWriter, r *http.Request) bool {
	if m.endpoints == nil {
		return false
	}
	e, ok := m.endpoints[r.URL.Path]
	if !ok {
		return false
	}
	s := &newRequest(len(m.cookies)).ctx.s
	s.start(m, w, r)
	p := &s.parts[e.cookie.index]
	p.proof.endpoint = true
	a := &deviceAnswer{s: s, p: p, r: r, now: time.Now()}
	if len(p.texts) > 1 {
		p.proof.meant = a.meant(e.registers)
	}
	s.mu.Lock()
	s.useAll([]int{p.index})
	s.mu.Unlock()
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	a.now = time.Now() // a load may take its time
	switch {
	case p.err != nil:
		a.unavailable(p.err)
	case e.registers:
		a.register()
	default:
		a.refresh()
	}
	return true
}

// A deviceAnswer is what an endpoint needs to answer.
type deviceAnswer struct {
	s   *Session
	p   *part
	r   *http.Request
	now time.Time
}

// meant distinguishes the session that the browser means from others whose ids came with the same request, such as from
// another path or domain. It is nil if the request does not say.
func (a *deviceAnswer) meant(registers bool) func(c *call) bool {
	id, _ := a.identifier()
	jwt := a.proof()
	switch {
	case registers && jwt != nil:
		return func(c *call) bool {
			return a.p.device.answers(forRegistration, c.record.subject(c.id, ""), jwt.challenge, a.now)
		}
	case !registers && id != "":
		return func(c *call) bool { return parseDeviceKey(c.record.DeviceKey).thumbprint == id }
	}
	return nil
}

// identifier is the browser's name for the session, and whether the request has one.
func (a *deviceAnswer) identifier() (id string, named bool) {
	header := a.r.Header.Get("Sec-Secure-Session-Id")
	if len(header) > maxProof {
		return "", false
	}
	return bareItem(header), header != ""
}

// unavailable answers that the backend did not answer. The browser keeps its session, and tries again.
func (a *deviceAnswer) unavailable(err error) {
	a.s.m.log.ErrorContext(a.s.ctx, "sessplus: a device could not be proven", "cookie", a.p.CookieName, "error", err)
	a.say(http.StatusServiceUnavailable, "The service is temporarily unavailable.")
}

func (a *deviceAnswer) say(status int, text string) { http.Error(a.s.w, text, status) }

// refuse answers an invalid proof.
func (a *deviceAnswer) refuse() { a.say(http.StatusForbidden, "The device is not proven.") }

// proof returns what the request proves, nil for nothing.
func (a *deviceAnswer) proof() *deviceProof {
	if a.r.Method != http.MethodPost {
		return nil
	}
	proof, err := parseProof(a.r.Header.Get("Secure-Session-Response"))
	if err != nil {
		return nil
	}
	return proof
}

// seen is the call that has found the session, for events.
func (a *deviceAnswer) seen() *call {
	return &call{part: a.p, op: opLoad, sessionName: a.p.name, record: a.p.rec}
}

func (a *deviceAnswer) register() {
	p, proof := a.p, a.proof()
	if p.rec == nil || proof == nil {
		a.refuse()
		return
	}
	public, thumbprint, err := proof.public()
	if err != nil || !proof.verify(public) || !p.device.answers(forRegistration, p.rec.subject(p.name.id, ""), proof.challenge, a.now) {
		a.s.unproven(a.seen(), EventBind, "proof")
		a.refuse()
		return
	}
	made := a.seen()
	if p.rec.DeviceKey == "" {
		text, err := encodePublic(public)
		if err != nil { // it is one of the two kinds that can be encoded
			panic(err)
		}
		if made, err = a.bind(deviceKey{thumbprint, a.now, text}.String()); err != nil {
			a.unavailable(err)
			return
		}
	}
	switch {
	case p.rec == nil: // it has ended meanwhile
		a.refuse()
	case parseDeviceKey(p.rec.DeviceKey).thumbprint != thumbprint:
		a.s.unproven(made, EventBind, "key")
		a.refuse()
	default:
		kind := EventProve
		if made.op == opUpdate {
			kind = EventBind
		}
		a.s.event(p.cookie, kind, made, nil)
		a.grant(thumbprint)
	}
}

// bind stores the key, if the record has none. Then p.rec is what is stored, or nil if the session has ended. It
// returns the call that found this out, or an error if that is unknown.
func (a *deviceAnswer) bind(key string) (*call, error) {
	p := a.p
	update := &call{part: p, op: opUpdate, sessionName: p.name, patient: true, change: &Change{
		DeviceKey: key, Expires: p.rec.Expires, Now: wallNow(), Seen: p.rec,
	}}
	made := update
	a.s.run([]*call{made})
	if errors.Is(made.err, ErrConflict) {
		made = &call{part: p, op: opLoad, sessionName: update.sessionName}
		a.s.run([]*call{made})
	}
	switch {
	case errors.Is(made.err, ErrNoRecord):
		p.rec = nil
	case made.err != nil:
		return nil, made.err
	case made == update:
		if p.rec.DeviceKey = key; update.moved {
			p.rename(update.sessionName, a.now)
		}
	default:
		p.rec, p.name = made.record, made.sessionName
	}
	return made, nil
}

// refresh answers a browser that wants the short-lived cookie again.
func (a *deviceAnswer) refresh() {
	p := a.p
	id, named := a.identifier()
	if p.rec == nil {
		isID := func(c candidate) bool { _, _, err := p.parseID(c.text); return err == nil }
		if p.crowded || len(p.texts) > 0 && !slices.ContainsFunc(p.texts, isID) {
			a.challenge(id, "") // there may be a session: not every id was tried, or what came is none
		} else {
			a.stop()
		}
		return
	}
	key := parseDeviceKey(p.rec.DeviceKey)
	if p.rec.DeviceKey == "" || named && id != key.thumbprint { // it names an earlier session
		a.stop()
		return
	}
	subject := p.rec.subject(p.name.id, key.thumbprint)
	proof := a.proof()
	if proof == nil {
		a.challenge(key.thumbprint, subject)
		return
	}
	public, err := decodePublic(key.public)
	if err != nil || !proof.verify(public) || !p.device.answers(forRefresh, subject, proof.challenge, a.now) {
		a.s.unproven(a.seen(), EventProve, "proof")
		a.challenge(key.thumbprint, subject)
		return
	}
	a.s.event(p.cookie, EventProve, a.seen(), nil)
	a.grant(key.thumbprint)
}

// challenge asks for a proof, or for another one. The browser remembers it for the session with that identifier.
func (a *deviceAnswer) challenge(id, subject string) {
	if !validID(id) { // not one of ours
		id = strings.Repeat("A", idLength)
	}
	challenge := a.p.device.challenge(forRefresh, subject, a.now)
	a.s.w.Header().Set("Secure-Session-Challenge", `"`+challenge+`";id="`+id+`"`)
	a.refuse()
}

// stop answers that the session no longer exists.
func (a *deviceAnswer) stop() { a.answer(map[string]any{"continue": false}) }

// grant gives the browser the short-lived cookie.
func (a *deviceAnswer) grant(thumbprint string) {
	p, d := a.p, a.p.device
	good := min(p.DeviceBound, p.ends(p.rec).Sub(a.now))
	value := d.pledge(forBound, p.rec.subject(p.name.id, thumbprint), a.now.Add(good), nil)
	a.s.w.Header().Add("Set-Cookie", d.bound.setCookie(d.bound.CookieName, value, max(good, time.Second), a.now, true))
	if name := d.reload.CookieName; hasCookie(a.r, name) {
		a.s.w.Header().Add("Set-Cookie", d.reload.setCookie(name, "", -1, a.now, true))
	}
	a.answer(map[string]any{
		"session_identifier": thumbprint,
		"refresh_url":        d.refresh,
		"scope": map[string]any{
			"include_site":        false,
			"scope_specification": []any{map[string]any{"type": "exclude", "domain": "*", "path": d.scope}},
		},
		"credentials": []any{map[string]any{
			"type": "cookie", "name": d.bound.CookieName, "attributes": strings.TrimPrefix(d.bound.scope+d.bound.secureFlags, "; "),
		}},
	})
}

func (a *deviceAnswer) answer(instructions map[string]any) {
	body, err := json.Marshal(instructions)
	if err != nil { // it cannot fail for maps and strings
		panic(err)
	}
	a.s.w.Header().Set("Content-Type", "application/json")
	a.s.w.WriteHeader(http.StatusOK) // a router may have set another, for an unknown path
	a.s.w.Write(body)
}

// reloadForProof answers a navigation from another site that comes without a proof, which browsers do not renew then:
// the page must reload itself, for which they do. It reports whether it has answered, which it does only once.
func (s *Session) reloadForProof(w http.ResponseWriter, r *http.Request) bool {
	if s.m.endpoints == nil || !comesFromElsewhere(r) {
		return false
	}
	var due []*part
	s.mu.Lock()
	for i := range s.parts {
		p := &s.parts[i]
		if p.device == nil || len(p.texts) == 0 {
			continue
		}
		if s.use(i); p.rec == nil && p.proof.unproven && !hasCookie(r, p.device.reload.CookieName) {
			due = append(due, p)
		}
	}
	s.mu.Unlock()
	if len(due) == 0 {
		return false
	}
	h, now := w.Header(), time.Now()
	for _, p := range due {
		k := p.device.reload
		h.Add("Set-Cookie", k.setCookie(k.CookieName, "1", reloadAge, now, true))
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Refresh", "0")
	w.WriteHeader(http.StatusOK)
	io.WriteString(w, "<!DOCTYPE html>\n<title>One moment</title>\n<meta http-equiv=\"refresh\" content=\"0; url="+html.EscapeString(sameAddress(s.uri()))+"\">\n")
	return true
}

func hasCookie(r *http.Request, name string) bool {
	_, err := r.Cookie(name)
	return err == nil
}

// sameAddress is the address of a page relative to itself, without a fragment: with one, Chromium would not load it
// again for the header alone.
func sameAddress(uri string) string {
	path, _, _ := strings.Cut(uri, "?")
	return "./" + uri[strings.LastIndexByte(path, '/')+1:] // never another host's, as "//host" would be
}

// comesFromElsewhere reports whether the visitor has followed a link from another site, or from another host of this
// one.
func comesFromElsewhere(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Method == http.MethodGet && (site == "cross-site" || site == "same-site") &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

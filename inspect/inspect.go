// Package inspect serves a page that shows a developer the sessions of a program: which field is stored where, what
// this browser's sessions contain and when they end, and a live list of events. Its buttons end a session, let it
// expire and rotate its id, to test how the program handles that.
//
//	var events inspect.Events
//	mgr, err := sessplus.New(configs, &sessplus.Options{OnEvent: events.OnEvent})
//	mux.Handle("/debug/sessions", inspect.New(mgr, &inspect.Options{Events: &events}))
//
// It is for development. Mount it where visitors cannot reach it, and outside mgr.Handler, so that viewing the page
// does not count as a use of a session. It responds only at localhost, unless [Options.Hosts] names other hosts.
package inspect

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/inspection"
)

// Options change what the page shows, and to whom. The zero value is valid.
type Options struct {
	// Events has the events that the page lists. Its OnEvent must be the Options.OnEvent of the manager, or be called
	// by it. nil means no events.
	Events *Events

	// Hosts are additional host names under which the page may be requested, without a port, such as "dev.example.org".
	// Under these, it responds to anyone who can reach it. nil means only localhost, names that end in .localhost, and
	// loopback addresses, from this machine and not through a proxy.
	Hosts []string
}

//go:embed page.html style.css script.js
var files embed.FS

// handler is the page of one manager.
type handler struct {
	mgr    *sessplus.Manager
	setup  inspection.Setup
	routes []route
	events *Events
	hosts  []string
	token  string // of its buttons; no other site's page can read it
}

// New returns a handler that serves the page, at any path. o may be nil. The page requests its parts at the same path,
// with a query. It creates no session, changes one only if a button is pressed, and shows the values of fields only on
// request.
func New(mgr *sessplus.Manager, o *Options) http.Handler {
	if o == nil {
		o = &Options{}
	}
	h := &handler{mgr: mgr, events: o.Events, token: rand.Text()}
	if _, i, err := h.load(nil, &http.Request{URL: &url.URL{Path: "/"}, Header: http.Header{}}); err == nil {
		h.setup = i.Setup()
	}
	h.routes = routesOf(mgr, h.setup)
	for _, name := range o.Hosts {
		h.hosts = append(h.hosts, strings.ToLower(name))
	}
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "same-origin") // no-referrer would make the Origin of a form "null"
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
		"img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	if !h.admits(r) {
		http.Error(w, "inspect answers at localhost only. Options.Hosts names other hosts at which it may.", http.StatusForbidden)
		return
	}
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost:
		h.press(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD, POST")
		http.Error(w, "Method not allowed.", http.StatusMethodNotAllowed)
	case q.Has("events"):
		h.events.serve(w, r)
	case q.Has("file"):
		serveFile(w, r, q.Get("file"))
	default:
		h.serve(w, r)
	}
}

func serveFile(w http.ResponseWriter, r *http.Request, name string) {
	if name != "style.css" && name != "script.js" {
		http.NotFound(w, r)
		return
	}
	http.ServeFileFS(w, r, files, name)
}

// proxied are headers of requests that a proxy has passed on. One that is on this machine comes from a loopback
// address, and may have put a local name into the Host header.
var proxied = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"}

// admits reports whether the page may answer. The Host header counts, because a name of an attacker's may lead to this
// machine (DNS rebinding): then the browser takes his page and this one for the same site.
func (h *handler) admits(r *http.Request) bool {
	host := strings.ToLower(hostname(r.Host))
	if slices.Contains(h.hosts, host) {
		return true
	}
	if slices.ContainsFunc(proxied, func(name string) bool { return len(r.Header[name]) > 0 }) {
		return false
	}
	return isLocal(host) && isLoopback(hostname(r.RemoteAddr))
}

// hostname is an address without its port and brackets.
func hostname(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
}

func isLocal(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || isLoopback(host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// A deed is what a button does to a session.
type deed struct {
	Name, Label, Hint string
	Done              string // what the page says afterwards
	do                func(s *sessplus.Session, i inspection.Inspector, cookie string)
	serverSide        bool
}

var deeds = []deed{
	{
		Name: "end", Label: "End this session", Hint: "as Destroy does, at a logout", Done: "was ended, as at a logout",
		do: func(s *sessplus.Session, _ inspection.Inspector, cookie string) { s.Destroy(cookie) },
	},
	{
		Name: "expire", Label: "Expire now", Hint: "as if its time had run out; the browser keeps the cookie",
		Done: "has expired; the next request brings a cookie that names no session", serverSide: true,
		do: func(_ *sessplus.Session, i inspection.Inspector, cookie string) { i.Expire(cookie) },
	},
	{
		Name: "rotate", Label: "Rotate now", Hint: "gives it a new id, as RotateEvery does", Done: "has a new id",
		serverSide: true,
		do:         func(_ *sessplus.Session, i inspection.Inspector, cookie string) { i.Rotate(cookie) },
	},
}

func deedNamed(name string) *deed {
	if i := slices.IndexFunc(deeds, func(d deed) bool { return d.Name == name }); i >= 0 {
		return &deeds[i]
	}
	return nil
}

// press does what a button says, and sends the browser back to the page.
func (h *handler) press(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	if !sameOrigin(r) || subtle.ConstantTimeCompare([]byte(r.PostFormValue("token")), []byte(h.token)) != 1 {
		http.Error(w, "This button is not of this page, or of a page from before a restart. Please reload it.", http.StatusForbidden)
		return
	}
	cookie, d := r.PostFormValue("cookie"), deedNamed(r.PostFormValue("do"))
	c := h.config(cookie)
	if c == nil || d == nil || d.serverSide && !c.ServerSide {
		http.Error(w, "There is nothing like that to do.", http.StatusBadRequest)
		return
	}
	s, i, err := h.load(w, r)
	if err == nil {
		d.do(s, i, cookie)
		err = s.Save()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable) // which holds no id and no value
		return
	}
	// Relative to the page, because a prefix of its path may have been stripped.
	w.Header().Set("Location", "?"+url.Values{"did": {d.Name}, "cookie": {cookie}}.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

// sameOrigin reports whether a page of this host has sent the form. Browsers say so in one of these headers at least,
// and what is no browser has no business here.
func sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
	}
	return r.Header.Get("Sec-Fetch-Site") == "same-origin"
}

func (h *handler) config(cookie string) *inspection.Config {
	if i := slices.IndexFunc(h.setup.Configs, func(c inspection.Config) bool { return c.Cookie == cookie }); i >= 0 {
		return &h.setup.Configs[i]
	}
	return nil
}

// load returns the session of a request, without counting as a use.
func (h *handler) load(w http.ResponseWriter, r *http.Request) (*sessplus.Session, inspection.Inspector, error) {
	s, r, err := h.mgr.Load(w, r)
	if err != nil {
		return nil, nil, err
	}
	s.SkipTouch()
	return s, r.Context().Value(inspection.Key{Session: s}).(inspection.Inspector), nil
}

// serve answers with the page.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) {
	v := h.view(w, r)
	var page bytes.Buffer // so that an error does not end up in the middle of a page
	if err := templates.ExecuteTemplate(&page, "page.html", v); err != nil {
		http.Error(w, "The page cannot be shown: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if v.Problem != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	page.WriteTo(w)
}

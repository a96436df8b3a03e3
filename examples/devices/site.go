package main

import (
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessplus/sessplus"
)

const (
	userName sessplus.Field[string] = "user"
	role     sessplus.Field[string] = "role"
	lastSeen sessplus.Field[int64]  = "seen"   // the Unix time of the last use, to a minute
	notice   sessplus.Field[string] = "notice" // what the last form did, for the page that follows
)

const (
	member = "member"
	guest  = "guest"
)

const day = 24 * time.Hour

//go:embed page.html style.css
var files embed.FS

func configs(b sessplus.Backend) []sessplus.Config {
	return []sessplus.Config{{
		CookieName:  "session",
		Fields:      sessplus.Include("user", "role", "seen"),
		Backend:     b,
		IndexBy:     "user",
		MaxAge:      90 * day,
		Lifetime:    90 * day,
		IdleTimeout: 30 * day, // so that a forgotten device logs out by itself
		RotateEvery: day,
		DeviceBound: 10 * time.Minute, // over TLS, and in browsers that can do it
	}, {
		CookieName: "notice",
		Fields:     sessplus.Include("notice"),
		MaxAge:     time.Minute,
	}}
}

type site struct{ sessions *sessplus.Manager }

func newSite(configs []sessplus.Config, keys sessplus.KeyPair) (*site, error) {
	sessions, err := sessplus.New(configs, &sessplus.Options{Keys: []sessplus.KeyPair{keys}, ErrorHandler: fail})
	return &site{sessions}, err
}

func (a *site) handler() http.Handler {
	pages := http.NewServeMux()
	pages.HandleFunc("GET /{$}", a.page)
	pages.HandleFunc("POST /login", login)
	pages.HandleFunc("POST /logout", a.form(a.logOut))
	pages.HandleFunc("POST /logout/others", a.form(a.logOutOthers))
	pages.HandleFunc("POST /logout/all", a.form(a.logOutAll))
	pages.HandleFunc("POST /role", a.form(a.setRole))

	// A browser tells where a form is from, so no form needs a token.
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		show(w, http.StatusForbidden, view{Trouble: "That form came from another site, so nothing was done."})
	}))

	mux := http.NewServeMux()
	mux.Handle("/", sameOrigin.Handler(a.sessions.Handler(pages)))
	// Outside the middleware: a static file needs no session, and should not wait for one.
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "style.css")
	})
	return http.MaxBytesHandler(mux, 64<<10)
}

// fail answers when sessions cannot be loaded, saved, listed or ended.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, sessplus.ErrSessionGone) { // ended while this request was under way: the next one says so
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	slog.ErrorContext(r.Context(), "a request failed", "error", err)
	if errors.Is(err, sessplus.ErrUnavailable) {
		show(w, http.StatusServiceUnavailable, view{Trouble: "The site cannot reach its sessions. You are still logged in; please try again in a moment."})
		return
	}
	show(w, http.StatusInternalServerError, view{Trouble: "Something went wrong on our side."})
}

func login(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.PostFormValue("name"))
	if name == "" || utf8.RuneCountInString(name) > 40 {
		show(w, http.StatusBadRequest, view{Trouble: "Please enter a name of at most 40 characters."})
		return
	}
	s := sessplus.Get(r)
	// A new id. With fields set in the same request it also begins afresh where the old id was ended from elsewhere.
	s.Renew("session")
	userName.Set(s, name)
	role.Set(s, member) // a real program asks its user table, and for a password
	lastSeen.Set(s, time.Now().Unix())
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// form makes a handler of what a form of the page does for a user. It sends the browser back to the page afterwards,
// which shows what was done once. Somebody whose session has ended in the meantime finds that out there.
func (a *site) form(do func(r *http.Request, s *sessplus.Session, user string) (done string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		if user := userName.Get(s); user != "" {
			done, err := do(r, s, user)
			if err != nil {
				fail(w, r, err)
				return
			}
			notice.Set(s, done)
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

// logOut ends the session of one device, which must be the user's: Revoke does not ask whose session a handle names.
func (a *site) logOut(r *http.Request, s *sessplus.Session, user string) (string, error) {
	device := r.PostFormValue("device")
	if device == s.Handle("session") {
		s.Destroy("session")
		return "You are logged out.", nil
	}
	infos, err := a.sessions.Sessions(r.Context(), "session", user)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(infos, func(i sessplus.Info) bool { return i.Handle == device })
	if i < 0 {
		return "That device was logged out already.", nil
	}
	if err := a.sessions.Revoke(r.Context(), "session", infos[i].Handle); err != nil {
		return "", err
	}
	return deviceName(infos[i].Device) + " is logged out.", nil
}

func (a *site) logOutOthers(r *http.Request, s *sessplus.Session, user string) (string, error) {
	n, err := a.sessions.RevokeAll(r.Context(), "session", user, s.Handle("session"))
	if n == 1 {
		return "One other device is logged out.", err
	}
	return fmt.Sprintf("%d other devices are logged out.", n), err
}

func (a *site) logOutAll(r *http.Request, s *sessplus.Session, user string) (string, error) {
	if _, err := a.sessions.RevokeAll(r.Context(), "session", user); err != nil {
		return "", err
	}
	s.Destroy("session") // has ended with the others, but this browser's cookie has not
	return "You are logged out on all devices.", nil
}

// setRole changes a right that each session has a copy of. A real program changes its user table first, so that a login
// beside this gets the new one.
func (a *site) setRole(r *http.Request, _ *sessplus.Session, user string) (string, error) {
	to := guest
	if r.PostFormValue("role") == member {
		to = member
	}
	infos, err := a.sessions.Sessions(r.Context(), "session", user)
	if err != nil {
		return "", err
	}
	for _, i := range infos {
		err := a.sessions.Edit(r.Context(), "session", i.Handle, func(s *sessplus.Session) error {
			role.Set(s, to)
			return nil
		})
		if err != nil && !errors.Is(err, sessplus.ErrSessionGone) {
			return "", err
		}
	}
	return "You are a " + to + " on all devices.", nil
}

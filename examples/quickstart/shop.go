package main

import (
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"errors"
	"hash/crc32"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/inspect"
)

// The fields of the session. No handler says where they live: the configs in newShop do.
const (
	csrfToken sessplus.Field[string]         = "csrf_token"
	userID    sessplus.Field[int64]          = "user_id"
	userName  sessplus.Field[string]         = "user_name"
	cart      sessplus.Field[map[string]int] = "cart"
	plan      sessplus.Field[string]         = "plan"
	theme     sessplus.Field[string]         = "theme"
)

var (
	goods  = []string{"tea", "coffee", "honey"}
	themes = []string{"light", "dark", "forest"}
)

//go:embed page.html style.css
var files embed.FS

type shop struct {
	sessions *sessplus.Manager
	events   inspect.Events
}

func newShop(keys sessplus.KeyPair, session, account sessplus.Backend) (*shop, error) {
	shop := &shop{}
	var err error
	shop.sessions, err = sessplus.New([]sessplus.Config{
		{CookieName: "csrf", Fields: sessplus.Include("csrf_token")},
		{CookieName: "session", Fields: sessplus.Include("user_id", "user_name", "cart"), Backend: session},
		{CookieName: "account", Fields: sessplus.Include("plan"), Backend: account},
		{CookieName: "data", Fields: sessplus.Auto(), MaxAge: 365 * 24 * time.Hour},
	}, &sessplus.Options{Keys: []sessplus.KeyPair{keys}, OnEvent: shop.events.OnEvent})
	return shop, err
}

func (a *shop) handler() http.Handler {
	pages := http.NewServeMux()
	pages.HandleFunc("GET /{$}", a.page)
	pages.HandleFunc("POST /login", a.form(login))
	pages.HandleFunc("POST /logout", a.form(logout))
	pages.HandleFunc("POST /theme", a.form(setTheme))
	pages.HandleFunc("POST /plan", a.form(setPlan))
	pages.HandleFunc("POST /cart", a.form(addToCart))
	pages.HandleFunc("POST /cart/empty", a.form(emptyCart))

	mux := http.NewServeMux()
	mux.Handle("/", a.sessions.Handler(pages))
	// Outside the middleware: a static file needs no session, and should not wait for one.
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "style.css")
	})
	// What goes on in the sessions, for a developer at localhost. A program for visitors leaves it out.
	mux.Handle("/inspect", inspect.New(a.sessions, &inspect.Options{Events: &a.events}))
	return http.MaxBytesHandler(mux, 64<<10)
}

// A problem is an answer to a form that cannot be carried out.
type problem struct {
	status int
	text   string
}

// form makes a handler of what a form does: it checks the token first and sends the browser back to the page
// afterwards, so that a reload does nothing twice.
func (a *shop) form(do func(s *sessplus.Session, r *http.Request) *problem) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		token := csrfToken.Get(s)
		sent := r.PostFormValue("csrf_token")
		if token == "" || subtle.ConstantTimeCompare([]byte(sent), []byte(token)) != 1 {
			http.Error(w, "This form is out of date. Please go back, reload the page and try again.", http.StatusForbidden)
			return
		}
		if p := do(s, r); p != nil {
			http.Error(w, p.text, p.status)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

// tokenOf returns the token for the visitor's forms, made when the first one is shown.
func tokenOf(s *sessplus.Session) string {
	if token, ok := csrfToken.Lookup(s); ok {
		return token
	}
	token := rand.Text()
	csrfToken.Set(s, token)
	return token
}

func login(s *sessplus.Session, r *http.Request) *problem {
	name := strings.TrimSpace(r.PostFormValue("name"))
	if name == "" || utf8.RuneCountInString(name) > 40 {
		return &problem{http.StatusBadRequest, "Please enter a name of at most 40 characters."}
	}
	// New ids and a new token: what was planted in the browser before the login is worth nothing after it. The cart
	// stays.
	s.Renew("session", "account")
	csrfToken.Set(s, rand.Text())
	userID.Set(s, int64(crc32.ChecksumIEEE([]byte(name)))) // a real program asks its user table, and for a password
	userName.Set(s, name)
	plan.Set(s, "free")
	return nil
}

func logout(s *sessplus.Session, _ *http.Request) *problem {
	s.Destroy() // of every cookie: the fields, the records in the backends, the cookies in the browser
	return nil
}

func setTheme(s *sessplus.Session, r *http.Request) *problem {
	choice := r.PostFormValue("theme")
	if !slices.Contains(themes, choice) {
		return &problem{http.StatusBadRequest, "There is no such theme."}
	}
	theme.Set(s, choice)
	return nil
}

func setPlan(s *sessplus.Session, r *http.Request) *problem {
	choice := r.PostFormValue("plan")
	if choice != "free" && choice != "pro" {
		return &problem{http.StatusBadRequest, "There is no such plan."}
	}
	if !s.Has("user_id") {
		return &problem{http.StatusForbidden, "Please log in first."}
	}
	plan.Set(s, choice)
	return nil
}

func addToCart(s *sessplus.Session, r *http.Request) *problem {
	item := r.PostFormValue("item")
	if !slices.Contains(goods, item) {
		return &problem{http.StatusBadRequest, "There is no such item."}
	}
	// Update, because another tab may add something at the same time: neither is lost.
	_, err := cart.Update(s, func(c map[string]int) map[string]int {
		if c == nil {
			c = make(map[string]int)
		}
		c[item]++
		return c
	})
	if err != nil && !errors.Is(err, sessplus.ErrSessionGone) { // logged out in another tab: the page will tell
		slog.ErrorContext(r.Context(), "the cart was not saved", "error", err)
		return &problem{http.StatusServiceUnavailable, "The cart could not be saved. Please try again."}
	}
	return nil
}

func emptyCart(s *sessplus.Session, _ *http.Request) *problem {
	cart.Delete(s)
	return nil
}

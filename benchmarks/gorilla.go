package main

import (
	"context"
	"net/http"

	"github.com/gorilla/sessions"
	"github.com/rbcervilla/redisstore/v9"
)

// openGorilla has a session for each cookie, as sessplus does, from a store each. There is no middleware: a handler
// asks the stores.
func openGorilla(e *env, s scenario) *app {
	options := sessions.Options{Path: "/", MaxAge: int(lifetime.Seconds()), HttpOnly: true, SameSite: http.SameSiteLaxMode}
	cookies := sessions.NewCookieStore(hashKey, blockKey)
	cookies.Options = &options
	var users sessions.Store // of user_id, name, visits and plan
	switch s.place {
	case inCookie:
		users = cookies
	case inRedis, inBig, inThree:
		redis, err := redisstore.NewRedisStore(context.Background(), e.redis())
		e.must(err)
		redis.Options(options)
		users = redis
	default:
		return nil
	}
	three := s.place == inThree
	// is reports whether a session's field has the value.
	is := func(store sessions.Store, r *http.Request, cookie, field string, value any) bool {
		k, err := store.Get(r, cookie)
		return err == nil && k.Values[field] == value
	}
	// set changes a field and saves the session.
	set := func(store sessions.Store, w http.ResponseWriter, r *http.Request, cookie, field string, value any) bool {
		k, err := store.Get(r, cookie)
		if err != nil {
			return false
		}
		k.Values[field] = value
		return k.Save(r, w) == nil
	}
	readAll := func(r *http.Request) bool {
		return is(users, r, "session", "user_id", userID) &&
			(!three || is(cookies, r, "csrf", "csrf_token", csrf) && is(cookies, r, "prefs", "theme", theme))
	}
	logIn := func(w http.ResponseWriter, r *http.Request) error {
		k, err := users.Get(r, "session")
		if err != nil {
			return err
		}
		k.Values["user_id"], k.Values["name"], k.Values["visits"], k.Values["plan"] = userID, name, 0, plan
		if s.place == inBig {
			for i, n := range notes {
				k.Values[noteNames[i]] = n
			}
		}
		return k.Save(r, w)
	}
	a := &app{login: logIn}
	if three {
		a.login = func(w http.ResponseWriter, r *http.Request) error {
			set(cookies, w, r, "csrf", "csrf_token", csrf)
			k, err := cookies.Get(r, "prefs")
			if err != nil {
				return err
			}
			k.Values["theme"], k.Values["page"] = theme, 0
			if err := k.Save(r, w); err != nil {
				return err
			}
			return logIn(w, r)
		}
	}
	a.serve = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ok := true
		switch s.do {
		case read:
			ok = readAll(r)
		case change:
			if three {
				ok = readAll(r) && set(cookies, w, r, "prefs", "page", next())
			} else {
				ok = readAll(r) && set(users, w, r, "session", "visits", next())
			}
		case readCSRF:
			ok = is(cookies, r, "csrf", "csrf_token", csrf)
		case create:
			ok = logIn(w, r) == nil
		}
		answer(w, ok)
	})
	a.show = func(_ http.ResponseWriter, r *http.Request, st *state) error {
		k, err := users.Get(r, "session")
		if err != nil {
			return err
		}
		st.UserID, _ = k.Values["user_id"].(int)
		st.Name, _ = k.Values["name"].(string)
		st.Visits, _ = k.Values["visits"].(int)
		st.Plan, _ = k.Values["plan"].(string)
		for _, n := range noteNames {
			text, _ := k.Values[n].(string)
			st.Notes += len(text)
		}
		if three {
			k, _ := cookies.Get(r, "csrf")
			st.CSRF, _ = k.Values["csrf_token"].(string)
			k, _ = cookies.Get(r, "prefs")
			st.Theme, _ = k.Values["theme"].(string)
			st.Page, _ = k.Values["page"].(int)
		}
		return nil
	}
	return a
}

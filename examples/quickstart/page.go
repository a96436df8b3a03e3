package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"slices"

	"github.com/sessplus/sessplus"
)

var pageTemplate = template.Must(template.ParseFS(files, "page.html"))

// A view is what the page shows.
type view struct {
	Token  string
	User   string
	UserID int64
	Plan   string
	Theme  string
	Themes []string
	Shelf  []shelf
	Total  int
	Places []place
	Read   []sessplus.Event // by this request
	Wrote  []sessplus.Event // by the form before it
}

type shelf struct {
	Item  string
	Count int
}

// A place tells where a field lives.
type place struct {
	sessplus.FieldRoute
	Name  string
	Bytes int // of its name and its encoded value, 0 if it is absent
}

func (a *shop) page(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	v := view{
		Token:  tokenOf(s),
		User:   userName.Get(s),
		UserID: userID.Get(s),
		Plan:   plan.Get(s),
		Theme:  cmp.Or(theme.Get(s), themes[0]),
		Themes: themes,
		Places: a.places(s),
		Read:   traceOf(r).pick(sessplus.EventLoad, sessplus.EventMiss, sessplus.EventReject),
	}
	inCart := cart.Get(s)
	for _, item := range goods {
		v.Shelf = append(v.Shelf, shelf{item, inCart[item]})
		v.Total += inCart[item]
	}
	if t := a.traces.take(r.URL.Query().Get("wrote")); t != nil {
		v.Wrote = t.pick(sessplus.EventCreate, sessplus.EventSave, sessplus.EventRenew, sessplus.EventDestroy)
	}

	var page bytes.Buffer // so that an error does not end up in the middle of a page
	if err := pageTemplate.Execute(&page, v); err != nil {
		slog.ErrorContext(r.Context(), "the page cannot be shown", "error", err)
		http.Error(w, "The page cannot be shown.", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// The browser keeps no copy, so its back button shows nobody's data after a logout.
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	page.WriteTo(w)
}

// places lists the fields in the order of the configs: those that a config names, and those that it owns by its rule.
func (a *shop) places(s *sessplus.Session) []place {
	routes := a.sessions.Describe()
	var list []place
	for _, route := range routes {
		if route.Field != "" {
			list = append(list, place{route, route.Field, size(s, route.Field)})
			continue
		}
		others := slices.DeleteFunc(s.Fields(), func(name string) bool {
			return slices.ContainsFunc(routes, func(o sessplus.FieldRoute) bool { return o.Field == name })
		})
		for _, name := range others {
			list = append(list, place{route, name, size(s, name)})
		}
		if len(others) == 0 {
			list = append(list, place{route, "any other", 0})
		}
	}
	return list
}

func size(s *sessplus.Session, name string) int {
	if !s.Has(name) {
		return 0
	}
	value, _ := json.Marshal(s.Get(name)) // which the Codec has decoded from JSON
	return len(name) + len(value)
}

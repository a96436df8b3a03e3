package main

import (
	"bytes"
	"cmp"
	"html/template"
	"log/slog"
	"net/http"

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
}

type shelf struct {
	Item  string
	Count int
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
	}
	inCart := cart.Get(s)
	for _, item := range goods {
		v.Shelf = append(v.Shelf, shelf{item, inCart[item]})
		v.Total += inCart[item]
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

package main

import (
	"bytes"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/sessplus/sessplus"
)

var pageTemplate = template.Must(template.ParseFS(files, "page.html"))

// A view is what the page shows.
type view struct {
	Trouble string // why there is nothing else to show
	Notice  string
	Ended   bool // somebody was logged in here, and no longer is
	User    string
	Member  bool
	Devices []device
}

// A device is a session of the user.
type device struct {
	ID, Name        string
	This, Bound     bool // Bound: to a key of the device, so that a copy of its cookies is soon worth nothing
	Created         time.Time
	LastSeen, Until time.Time
}

func (a *site) page(w http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	v := view{Notice: notice.Pop(s), User: userName.Get(s), Member: role.Get(s) == member}
	if v.User == "" {
		// The browser brings an id which was ended from elsewhere, a moment or days ago, or of itself. It stays as it
		// is: a login in another tab may be about to replace it.
		_, err := r.Cookie("session")
		v.Ended = err == nil
		show(w, http.StatusOK, v)
		return
	}
	now := time.Now()
	if seen := time.Unix(lastSeen.Get(s), 0); now.Sub(seen) >= time.Minute {
		lastSeen.Set(s, now.Unix()) // IdleTimeout alone is moved by a tenth, and would tell the last use to three days
	}
	infos, err := a.sessions.Sessions(r.Context(), "session", v.User)
	if err != nil {
		fail(w, r, err)
		return
	}
	for _, i := range infos {
		seen, _ := i.Fields["seen"].(int64)
		v.Devices = append(v.Devices, device{
			i.Handle, deviceName(i.Device), i.Handle == s.Handle("session"), i.Bound, i.Created, time.Unix(seen, 0), i.Expires,
		})
	}
	slices.SortStableFunc(v.Devices, func(a, b device) int {
		switch {
		case a.This:
			return -1
		case b.This:
			return 1
		}
		return b.LastSeen.Compare(a.LastSeen)
	})
	show(w, http.StatusOK, v)
}

// Ago tells how long ago the device was used.
func (d device) Ago() string {
	age := time.Since(d.LastSeen)
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		switch n := int(age / unit.size); {
		case n == 1:
			return "1 " + unit.name + " ago"
		case n > 1:
			return fmt.Sprintf("%d %ss ago", n, unit.name)
		}
	}
	return "just now"
}

func show(w http.ResponseWriter, status int, v view) {
	var page bytes.Buffer // so that an error does not end up in the middle of a page
	if err := pageTemplate.Execute(&page, v); err != nil {
		slog.Error("the page cannot be shown", "error", err)
		http.Error(w, "The page cannot be shown.", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// The browser keeps no copy, so its back button shows nobody's devices after a logout.
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	page.WriteTo(w)
}

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
)

// check sees that the app does what its scenario says.
func (a *app) check(s scenario, lib string) error {
	failed := func(format string, args ...any) error {
		return fmt.Errorf("%s with %s: "+format, append([]any{s.Name, lib}, args...)...)
	}
	r, err := a.logIn(s)
	if err != nil {
		return failed("%w", err)
	}
	for range 2 { // a change is seen by the next request, which can change again
		cookies := r.Cookies()
		w := httptest.NewRecorder()
		a.serve.ServeHTTP(w, r)
		if w.Code != http.StatusNoContent {
			return failed("status %d, want 204", w.Code)
		}
		var names []string
		for _, c := range w.Result().Cookies() {
			names = append(names, c.Name)
		}
		if want := s.setsCookies(lib); !slices.Equal(names, want) {
			return failed("the response sets the cookies %q, want %q", names, want)
		}
		if needsVary := lib != "gorilla" && (lib == "scs" || s.do != untouched); needsVary && w.Header().Get("Vary") != "Cookie" {
			return failed("Vary is %q, want Cookie", w.Header().Get("Vary"))
		}
		r = request(cookies, w.Result().Cookies())
		want, visits := s.first(), int(changes.Load())
		if s.do == change && s.place == inThree {
			want.Page = visits
		} else if s.do == change {
			want.Visits = visits
		}
		var got state
		if err := a.show(httptest.NewRecorder(), request(r.Cookies(), nil), &got); err != nil {
			return failed("%w", err)
		}
		if got != want {
			return failed("stored is %+v, want %+v", got, want)
		}
		if s.do == create {
			r = request(nil, nil)
		}
	}

	// What does not know the visitor does not answer 204: the value was really looked at.
	if s.do != untouched && s.do != create && lib != "hand-blind" {
		w := httptest.NewRecorder()
		a.serve.ServeHTTP(w, request(nil, nil))
		if w.Code == http.StatusNoContent {
			return failed("a request without cookies gets status 204")
		}
	}
	return nil
}

// setsCookies names the cookies that a response of the scenario sets. scs and gorilla send theirs with every change.
func (s scenario) setsCookies(lib string) []string {
	switch {
	case s.do == create:
		return []string{"session"}
	case s.do != change:
		return nil
	case s.place == inThree && lib != "scs":
		return []string{"prefs"}
	case s.place == inCookie, lib == "scs", lib == "gorilla":
		return []string{"session"}
	}
	return nil
}

// request makes one with the old cookies, of which newer ones take the place.
func request(old, newer []*http.Cookie) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	addCookies(r, old)
	addCookies(r, newer)
	return r
}

// checkedRunner is newRunner for an app that has been checked.
func checkedRunner(a *app, s scenario, lib string) (*runner, error) {
	if err := a.check(s, lib); err != nil {
		return nil, err
	}
	return newRunner(a, s)
}

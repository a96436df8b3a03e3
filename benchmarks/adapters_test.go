package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// TestAdapters sees that each app does what its scenario says.
func TestAdapters(t *testing.T) {
	e := &env{tb: t}
	e.redis()
	e.firestore() // the subtests share both
	for _, s := range scenarios {
		for _, lib := range slices.Concat(libraries, otherHands) {
			a := lib.open(e, s)
			if a == nil {
				continue
			}
			t.Run(s.Name+"/"+lib.Name, func(t *testing.T) { checkApp(t, a, s, lib.Name) })
		}
	}
}

func checkApp(t *testing.T, a *app, s scenario, lib string) {
	r, err := a.logIn(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a change is seen by the next request, which can change again
		cookies := r.Cookies()
		w := httptest.NewRecorder()
		a.serve.ServeHTTP(w, r)
		if w.Code != http.StatusNoContent {
			t.Fatalf("status %d, want 204", w.Code)
		}
		var names []string
		for _, c := range w.Result().Cookies() {
			names = append(names, c.Name)
		}
		if want := s.setsCookies(lib); !slices.Equal(names, want) {
			t.Errorf("the response sets the cookies %q, want %q", names, want)
		}
		if needsVary := lib != "gorilla" && (lib == "scs" || s.do != untouched); needsVary && w.Header().Get("Vary") != "Cookie" {
			t.Errorf("Vary is %q, want Cookie", w.Header().Get("Vary"))
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
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("stored is %+v, want %+v", got, want)
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
			t.Error("a request without cookies gets status 204")
		}
	}
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

// TestCommands sees what each scenario asks of Redis.
func TestCommands(t *testing.T) {
	e := &env{tb: t}
	e.redis()
	others := map[string]int{ // with scs csrf and prefs are in Redis, too
		"scs untouched-redis": 1, "scs three-changed": 2, "scs three-one": 1,
		"hand-blind change-redis": 1, "hand-blind big-change": 1,
	}
	for _, s := range scenarios {
		if !s.usesRedis() {
			continue
		}
		for _, lib := range slices.Concat(libraries, otherHands) {
			want, known := others[lib.Name+" "+s.Name]
			if !known {
				want = s.trips
			}
			f, ok, err := count(e, s, lib, 5)
			if err != nil {
				t.Fatal(err)
			}
			commands := want
			if lib.Name == "hand" && s.do == create {
				commands = 2 // a pipeline
			}
			if ok && (f.Commands != float64(commands) || f.Trips != float64(want)) {
				t.Errorf("%s with %s: %v commands in %v round trips, want %d in %d", s.Name, lib.Name, f.Commands, f.Trips, commands, want)
			}
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	e := &env{tb: b}
	for _, s := range scenarios {
		b.Run("scenario="+s.Name, func(b *testing.B) {
			for _, lib := range slices.Concat(libraries, otherHands) {
				a := lib.open(e, s)
				if a == nil {
					continue
				}
				b.Run("lib="+lib.Name, func(b *testing.B) {
					x, err := newRunner(a, s)
					if err != nil {
						b.Fatal(err)
					}
					b.ReportAllocs()
					for b.Loop() {
						if err := x.run(); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}

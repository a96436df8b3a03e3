package sessplus_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"time"

	"github.com/sessplus/sessplus"
)

// browse sends a request of one browser to each of the handlers in turn, all behind the middleware.
func browse(mgr *sessplus.Manager, handlers ...http.HandlerFunc) {
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	for _, h := range handlers {
		server := httptest.NewServer(mgr.Handler(h))
		res, err := browser.Get(server.URL)
		if err != nil {
			panic(err)
		}
		res.Body.Close()
		server.Close()
	}
}

// inMemory is a manager of one server-side session.
func inMemory() *sessplus.Manager {
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory()}}, nil)
	if err != nil {
		panic(err)
	}
	return mgr
}

func ExampleGet() {
	browse(inMemory(),
		func(_ http.ResponseWriter, r *http.Request) {
			sessplus.Get(r).Set("name", "Ann")
		},
		func(_ http.ResponseWriter, r *http.Request) {
			fmt.Println(sessplus.Get(r).Get("name"))
		})
	// Output:
	// Ann
}

// Code that may run outside of a request asks whether there is a session.
func ExampleFromContext() {
	browse(inMemory(), func(_ http.ResponseWriter, r *http.Request) {
		if s, ok := sessplus.FromContext(r.Context()); ok {
			fmt.Println("fields:", s.Fields())
		}
	})
	_, ok := sessplus.FromContext(httptest.NewRequest("GET", "/", nil).Context())
	fmt.Println(ok)
	// Output:
	// fields: []
	// false
}

// Of several managers around a handler Get gives the innermost one's session, and Manager.Get that of each.
func ExampleManager_Get() {
	site := inMemory()
	admin, err := sessplus.New([]sessplus.Config{{CookieName: "admin", Backend: sessplus.Memory(), Path: "/"}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		site.Get(r).Set("from", "site")
		fmt.Println(sessplus.Get(r) == admin.Get(r), admin.Get(r).Has("from"))
	})
	site.Handler(admin.Handler(h)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	// Output:
	// true false
}

// Handler is a middleware of the usual form, so every router takes it.
func ExampleManager_Handler() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("seen", true)
	})
	w := httptest.NewRecorder()
	inMemory().Handler(mux).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for _, c := range w.Result().Cookies() {
		fmt.Println(c.Name, len(c.Value), c.HttpOnly, c.SameSite == http.SameSiteLaxMode)
	}
	// Output:
	// session 43 true true
}

func ExampleSession_Set() {
	browse(inMemory(),
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			s.Set("id", 42)
			s.Set("ratio", 0.5)
			s.Set("vip", true)
			s.Set("key", []byte{1, 2})
			s.Set("since", time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC))
			s.Set("tags", []string{"a", "b"})
		},
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			fmt.Println(s.GetInt("id"), s.GetInt64("id"), s.GetFloat64("ratio"), s.GetBool("vip"))
			fmt.Println(s.GetBytes("key"), s.GetTime("since"), s.GetString("id") == "")
			fmt.Printf("%T %T\n", s.Get("id"), s.Get("tags"))
			fmt.Println(s.Fields())
		})
	// Output:
	// 42 42 0.5 true
	// [1 2] 2024-02-29 12:00:00 +0000 UTC true
	// int64 []interface {}
	// [id key ratio since tags vip]
}

func ExampleSession_Decode() {
	type cart struct {
		Items []string
		Cents int64
	}
	browse(inMemory(), func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		s.Set("cart", cart{[]string{"tea", "cup"}, 1250})
		var c cart
		fmt.Println(s.Decode("cart", &c), c)
		fmt.Println(errors.Is(s.Decode("order", &c), sessplus.ErrNoField))
	})
	// Output:
	// <nil> {[tea cup] 1250}
	// true
}

// Pop is for what is shown once.
func ExampleSession_Pop() {
	browse(inMemory(),
		func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("flash", "Saved.") },
		func(_ http.ResponseWriter, r *http.Request) { fmt.Println(sessplus.Get(r).Pop("flash")) },
		func(_ http.ResponseWriter, r *http.Request) { fmt.Println(sessplus.Get(r).Has("flash")) })
	// Output:
	// Saved.
	// false
}

func ExampleSession_Delete() {
	browse(inMemory(), func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		s.Set("a", 1)
		s.Set("b", 2)
		s.Set("c", 3)
		s.Delete("b")
		fmt.Println(s.Fields())
		s.Clear()
		fmt.Println(s.Fields())
	})
	// Output:
	// [a c]
	// []
}

// At a login the session gets a new id, so that one which somebody planted or saw before is worth nothing.
func ExampleSession_Renew() {
	var before string
	browse(inMemory(),
		func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("cart", "tea") },
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			before = s.ID("session")
			s.Renew()
			s.Set("user_id", 42)
		},
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			fmt.Println(s.Get("cart"), s.GetInt("user_id"), s.ID("session") != before)
		})
	// Output:
	// tea 42 true
}

// At a logout everything goes: fields, record and cookie.
func ExampleSession_Destroy() {
	browse(inMemory(),
		func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user_id", 42) },
		func(w http.ResponseWriter, r *http.Request) {
			sessplus.Get(r).Destroy()
			w.WriteHeader(http.StatusNoContent)
			fmt.Println(w.Header().Get("Set-Cookie"))
		},
		func(_ http.ResponseWriter, r *http.Request) {
			fmt.Println(sessplus.Get(r).Has("user_id"), len(r.Cookies()))
		})
	// Output:
	// session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; HttpOnly; SameSite=Lax
	// false 0
}

// "Remember me": the session then lasts for PermanentLifetime, and outlives the browser window.
func ExampleSession_SetPermanent() {
	browse(inMemory(),
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			s.Set("user_id", 42)
			s.SetPermanent("session", true)
		},
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			days := time.Until(s.Expires("session")).Round(time.Hour).Hours() / 24
			fmt.Println(s.Permanent("session"), s.IsNew("session"), days)
		})
	// Output:
	// true false 31
}

// Save commits before the response would: here, before a payment that takes long.
func ExampleSession_Save() {
	browse(inMemory(), func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		fmt.Println(s.IsNew("session"), s.ID("session") == "")
		s.Set("order", 7)
		if err := s.Save(); err != nil {
			return
		}
		fmt.Println(len(s.ID("session")))
	})
	// Output:
	// true true
	// 43
}

// Reload shows a long-running handler what other requests have saved.
func ExampleSession_Reload() {
	browse(inMemory(), func(_ http.ResponseWriter, r *http.Request) {
		s := sessplus.Get(r)
		s.Set("step", 1)
		s.Save()
		s.Set("draft", "not saved yet")
		fmt.Println(s.Reload(), s.GetInt("step"), s.Get("draft"))
	})
	// Output:
	// <nil> 1 not saved yet
}

// A typed field writes name and type once.
func ExampleField() {
	type profile struct{ Name, City string }
	const (
		userID sessplus.Field[int64]   = "user_id"
		info   sessplus.Field[profile] = "profile"
	)
	browse(inMemory(),
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			userID.Set(s, 42)
			info.Set(s, profile{"Ann", "Oslo"})
		},
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			fmt.Println(userID.Get(s), info.Get(s).City)
			_, ok := userID.Lookup(s)
			fmt.Println(ok, info.Pop(s).Name, s.Has("profile"))
			userID.Delete(s)
			fmt.Println(userID.Get(s))
		})
	// Output:
	// 42 Oslo
	// true Ann false
	// 0
}

// Update counts right also when requests of one session run side by side, on different machines.
func ExampleField_Update() {
	const tries sessplus.Field[int] = "tries"
	add := func(w http.ResponseWriter, r *http.Request) {
		n, err := tries.Update(sessplus.Get(r), func(n int) int { return n + 1 })
		fmt.Println(n, err)
	}
	browse(inMemory(), add, add, add)
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}

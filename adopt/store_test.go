package adopt_test

import (
	"encoding/gob"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/gorilla/sessions"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
)

// compressed is how gothic stores text: it is not UTF-8.
const compressed = "\x1f\x8b\x08\x00\xff\xfe"

// A library that logs visitors in by way of another site works as gothic does: with New and Save in the first
// request, Get, New, Save and the end of its session in the second one. What the program itself keeps is not touched.
func TestStoreAsGothicUsesIt(t *testing.T) {
	for _, backend := range []sessplus.Backend{sessplus.Memory(), sessplus.SecureCookie()} {
		s := newSite(t,
			sessplus.Config{CookieName: "session", Fields: sessplus.Include("user_id"), Backend: sessplus.Memory()},
			sessplus.Config{CookieName: "oauth", Fields: sessplus.Auto(), Backend: backend})
		store := adopt.Store(s.Manager, "oauth")
		s.serve(func(w http.ResponseWriter, r *http.Request) { // BeginAuthHandler
			sessplus.Get(r).Set("user_id", 42)
			session, err := store.New(r, "_gothic_session")
			if err != nil || !session.IsNew || len(session.Values) != 0 {
				t.Errorf("New = %+v, %v", session, err)
			}
			session.Values["google"] = compressed
			if err := session.Save(r, w); err != nil {
				t.Error(err)
			}
			if again, err := store.New(r, "_gothic_session"); err != nil || again.Values["google"] != compressed {
				t.Errorf("New in the same request = %v, %v", again.Values, err)
			}
			io.WriteString(w, "redirect")
		})
		s.serve(func(w http.ResponseWriter, r *http.Request) { // CompleteUserAuth
			session, err := store.Get(r, "_gothic_session")
			if err != nil || session.IsNew || session.Values["google"] != compressed {
				t.Errorf("Get = %+v, %v", session, err)
			}
			again, _ := store.New(r, "_gothic_session")
			again.Values["google"] = compressed + "2"
			if err := again.Save(r, w); err != nil {
				t.Error(err)
			}
			session, _ = store.Get(r, "_gothic_session") // Logout
			session.Options.MaxAge = -1
			session.Values = make(map[any]any)
			if err := session.Save(r, w); err != nil {
				t.Error(err)
			}
		})
		s.serve(func(w http.ResponseWriter, r *http.Request) {
			session, err := store.Get(r, "_gothic_session")
			if err != nil || !session.IsNew || len(session.Values) != 0 {
				t.Errorf("after Logout: %+v, %v", session, err)
			}
			if n := sessplus.Get(r).GetInt("user_id"); n != 42 {
				t.Errorf("the program's own user_id = %d", n)
			}
		})
	}
}

// Values come back with their types, whatever the codec makes of them, also flashes; text and bools can be read by the
// program as well; and what the session does not have any more is removed.
func TestStoreKeepsTypes(t *testing.T) {
	gob.Register([]string{})
	s := newSite(t, sessplus.Config{CookieName: "session"}, sessplus.Config{CookieName: "other", Fields: sessplus.Include("other")})
	store := adopt.Store(s.Manager, "session")
	values := map[any]any{
		"text": "Zoë", "bool": true, "nil": nil, "uint": uint(7), "float": 3.0, "at": at, "cart": Cart{[]Item{{"tea"}}}, "raw": []byte("x"),
		"texts": []string{"a", "b"}, "map": map[any]any{1: "x"},
	}
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		if _, err := store.Get(r, "any name"); err == nil {
			t.Error("a name that no cookie can have is accepted")
		}
		session, err := store.Get(r, "any")
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range values {
			session.Values[k] = v
		}
		session.AddFlash("saved")
		if err := session.Save(r, w); err != nil {
			t.Error(err)
		}
	})
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		session, err := store.Get(r, "any")
		if err != nil {
			t.Fatal(err)
		}
		if got := session.Flashes(); !reflect.DeepEqual(got, []any{"saved"}) {
			t.Errorf("Flashes = %v", got)
		}
		if !reflect.DeepEqual(session.Values, values) {
			t.Errorf("Values = %#v,\nwant %#v", session.Values, values)
		}
		x := sessplus.Get(r)
		if x.GetString("text") != "Zoë" || !x.GetBool("bool") {
			t.Error("the program cannot read text and bools")
		}
		delete(session.Values, "cart")
		if err := session.Save(r, w); err != nil {
			t.Error(err)
		}
		if x.Has("cart") || x.Has("_flash") || !x.Has("uint") {
			t.Errorf("after Save the fields are %v", x.Fields())
		}
	})
}

// What cannot be saved is an error of Save that names the field, and changes nothing.
func TestStoreRefuses(t *testing.T) {
	type unknown struct{ N int }
	s := newSite(t,
		sessplus.Config{CookieName: "session", Fields: sessplus.Include("a")},
		sessplus.Config{CookieName: "other", Fields: sessplus.Include("b")})
	for what, test := range map[string]struct {
		key, value any
		says       string
		is         error
	}{
		"another cookie's field": {"b", 1, `"b"`, sessplus.ErrNoOwner},
		"nobody's field":         {"c", 1, `"c"`, sessplus.ErrNoOwner},
		"a key that is no text":  {1, 1, "int", nil},
		"a type not registered":  {"a", unknown{77}, "register", nil},
	} {
		s.serve(func(w http.ResponseWriter, r *http.Request) {
			session, err := adopt.Store(s.Manager, "session").New(r, "any")
			if err != nil {
				t.Fatal(err)
			}
			session.Values[test.key] = test.value
			err = session.Save(r, w)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "77") || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%s: %v", what, err)
			}
			if fields := sessplus.Get(r).Fields(); len(fields) != 0 {
				t.Errorf("%s: the fields are %v", what, fields)
			}
		})
	}
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		session, err := adopt.Store(s.Manager, "no such cookie").New(r, "any")
		if session == nil || err == nil || session.Save(r, w) == nil {
			t.Errorf("a cookie that no config has: %v, %v", session, err)
		}
	})
	defer func() {
		if recover() == nil {
			t.Error("without the middleware New does not panic")
		}
	}()
	r, _ := http.NewRequest("GET", "/", nil)
	adopt.Store(s.Manager, "session").New(r, "any")
}

// A program's own list that looks like a packed value, and is none, stays.
func TestStoreLeavesOtherLists(t *testing.T) {
	s := newSite(t, sessplus.Config{CookieName: "session"})
	var session *sessions.Session
	s.serve(func(w http.ResponseWriter, r *http.Request) {
		sessplus.Get(r).Set("list", []string{"gob of adopt.Store", "!"})
		session, _ = adopt.Store(s.Manager, "session").New(r, "any")
	})
	if got := session.Values["list"]; !reflect.DeepEqual(got, []any{"gob of adopt.Store", "!"}) {
		t.Errorf("list = %#v", got)
	}
}

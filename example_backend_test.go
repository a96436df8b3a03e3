package sessplus_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"github.com/sessplus/sessplus"
)

// Memory is the backend of programs on one machine, and of development. Configs may share one.
func ExampleMemory() {
	backend := sessplus.Memory()
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "session", Fields: sessplus.Include("user_id"), Backend: backend},
		{CookieName: "cart", Fields: sessplus.Auto(), Backend: backend},
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	browse(mgr,
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			s.Set("user_id", 42)
			s.Set("items", 3)
		},
		func(_ http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			fmt.Println(s.GetInt("user_id"), s.GetInt("items"), s.ID("session") != s.ID("cart"))
		})
	// Output:
	// 42 3 true
}

// A secure cookie needs no store. With a Block key the visitor cannot read it, without one it is only signed.
func ExampleSecureCookie() {
	pair := sessplus.GenerateKeyPair()
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "secret", Fields: sessplus.Include("email"), Backend: sessplus.SecureCookie()},
		{CookieName: "open", Fields: sessplus.Include("lang"), Keys: []sessplus.KeyPair{{Hash: pair.Hash}}},
	}, &sessplus.Options{Keys: []sessplus.KeyPair{pair}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, route := range mgr.Describe() {
		fmt.Println(route.Field, "is", route.Visibility)
	}
	// Output:
	// email is encrypted
	// lang is signed
}

// The same secret gives the same keys, on every machine and after every restart.
func ExampleDeriveKeyPair() {
	// In a program, this comes from the environment.
	secret, err := hex.DecodeString("6a1f0c64f3a1c2b7d98e5a40b1c73d2e9f8a7b6c5d4e3f201122334455667788")
	if err != nil {
		fmt.Println(err)
		return
	}
	a, b := sessplus.DeriveKeyPair(secret), sessplus.DeriveKeyPair(secret)
	fmt.Println(len(a.Hash), len(a.Block), bytes.Equal(a.Hash, b.Hash), bytes.Equal(a.Hash, a.Block))
	fmt.Println(a) // keys are never printed
	// Output:
	// 32 32 true false
	// [keys]
}

func ExampleGenerateKeyPair() {
	a, b := sessplus.GenerateKeyPair(), sessplus.GenerateKeyPair()
	fmt.Println(len(a.Hash), len(a.Block), bytes.Equal(a.Hash, b.Hash))
	// Output:
	// 32 32 false
}

// To change the secret put the new pair first, and keep the old one for as long as its cookies are good. A cookie that
// an older pair wrote is read, and written anew with the next response.
func ExampleKeyPair_rotation() {
	older := sessplus.DeriveKeyPair([]byte("the secret of last year, 32 bytes or more"))
	newer := sessplus.DeriveKeyPair([]byte("the secret of this year, 32 bytes or more"))
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	for _, keys := range [][]sessplus.KeyPair{{older}, {newer, older}, {newer}} {
		mgr, err := sessplus.New(nil, &sessplus.Options{Keys: keys})
		if err != nil {
			fmt.Println(err)
			return
		}
		server := httptest.NewServer(mgr.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := sessplus.Get(r)
			fmt.Printf("%d keys, theme %q\n", len(keys), s.GetString("theme"))
			s.Set("theme", "dark")
		})))
		res, err := browser.Get(server.URL)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("cookies set:", len(res.Cookies()))
		res.Body.Close()
		server.Close()
	}
	// Output:
	// 1 keys, theme ""
	// cookies set: 1
	// 2 keys, theme "dark"
	// cookies set: 1
	// 1 keys, theme "dark"
	// cookies set: 0
}

// OnEvent hears what becomes of sessions, for metrics and tests.
func ExampleOptions() {
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory()}}, &sessplus.Options{
		OnEvent: func(_ context.Context, e sessplus.Event) { fmt.Println(e.Kind, e.Cookie, e.Fields) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	browse(mgr,
		func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Set("user_id", 42) },
		func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Destroy() })
	// Output:
	// create session 1
	// load session 1
	// destroy session 0
}

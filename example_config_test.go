package sessplus_test

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sessplus/sessplus"
)

// New reports every mistake of every config at once.
func ExampleNew() {
	_, err := sessplus.New([]sessplus.Config{
		{CookieName: "__Host-session", Domain: "example.com", Backend: sessplus.Memory()},
		{CookieName: "prefs", SameSite: http.SameSiteNoneMode, MaxAge: 500 * 24 * time.Hour, Lazy: true},
	}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	fmt.Println(err)
	// Output:
	// sessplus: config of cookie "__Host-session": Secure: auto is not enough: the prefix of the cookie's name needs SecureAlways, or browsers refuse the cookie
	// sessplus: config of cookie "__Host-session": Domain: "example.com" makes browsers refuse a __Host- cookie; leave it empty
	// sessplus: config of cookie "prefs": SameSite: None needs Secure: SecureAlways, or browsers refuse the cookie
	// sessplus: config of cookie "prefs": MaxAge: 12000h0m0s is over 400 days, the longest that browsers keep a cookie
	// sessplus: config of cookie "prefs": Lazy: true has no meaning on a secure cookie, which comes with the request; leave it false
}

// Without configs there is one secure cookie for every field.
func ExampleNew_default() {
	mgr, err := sessplus.New(nil, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	fmt.Println(mgr, err)
	// Output:
	// sessplus.Manager(session) <nil>
}

// The mistakes as values, for a program that shows them in its own way.
func ExampleConfigError() {
	_, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory(), Domain: "example.com."}}, nil)
	var mistake *sessplus.ConfigError
	if errors.As(err, &mistake) {
		fmt.Printf("%s of %s: %s\n", mistake.Field, mistake.Cookie, mistake.Reason)
	}
	// Output:
	// Domain of session: "example.com." ends in a dot, for which browsers drop the cookie; without it the domain is "example.com"
}

// A config for production: a login in a server-side session that ends after half an hour without a request, at the
// latest after twelve hours, or after 30 days for those who asked to be remembered.
func ExampleConfig() {
	mgr, err := sessplus.New([]sessplus.Config{{
		CookieName:        "__Host-session",
		Backend:           sessplus.Memory(), // or Redis, or Firestore
		Secure:            sessplus.SecureAlways,
		SameSite:          http.SameSiteStrictMode,
		Lifetime:          12 * time.Hour,
		IdleTimeout:       30 * time.Minute,
		PermanentLifetime: 30 * 24 * time.Hour,
	}}, nil)
	fmt.Println(mgr, err)
	// Output:
	// sessplus.Manager(__Host-session) <nil>
}

// Describe tells who owns what. Printed, it is a table for the log of a program that starts.
func ExampleManager_Describe() {
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "csrf", Fields: sessplus.Include("csrf_token"), MaxAge: time.Hour},
		{CookieName: "session", Fields: sessplus.Include("user_id", "cart"), Backend: sessplus.Memory()},
		{CookieName: "data", Fields: sessplus.Auto()},
	}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mgr.Describe())
	// Output:
	// COOKIE   FIELD         BACKEND        VISIBILITY   LIFETIME
	// csrf     "csrf_token"  secure cookie  encrypted    1h0m0s
	// session  "cart"        memory         server-side  24h0m0s
	// session  "user_id"     memory         server-side  24h0m0s
	// data     (auto)        secure cookie  encrypted    720h0m0s
}

// A field may have several owners: Set reaches all of them, and the last one is read.
func ExampleExclude() {
	mgr, err := sessplus.New([]sessplus.Config{
		{CookieName: "public", Fields: sessplus.Exclude("user_id")},
		{CookieName: "private", Backend: sessplus.Memory()}, // every field
	}, &sessplus.Options{Keys: []sessplus.KeyPair{sessplus.GenerateKeyPair()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, route := range mgr.Describe() {
		fmt.Printf("%s %q %s\n", route.Cookie, route.Field, route.Rule)
	}
	// Output:
	// public "" exclude "user_id"
	// private "user_id" every field
	// private "" every field
}

// The configs of a program can come from a file.
func ExampleParseConfigs() {
	configs, err := sessplus.ParseConfigs([]byte(`[
		{"cookie_name": "csrf", "session_fields": ["csrf_token"], "cookie_max_age": 3600},
		{"cookie_name": "session", "session_type": "memory", "session_fields": {"exclude": ["csrf_token"]},
		 "session_lifetime": "12h", "idle_timeout": 1800, "cookie_secure": true}
	]`), map[string]sessplus.Backend{"memory": sessplus.Memory()})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range configs {
		fmt.Println(c.CookieName, "|", c.Fields, "|", c.MaxAge, c.Lifetime, c.IdleTimeout, c.Secure)
	}
	// Output:
	// csrf | include "csrf_token" | 1h0m0s 0s 0s auto
	// session | exclude "csrf_token" | 0s 12h0m0s 30m0s always
}

// Here, too, every mistake is reported at once.
func ExampleParseConfigs_mistakes() {
	_, err := sessplus.ParseConfigs([]byte(`[
		{"cookie_name": "csrf", "cookie_max_age": "1h", "cookie_samesite": "laxx"},
		{"session_type": "redis", "lazy": "yes"}
	]`), map[string]sessplus.Backend{"memory": sessplus.Memory()})
	fmt.Println(err)
	// Output:
	// sessplus: config of cookie "csrf": cookie_max_age: "1h" is not a number of seconds; a day is 86400
	// sessplus: config of cookie "csrf": cookie_samesite: "laxx" is none of "lax", "none", "strict"
	// sessplus: config of cookie "#1": session_type: "redis" is neither "secure_cookie" nor one of the backends ["memory"], or that one is nil
	// sessplus: config of cookie "#1": lazy: "yes" is not true or false, without quotes
}

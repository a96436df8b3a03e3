package sessplus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/securecookie"

	"github.com/sessplus/sessplus"
)

// SPEC 6.4: a cookie that other code sealed with the same keys is no session, and the log says of it what is true.
func TestTheReasonOfARejectedSecureCookieIsTrue(t *testing.T) {
	t.Parallel()
	gob := func() *securecookie.SecureCookie { return securecookie.New(testKeys[0].Hash, testKeys[0].Block) }
	json := func() *securecookie.SecureCookie { return gob().SetSerializer(securecookie.JSONEncoder{}) }
	const foreign, later = "not written by sessplus", "later version"
	for _, tt := range []struct {
		name   string
		text   func() (string, error)
		is, no []string
	}{
		{"gorilla/sessions", func() (string, error) {
			return gob().Encode("s", map[any]any{"user_id": 42, "name": corruptSecret})
		}, []string{foreign, "malformed", "version 1"}, []string{"future", later}},
		{"gob of a map", func() (string, error) { return gob().Encode("s", map[string]string{"name": corruptSecret}) },
			[]string{foreign, "malformed"}, []string{"future", later}},
		{"gob of a number", func() (string, error) { return gob().Encode("s", 5) }, []string{foreign}, []string{"future"}},
		{"gob of a short text", func() (string, error) { return gob().Encode("s", "ann") }, []string{foreign}, []string{"future"}},
		{"JSON", func() (string, error) { return json().Encode("s", map[string]string{"name": corruptSecret}) },
			[]string{foreign, "malformed"}, []string{"future", later}},
		{"JSON of a number", func() (string, error) { return json().Encode("s", 5) }, []string{foreign}, []string{"future"}},
		{"zeros", func() (string, error) { return sealContent(t, strings.Repeat("\x00", 40)), nil }, []string{foreign}, []string{"future", later}},
		{"our version and garbage", func() (string, error) { return sealContent(t, "\x01\x00"+corruptSecret), nil },
			[]string{foreign, "malformed"}, []string{"future", later}},
		{"the next version", func() (string, error) { return sealContent(t, "\x02\x00"+corruptSecret), nil },
			[]string{foreign, later, "version 1"}, []string{"future"}},
		{"a flag of a later version", func() (string, error) { return sealContent(t, "\x01\x80"+corruptSecret), nil },
			[]string{foreign, later}, []string{"future"}},
		{"the day after tomorrow", func() (string, error) {
			return rewrite(t, "s", sealContent(t, "\x01\x00\x01a\x011"), time.Now().Add(48*time.Hour)), nil
		}, []string{"written in the future"}, []string{foreign, later}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := tt.text()
			if err != nil {
				t.Fatal(err)
			}
			var j journal
			s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", MaxAge: time.Hour}))
			if res := s.answerTo(readA, "s="+text); res.body != "" {
				t.Errorf("it is a session: a = %q", res.body)
			}
			lines := j.lines("a cookie was rejected")
			if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") {
				t.Fatalf("the log says %q, want one warning", lines)
			}
			for _, part := range tt.is {
				if !strings.Contains(lines[0], part) {
					t.Errorf("the log says %q, want %q in it", lines[0], part)
				}
			}
			for _, part := range tt.no {
				if strings.Contains(lines[0], part) {
					t.Errorf("the log says %q, which is not true of %s", lines[0], tt.name)
				}
			}
			j.keepsSecret(t, nil, corruptSecret, text)
		})
	}
}

// rejected counts the lines of the log about a rejected cookie, and the events.
func (j *journal) rejected(cookie string) (lines, events int) {
	for _, line := range j.lines("a cookie was rejected") {
		if strings.Contains(line, "cookie="+cookie+" ") {
			lines++
		}
	}
	for _, kind := range j.kinds(cookie) {
		if kind == sessplus.EventReject {
			events++
		}
	}
	return lines, events
}

// SPEC 6.4, 8: a cookie that every visitor brings is not a line for every request, but an event.
func TestRejectedCookiesDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, b sessplus.Backend) {
		var j journal
		c := newCrowd(t, newManager(t, j.options(0),
			sessplus.Config{CookieName: "one", Fields: sessplus.Include("a"), Backend: b},
			sessplus.Config{CookieName: "two", Fields: sessplus.Include("b"), Backend: b}))
		const visitors, visits = 8, 25
		var all sync.WaitGroup
		for i := range visitors {
			client := c.withCookies(map[string]string{"one": fmt.Sprint("forged", i), "two": fmt.Sprint("forged", i)})
			all.Go(func() {
				for range visits {
					c.askWith(client, func(s *sessplus.Session) { s.Fields() })
				}
			})
		}
		all.Wait()
		for _, cookie := range []string{"one", "two"} {
			if lines, _ := j.rejected(cookie); lines != 1 {
				t.Errorf("%d requests with a wrong cookie %q are %d lines, want 1", visitors*visits, cookie, lines)
			}
		}
	})
}

// SPEC 8: each one is told as an event, and each reason in the log.
func TestEveryRejectedCookieIsAnEvent(t *testing.T) {
	t.Parallel()
	var j journal
	s := newSite(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", MaxAge: time.Hour}))
	const visits = 10
	for range visits {
		s.answerTo(readA, "s=forged")
	}
	if lines, events := j.rejected("s"); lines != 1 || events != visits {
		t.Errorf("%d forged cookies are %d lines and %d events, want 1 and %d", visits, lines, events, visits)
	}
	for range visits {
		s.answerTo(readA, "s=2.malformed")
	}
	if lines, events := j.rejected("s"); lines != 2 || events != visits {
		t.Errorf("with another reason there are %d lines and %d more events, want 2 and %d", lines, events, visits)
	}
}

// SPEC 6.4: the next minute's line says how many were left out.
func TestTheLogCountsRejectedCookiesThatItLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		h := newManager(t, j.options(0), sessplus.Config{CookieName: "s"}).Handler(
			http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sessplus.Get(r).Fields() }))
		visit := func(times int) {
			for range times {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("Cookie", "s=forged")
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		check := func(when string, want ...string) {
			t.Helper()
			lines := j.lines("a cookie was rejected")
			if len(lines) != len(want) {
				t.Fatalf("%s: %d lines, want %d: %q", when, len(lines), len(want), lines)
			}
			for i, line := range lines {
				if (want[i] == "" && strings.Contains(line, "left_out")) || !strings.Contains(line, want[i]) {
					t.Errorf("%s: line %d is %q, want %q in it", when, i, line, want[i])
				}
			}
		}
		visit(5)
		check("at once", "")
		time.Sleep(59 * time.Second)
		visit(3)
		check("within the minute", "")
		time.Sleep(time.Second)
		visit(4)
		check("after a minute", "", "left_out=7")
		time.Sleep(time.Hour)
		visit(1)
		check("after an hour", "", "left_out=7", "left_out=3")
		time.Sleep(time.Minute)
		visit(1)
		check("with none left out", "", "left_out=7", "left_out=3", "")
	})
}

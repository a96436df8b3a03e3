package sessplus_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/sessplus/sessplus"
)

// A quoter is a backend whose errors quote what they must not.
type quoter struct {
	sessplus.Backend
	err error
}

func (q *quoter) Update(context.Context, string, *sessplus.Change) (sessplus.Result, error) {
	return sessplus.Result{}, q.err
}

// SPEC 6.6, 6.9
func TestDefaultErrorHandler(t *testing.T) {
	const inside = "tcp 10.0.0.7:6379: the inside"
	tests := []struct {
		name   string
		err    error // of the backend's Update
		change func(s *sessplus.Session)
		want   int
	}{
		{"unavailable", errors.New(inside), func(s *sessplus.Session) { s.Set("user", "bob") }, 503},
		{"gone", sessplus.ErrNoRecord, func(s *sessplus.Session) { s.Set("user", "bob") }, 409},
		{"too large for the backend", errors.Join(sessplus.ErrTooLarge, errors.New(inside)), func(s *sessplus.Session) { s.Set("user", "bob") }, 500},
		{"no owner", nil, func(s *sessplus.Session) { s.Set("nobody's", 1) }, 500},
		{"cannot be encoded", nil, func(s *sessplus.Session) { s.Set("user", func() {}) }, 500},
		{"too large for a cookie", nil, func(s *sessplus.Session) { s.Set("sealed", noise(5000)) }, 500},
		{"no such cookie", nil, func(s *sessplus.Session) { s.Renew("nobody's") }, 500},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var j journal
			c := newCrowd(t, newManager(t, j.options(0),
				sessplus.Config{CookieName: "s", Backend: &quoter{sessplus.Memory(), test.err}, Fields: sessplus.Include("user")},
				sessplus.Config{CookieName: "c", Fields: sessplus.Include("sealed")}))
			c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
			answer := c.ask(c.client, func(w http.ResponseWriter, r *http.Request) {
				test.change(sessplus.Get(r))
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("Cache-Control", "public, max-age=3600")
				w.Header().Set("ETag", `"x"`)
				w.WriteHeader(201)
				if _, err := w.Write([]byte("<p>from the handler")); err == nil {
					t.Error("Write() = nil, want the error of the commit")
				}
			})
			if answer.StatusCode != test.want {
				t.Errorf("status = %d, want %d", answer.StatusCode, test.want)
			}
			if got := answer.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
				t.Errorf("Content-Type = %q, want plain text", got)
			}
			if got := answer.Header.Get("Cache-Control"); strings.Contains(got, "public") || answer.Header.Get("ETag") != "" {
				t.Errorf("Cache-Control = %q, ETag = %q, want nothing of the handler's", got, answer.Header.Get("ETag"))
			}
			if answer.body == "" {
				t.Error("the body is empty")
			}
			for _, word := range []string{"handler", "sessplus", "backend", "inside", "cookie", "user", "10.0.0.7", "field", "bob", "ann"} {
				if strings.Contains(answer.body, word) {
					t.Errorf("body = %q, want nothing of the inside (%q)", answer.body, word)
				}
			}
			if !strings.Contains(j.text(), "level=ERROR") {
				t.Errorf("log = %q, want the error", j.text())
			}
			if lines := answer.Header.Values("Set-Cookie"); len(lines) > 0 {
				t.Errorf("Set-Cookie = %q, want none", lines)
			}
		})
	}
}

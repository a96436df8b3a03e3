package sessplus_test

import (
	"net/http"
	"testing"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// BenchmarkRequest measures what the middleware adds to a request, in-process: a session of four small fields on each
// backend, read or changed.
func BenchmarkRequest(b *testing.B) {
	for _, backend := range []struct {
		name string
		open func() sessplus.Backend
	}{
		{"securecookie", sessplus.SecureCookie},
		{"memory", sessplus.Memory},
		{"redis", func() sessplus.Backend { return sessplus.Redis(servers.Redis(b)) }},
		{"firestore", func() sessplus.Backend { return sessplus.Firestore(servers.Firestore(b), "sessions") }},
	} {
		b.Run(backend.name, func(b *testing.B) {
			m := newManager(b, nil, sessplus.Config{CookieName: "session", Backend: backend.open()})
			n := 0
			scenarios := []struct {
				name string
				do   func(s *sessplus.Session)
			}{
				{"none", func(*sessplus.Session) {}},
				{"read", func(s *sessplus.Session) {
					if s.GetInt("user_id") != 42 {
						b.Fatal("the session was not loaded")
					}
				}},
				{"write", func(s *sessplus.Session) {
					n++
					s.Set("visits", n)
				}},
			}
			for _, tt := range scenarios {
				b.Run(tt.name, func(b *testing.B) {
					visit := visiting(b, m, func(s *sessplus.Session) {
						s.Set("user_id", 42)
						s.Set("name", "Ann")
						s.Set("visits", 0)
						s.Set("plan", "gold")
					}, tt.do)
					if tt.name == "none" {
						visit = visiting(b, m, nil, tt.do)
					}
					b.ReportAllocs()
					for b.Loop() {
						visit()
					}
				})
			}
		})
	}
}

// discard is a response that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

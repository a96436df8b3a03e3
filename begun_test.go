package sessplus_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sessplus/sessplus"
)

// A writtenWriter tells whether the response has begun, as those of gin and negroni do.
type writtenWriter struct {
	http.ResponseWriter
	written bool
}

func (w *writtenWriter) WriteHeader(status int) {
	w.written = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *writtenWriter) Write(b []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(b)
}

func (w *writtenWriter) Written() bool { return w.written }

// A response that begins past the writer of the middleware goes without the cookies of its session. Where that can be
// seen, the log says so, once.
func TestResponseBegunBeforeTheCommitIsLogged(t *testing.T) {
	t.Parallel()
	const message = "a response had begun before its session was saved"
	answer := func(w http.ResponseWriter) { io.WriteString(w, "hello") }
	for _, c := range []struct {
		name  string
		write func(m *sessplus.Manager, below http.ResponseWriter, r *http.Request)
		want  int
	}{
		{name: "past the middleware", want: 1, write: func(m *sessplus.Manager, below http.ResponseWriter, r *http.Request) {
			m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				sessplus.Get(r).Set("n", 1)
				answer(below)
			})).ServeHTTP(below, r)
		}},
		{name: "past the middleware, nothing to send", write: func(m *sessplus.Manager, below http.ResponseWriter, r *http.Request) {
			m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				sessplus.Get(r).Has("n")
				answer(below)
			})).ServeHTTP(below, r)
		}},
		{name: "through the middleware", write: func(m *sessplus.Manager, below http.ResponseWriter, r *http.Request) {
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sessplus.Get(r).Set("n", 1)
				answer(w)
			})).ServeHTTP(below, r)
		}},
		{name: "before Save", want: 1, write: func(m *sessplus.Manager, below http.ResponseWriter, r *http.Request) {
			s, _, err := m.Load(below, r)
			if err != nil {
				t.Error(err)
				return
			}
			s.Set("n", 1)
			answer(below)
			if err := s.Save(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var j journal
			m := newManager(t, j.options(0), sessplus.Config{CookieName: "data"})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.write(m, &writtenWriter{ResponseWriter: w}, r)
			}))
			defer server.Close()
			for range 2 {
				res, err := http.Get(server.URL)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
			}
			if got := j.warnings(message); got != c.want {
				t.Errorf("the log says so %d times, want %d:\n%s", got, c.want, j.text())
			}
		})
	}
}

package sessplus_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
)

// upload makes the body of a form with a file of that many bytes, and its Content-Type.
func upload(t *testing.T, size int) (body []byte, contentType string) {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	form.WriteField("title", "holiday")
	file, err := form.CreateFormFile("file", "photo.jpg")
	if err != nil {
		t.Fatal(err)
	}
	file.Write(make([]byte, size))
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), form.FormDataContentType()
}

// SPEC 5.2: net/http removes the temporary files of the request that it made, when the handler has returned.
func TestUploadsLeaveNoFiles(t *testing.T) {
	const size = 1 << 16
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, end := range []string{"return", "status 500", "panic", "MultipartReader"} {
			t.Run(proto+" "+end, func(t *testing.T) {
				dir := t.TempDir()
				t.Setenv("TMPDIR", dir)
				files := func() int {
					list, err := os.ReadDir(dir)
					if err != nil {
						t.Fatal(err)
					}
					return len(list)
				}
				outer := newManager(t, nil, sessplus.Config{CookieName: "outer"})
				m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()})
				s := newSiteOn(t, proto, func(h http.Handler) http.Handler {
					return answersPanics(outer.Handler(m.Handler(h)))
				})
				body, contentType := upload(t, size)
				for range 3 {
					req, _ := http.NewRequest("POST", s.URL, bytes.NewReader(body))
					req.Header.Set("Content-Type", contentType)
					s.send(s.client, req, func(w http.ResponseWriter, r *http.Request) {
						sessplus.Get(r).Set("n", 1)
						if end == "MultipartReader" {
							if _, err := r.MultipartReader(); err != nil {
								t.Errorf("MultipartReader: %v", err)
							}
							return
						}
						if err := r.ParseMultipartForm(1 << 10); err != nil || r.FormValue("title") != "holiday" {
							t.Errorf("ParseMultipartForm: %v", err)
						}
						if files() == 0 {
							t.Error("no file was written, so that this test proves nothing")
						}
						switch end {
						case "status 500":
							w.WriteHeader(500)
						case "panic":
							panic("oops")
						}
					})
				}
				for deadline := time.Now().Add(5 * time.Second); files() > 0; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("%d files of %d bytes are left over", files(), size)
					}
				}
			})
		}
	}
}

// SPEC 5.2: what is outside of the middleware, and logs or measures requests by their route.
func TestRequestOutsideSeesWhatWasPutIntoItsCopy(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: sessplus.Memory()})
		outer := newManager(t, nil, sessplus.Config{CookieName: "outer"})
		var pattern, title string
		var form *multipart.Form
		s := newSiteOn(t, "HTTP/1.1", func(h http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("POST /album/{id}", h)
			inner := outer.Handler(m.Handler(mux))
			return answersPanics(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { pattern, title, form = r.Pattern, r.PostFormValue("title"), r.MultipartForm }()
				inner.ServeHTTP(w, r)
			}))
		})
		body, contentType := upload(t, 10)
		req, _ := http.NewRequest("POST", s.URL+"/album/7", bytes.NewReader(body))
		req.Header.Set("Content-Type", contentType)
		s.send(s.client, req, func(w http.ResponseWriter, r *http.Request) {
			if got := r.PostFormValue("title") + r.PathValue("id"); got != "holiday7" {
				t.Errorf("title and id = %q", got)
			}
			io.WriteString(w, "x")
			if panics {
				panic("oops")
			}
		})
		if pattern != "POST /album/{id}" || title != "holiday" || form == nil || len(form.File["file"]) != 1 {
			t.Errorf("panics=%t: outside the request has the pattern %q, the title %q, the form %v", panics, pattern, title, form)
		}
	}
}

// SPEC 5.11
func TestSameManagerTwiceActsOnce(t *testing.T) {
	t.Parallel()
	b := &recorder{Backend: sessplus.Memory()}
	m := newManager(t, nil, sessplus.Config{CookieName: "sid", Backend: b})
	between := newManager(t, nil, sessplus.Config{CookieName: "other", Backend: sessplus.Memory()})
	for name, s := range map[string]*site{"twice": newSite(t, m, m), "with another between": newSite(t, m, between, m)} {
		b.ops()
		res := s.visit(func(w http.ResponseWriter, r *http.Request) {
			m.Get(r).Set("n", 1)
			io.WriteString(w, "x")
		})
		if got := b.ops(); !slices.Equal(got, []string{"create"}) || len(res.setCookies("sid")) != 1 {
			t.Errorf("%s: calls = %q, Set-Cookie = %q, want one of each", name, got, res.setCookies("sid"))
		}
		s.visit(func(_ http.ResponseWriter, r *http.Request) { m.Get(r).Set("n", m.Get(r).GetInt("n")+1) })
		if got := b.ops(); !slices.Equal(got, []string{"load", "update"}) {
			t.Errorf("%s: calls = %q, want one load and one update", name, got)
		}
	}
}

// SPEC 5.11
func TestTwoManagersNest(t *testing.T) {
	t.Parallel()
	outer := newManager(t, nil, sessplus.Config{CookieName: "outer", Backend: sessplus.Memory()})
	inner := newManager(t, nil, sessplus.Config{CookieName: "inner"})
	stranger := newManager(t, nil, sessplus.Config{CookieName: "stranger"})
	s := newSite(t, outer, inner)
	res := s.visit(func(w http.ResponseWriter, r *http.Request) {
		if sessplus.Get(r) != inner.Get(r) || inner.Get(r) == outer.Get(r) {
			t.Error("Get is not the innermost manager's session")
		}
		if got, ok := sessplus.FromContext(r.Context()); !ok || got != inner.Get(r) {
			t.Errorf("FromContext = %v, %t, want the innermost session", got, ok)
		}
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "Handler") {
					t.Errorf("Get of a manager that is not in the chain panics with %v, want a word about Handler", v)
				}
			}()
			stranger.Get(r)
		}()
		outer.Get(r).Set("n", "outer")
		inner.Get(r).Set("n", "inner")
		io.WriteString(w, "x")
	})
	if len(res.setCookies("outer")) != 1 || len(res.setCookies("inner")) != 1 {
		t.Errorf("Set-Cookie = %d lines, want one of each manager", len(res.Header.Values("Set-Cookie")))
	}
	if got := res.Header.Values("Vary"); !slices.Equal(got, []string{"Cookie"}) {
		t.Errorf("Vary = %q, want Cookie once", got)
	}
	s.visit(func(w http.ResponseWriter, r *http.Request) {
		if o, i := outer.Get(r).GetString("n"), inner.Get(r).GetString("n"); o != "outer" || i != "inner" {
			t.Errorf("n = %q and %q, want outer and inner", o, i)
		}
		outer.Get(r).Set("n", "lost")
		inner.Get(r).Set("n", "lost")
		w.WriteHeader(500)
	})
	s.visit(func(_ http.ResponseWriter, r *http.Request) {
		if o, i := outer.Get(r).GetString("n"), inner.Get(r).GetString("n"); o != "outer" || i != "inner" {
			t.Errorf("n = %q and %q after a 500, want outer and inner", o, i)
		}
	})
}

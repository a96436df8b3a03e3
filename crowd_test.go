package sessplus_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sessplus/sessplus"
)

// A crowd is a real server whose requests may run side by side, each with a handler of its own.
type crowd struct {
	*site
	handlers sync.Map // by number: http.HandlerFunc
	count    atomic.Int64
}

func newCrowd(t testing.TB, m *sessplus.Manager) *crowd {
	t.Helper()
	c := &crowd{site: &site{TB: t}}
	c.serve(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, _ := c.handlers.Load(r.URL.Query().Get("n"))
		h.(http.HandlerFunc)(w, r)
	})), false)
	return c
}

// ask makes a request that h handles. It may be called by any goroutine; a request without an answer is a failure, and
// gives an empty reply.
func (c *crowd) ask(client *http.Client, h http.HandlerFunc) *reply {
	n := fmt.Sprint(c.count.Add(1))
	c.handlers.Store(n, h)
	res, err := client.Get(c.URL + "/?n=" + n)
	if err != nil {
		c.Errorf("no answer: %v", err)
		return &reply{Response: &http.Response{Header: http.Header{}}}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.Errorf("no whole answer: %v", err)
	}
	return &reply{res, string(body)}
}

func (c *crowd) askWith(client *http.Client, f func(*sessplus.Session)) *reply {
	return c.ask(client, func(_ http.ResponseWriter, r *http.Request) { f(sessplus.Get(r)) })
}

// mustAsk fails the test unless the answer is 200.
func (c *crowd) mustAsk(client *http.Client, f func(*sessplus.Session)) *reply {
	c.Helper()
	r := c.askWith(client, f)
	if r.StatusCode != 200 {
		c.Fatalf("status = %d, want 200; body %q", r.StatusCode, r.body)
	}
	return r
}

// A slowRequest has loaded its session, and goes on when it is told.
type slowRequest struct {
	goOn   chan struct{}
	answer chan *reply
}

// begin starts a request that loads the session and then waits; later is what it does afterwards.
func (c *crowd) begin(client *http.Client, later func(*sessplus.Session)) *slowRequest {
	r := &slowRequest{make(chan struct{}), make(chan *reply, 1)}
	loaded := make(chan struct{})
	go func() {
		r.answer <- c.askWith(client, func(s *sessplus.Session) {
			s.Fields()
			close(loaded)
			<-r.goOn
			later(s)
		})
	}()
	select {
	case <-loaded:
	case early := <-r.answer:
		c.Fatalf("the slow request was answered before its handler ran: %d %q", early.StatusCode, early.body)
	}
	return r
}

func (r *slowRequest) finish() *reply {
	close(r.goOn)
	return <-r.answer
}

// withCookies returns a browser that has only these cookies, in place of what a Set-Cookie said.
func (c *crowd) withCookies(cookies map[string]string) *http.Client {
	client := c.visitor()
	req, _ := http.NewRequest("GET", c.URL, nil)
	var list []*http.Cookie
	for name, value := range cookies {
		list = append(list, &http.Cookie{Name: name, Value: value, Path: "/"})
	}
	client.Jar.SetCookies(req.URL, list)
	return client
}

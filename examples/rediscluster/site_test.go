package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessplus/sessplus/internal/servers"
)

func TestMain(m *testing.M) { servers.Main(m) }

// A visitor clicks, and counts what becomes of it.
type visitor struct {
	*http.Client
	url, name string

	requests, down, outed, lost, clicks int
	worst                               string
}

func newVisitor(t *testing.T, url, name string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{Client: &http.Client{Jar: jar, Timeout: 20 * time.Second}, url: url, name: name}
	if status, page := v.post("/login"); status != http.StatusOK || !strings.Contains(page, v.hello()) {
		t.Fatalf("the login of %s is answered %d %s", name, status, page)
	}
	return v
}

func (v *visitor) hello() string { return `<bdi id="user">` + v.name + `</bdi>` }

// post sends a form, follows the redirect, and returns 0 and the error where there is no answer.
func (v *visitor) post(path string) (status int, page string) {
	res, err := v.PostForm(v.url+path, url.Values{"name": {v.name}})
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(text)
}

// click clicks until the channel is closed.
func (v *visitor) click(until <-chan struct{}) {
	for {
		select {
		case <-until:
			return
		default:
		}
		status, page := v.post("/click")
		v.requests++
		switch {
		case status == http.StatusServiceUnavailable:
			v.down++
		case status != http.StatusOK || !strings.Contains(page, v.hello()):
			v.outed++
			v.worst = fmt.Sprint(status, " ", page)
		default:
			v.clicks++
			var n int
			_, after, _ := strings.Cut(page, `<b id="clicks">`)
			fmt.Sscan(strings.ReplaceAll(after, "<", " "), &n)
			v.lost += max(0, v.clicks-n)
			v.clicks = n
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// under lets visitors click while something happens, and fails the test if anybody was logged out.
func under(t *testing.T, what string, url string, happens func()) (total visitor) {
	t.Helper()
	var visitors []*visitor
	until := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 12 {
		v := newVisitor(t, url, fmt.Sprint("visitor", i))
		visitors = append(visitors, v)
		wg.Go(func() { v.click(until) })
	}
	happens()
	close(until)
	wg.Wait()
	for _, v := range visitors {
		total.requests += v.requests
		total.down += v.down
		total.outed += v.outed
		total.lost += v.lost
		total.worst = cmp.Or(total.worst, v.worst)
	}
	t.Logf("%s: %d requests, %d logged out, %d answered 503, %d clicks lost",
		what, total.requests, total.outed, total.down, total.lost)
	if total.requests == 0 || total.outed > 0 {
		t.Errorf("%s: for example %q", what, total.worst)
	}
	return total
}

// SPEC 4.6, 6.1: whatever happens to the servers, nobody is logged out.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a replica takes over")
	}
	cluster := servers.NewRedisCluster(t)
	client := cluster.Client(t)
	site, err := newSite(client)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(site)
	defer srv.Close()
	ctx := context.Background()

	moved := 0
	total := under(t, "slots move", srv.URL, func() {
		from, to := cluster.Masters[0], cluster.Masters[1]
		rdb := from.Client()
		defer rdb.Close()
		for slot := range 16384 / 3 {
			if n, err := rdb.ClusterCountKeysInSlot(ctx, slot).Result(); err != nil {
				t.Fatal(err)
			} else if n > 0 {
				cluster.MoveSlot(t, slot, from, to, func() { time.Sleep(50 * time.Millisecond) })
				moved++
			}
		}
	})
	if moved == 0 || total.down+total.lost > 0 {
		t.Errorf("while %d slots moved %d requests were answered 503, and %d clicks lost", moved, total.down, total.lost)
	}

	total = under(t, "a replica takes over", srv.URL, func() {
		rdb := cluster.Replicas[2].Client()
		defer rdb.Close()
		if err := rdb.ClusterFailover(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		servers.WaitFor(t, "the replica is a master", 20*time.Second, func() bool {
			return strings.Contains(rdb.Info(ctx, "replication").Val(), "role:master")
		})
		time.Sleep(2 * time.Second)
	})
	if total.down+total.lost > 0 {
		t.Errorf("while a replica took over %d requests were answered 503, and %d clicks lost", total.down, total.lost)
	}

	under(t, "a master dies", srv.URL, func() {
		time.Sleep(time.Second)
		cluster.Masters[1].Kill()
		servers.WaitFor(t, "its replica is a master", 30*time.Second, func() bool {
			rdb := cluster.Replicas[1].Client()
			defer rdb.Close()
			return strings.Contains(rdb.Info(ctx, "replication").Val(), "role:master")
		})
		time.Sleep(3 * time.Second)
	})

	ann, too := newVisitor(t, srv.URL, "ann"), newVisitor(t, srv.URL, "ann")
	ann.post("/logout")
	if status, page := too.post("/click"); strings.Contains(page, too.hello()) {
		t.Errorf("after ann has logged out everywhere, another browser of hers is answered %d %s", status, page)
	}
}

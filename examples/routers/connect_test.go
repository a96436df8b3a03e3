package main

import (
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sessplus/sessplus"
)

// A caller calls the procedures, and has a browser's cookies.
type caller struct {
	visit *connect.Client[wrapperspb.StringValue, wrapperspb.StringValue]
	fail  *connect.Client[emptypb.Empty, emptypb.Empty]
	jar   http.CookieJar
	url   *url.URL
}

func newCaller(t *testing.T, b sessplus.Backend, opts ...connect.ClientOption) *caller {
	t.Helper()
	mgr, err := newManager(b)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(connectAPI(mgr))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	return &caller{
		connect.NewClient[wrapperspb.StringValue, wrapperspb.StringValue](client, srv.URL+visitProcedure, opts...),
		connect.NewClient[emptypb.Empty, emptypb.Empty](client, srv.URL+failProcedure, opts...),
		jar, u,
	}
}

// home visits the page.
func (c *caller) home(t *testing.T) (string, error) {
	res, err := c.visit.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("home")))
	if err != nil {
		return "", err
	}
	return res.Msg.Value, nil
}

// What fails saves nothing with the protocol of connect, whose status is 500 then. That of gRPC is 200 in any case.
func TestConnect(t *testing.T) {
	for name, test := range map[string]struct {
		opts  []connect.ClientOption
		third string
	}{
		"connect":  {nil, "home: visit 3\n"},
		"gRPC-Web": {[]connect.ClientOption{connect.WithGRPCWeb()}, "home: visit 1001\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCaller(t, sessplus.Memory(), test.opts...)
			for _, want := range []string{"home: visit 1\n", "home: visit 2\n"} {
				if got, err := c.home(t); got != want {
					t.Errorf("a visit is answered %q, %v, want %q", got, err, want)
				}
			}
			_, err := c.fail.CallUnary(t.Context(), connect.NewRequest(&emptypb.Empty{}))
			if connect.CodeOf(err) != connect.CodeInternal {
				t.Errorf("what fails is answered %v, want an internal error", err)
			}
			if got, err := c.home(t); got != test.third {
				t.Errorf("the visit after what has failed is answered %q, %v, want %q", got, err, test.third)
			}
		})
	}
}

func TestConnectBackendDown(t *testing.T) {
	c := newCaller(t, downBackend{sessplus.Memory()})
	c.jar.SetCookies(c.url, []*http.Cookie{{Name: "session", Value: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}})
	if got, err := c.home(t); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("a visit is answered %q, %v, want that it is unavailable", got, err)
	}
}

package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/sessplus/sessplus"
)

// byUser is a manager that finds the sessions of a user.
func byUser() *sessplus.Manager {
	mgr, err := sessplus.New([]sessplus.Config{{CookieName: "session", Backend: sessplus.Memory(), IndexBy: "user"}}, nil)
	if err != nil {
		panic(err)
	}
	return mgr
}

// visit sends a request from a device with this User-Agent, and returns a function that sends another one from there.
func visit(mgr *sessplus.Manager, agent string, h http.HandlerFunc) (again func(h http.HandlerFunc)) {
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar}
	again = func(h http.HandlerFunc) {
		time.Sleep(2 * time.Millisecond) // so that no two are of the same millisecond
		server := httptest.NewServer(mgr.Handler(h))
		defer server.Close()
		req, _ := http.NewRequest("GET", server.URL, nil)
		req.Header.Set("User-Agent", agent)
		res, err := browser.Do(req)
		if err != nil {
			panic(err)
		}
		res.Body.Close()
	}
	again(h)
	return again
}

// printDevices prints where the user is logged in, the last used first.
func printDevices(mgr *sessplus.Manager, user string) {
	infos, err := mgr.Sessions(context.Background(), "session", user)
	if err != nil {
		fmt.Println(err)
	}
	for i, info := range infos {
		fmt.Printf("%d. %s\n", i+1, info.Device)
	}
}

func logInAnn(_ http.ResponseWriter, r *http.Request) {
	s := sessplus.Get(r)
	s.Renew("session")
	s.Set("user", "ann")
}

// A page "your devices" lists the sessions of a user, and marks the one it is shown in.
func ExampleManager_Sessions() {
	mgr := byUser()
	visit(mgr, "phone", logInAnn)
	visit(mgr, "laptop", logInAnn)(func(_ http.ResponseWriter, r *http.Request) {
		infos, err := mgr.Sessions(r.Context(), "session", "ann")
		if err != nil {
			fmt.Println(err)
		}
		for _, info := range infos {
			fmt.Println(info.Device, info.Handle == sessplus.Get(r).Handle("session"))
		}
	})
	// Output:
	// laptop true
	// phone false
}

// "Log out everywhere else": all sessions of the user but this one.
func ExampleManager_RevokeAll() {
	mgr := byUser()
	visit(mgr, "phone", logInAnn)
	visit(mgr, "tablet", logInAnn)
	visit(mgr, "laptop", logInAnn)(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(mgr.RevokeAll(r.Context(), "session", "ann", sessplus.Get(r).Handle("session")))
	})
	printDevices(mgr, "ann")
	// Output:
	// 2 <nil>
	// 1. laptop
}

// A demotion that all sessions of the user see at their next request.
func ExampleManager_Edit() {
	mgr := byUser()
	laptop := visit(mgr, "laptop", func(w http.ResponseWriter, r *http.Request) {
		logInAnn(w, r)
		sessplus.Get(r).Set("role", "admin")
	})
	ctx := context.Background()
	infos, err := mgr.Sessions(ctx, "session", "ann")
	if err != nil {
		fmt.Println(err)
	}
	for _, info := range infos {
		err := mgr.Edit(ctx, "session", info.Handle, func(s *sessplus.Session) error {
			s.Set("role", "guest")
			return nil
		})
		if err != nil && !errors.Is(err, sessplus.ErrSessionGone) { // which is as good
			fmt.Println(err)
		}
	}
	laptop(func(_ http.ResponseWriter, r *http.Request) { fmt.Println(sessplus.Get(r).Get("role")) })
	// Output:
	// guest
}

// At most so many sessions for each user: a login ends those that logged in longest ago. It counts after its own
// session is saved, so that of logins at the same time each sees the others.
func ExampleManager_Revoke_maxSessionsPerUser() {
	const maxSessionsPerUser = 3
	mgr := byUser()

	limit := func(r *http.Request, user string) error {
		s := sessplus.Get(r)
		if err := s.Save(); err != nil {
			return err
		}
		others, err := mgr.Sessions(r.Context(), "session", user)
		if err != nil {
			return err
		}
		others = slices.DeleteFunc(others, func(i sessplus.Info) bool { return i.Handle == s.Handle("session") })
		slices.SortFunc(others, func(a, b sessplus.Info) int { return b.Created.Compare(a.Created) })
		for _, oldest := range others[min(maxSessionsPerUser-1, len(others)):] {
			if err := mgr.Revoke(r.Context(), "session", oldest.Handle); err != nil {
				return err
			}
		}
		return nil
	}
	login := func(w http.ResponseWriter, r *http.Request) {
		logInAnn(w, r)
		if err := limit(r, "ann"); err != nil {
			http.Error(w, "Please try again.", http.StatusServiceUnavailable)
		}
	}

	phone := visit(mgr, "phone", login)
	for _, device := range []string{"tablet", "desktop", "laptop"} {
		visit(mgr, device, login)
	}
	printDevices(mgr, "ann")
	phone(func(_ http.ResponseWriter, r *http.Request) { fmt.Println("phone:", sessplus.Get(r).Fields()) })
	// Output:
	// 1. laptop
	// 2. desktop
	// 3. tablet
	// phone: []
}

// Devices that a user has not used for 30 days are logged out. [Config.IdleTimeout] does that by itself for a limit
// that all users share; this is for one that a user has chosen, or that a person enters. The field "seen" tells the
// last use to an hour; LastSaved would also tell of each [Manager.Edit].
func ExampleManager_Revoke_idleDevices() {
	const seen sessplus.Field[int64] = "seen" // Unix time
	mgr := byUser()
	now := time.Now()

	use := func(r *http.Request) { // with each request of somebody who is logged in
		if s := sessplus.Get(r); now.Unix()-seen.Get(s) >= 3600 {
			seen.Set(s, now.Unix())
		}
	}
	endIdle := func(ctx context.Context, user string, idle time.Duration) error {
		infos, err := mgr.Sessions(ctx, "session", user)
		if err != nil {
			return err
		}
		for _, info := range infos {
			last, ok := info.Fields["seen"].(int64)
			if !ok || now.Sub(time.Unix(last, 0)) <= idle {
				continue
			}
			if err := mgr.Revoke(ctx, "session", info.Handle); err != nil {
				return err
			}
		}
		return nil
	}

	visit(mgr, "old phone", func(w http.ResponseWriter, r *http.Request) {
		logInAnn(w, r)
		seen.Set(sessplus.Get(r), now.AddDate(0, 0, -31).Unix())
	})
	for _, device := range []string{"tablet", "laptop"} {
		visit(mgr, device, func(w http.ResponseWriter, r *http.Request) {
			logInAnn(w, r)
			seen.Set(sessplus.Get(r), now.AddDate(0, 0, -29).Unix())
			use(r)
		})
	}
	fmt.Println(endIdle(context.Background(), "ann", 30*24*time.Hour))
	printDevices(mgr, "ann")
	// Output:
	// <nil>
	// 1. laptop
	// 2. tablet
}

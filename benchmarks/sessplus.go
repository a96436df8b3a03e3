package main

import (
	"net/http"

	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
)

func openSessplus(e *env, s scenario) *app {
	return sessplusIn(newManager(e, sessplusConfigs(e, s)...), s)
}

// openSessplusPipeline is openSessplus inRedis, with a client that sends the commands of concurrent requests together.
func openSessplusPipeline(e *env, s scenario) *app {
	client, err := e.redis().AsyncAutoPipeline()
	e.must(err)
	return sessplusIn(newManager(e, sessplus.Config{CookieName: "session", Backend: sessplus.Redis(client)}), s)
}

// openSessplusCrowded is the same, for a client that does so while there are several.
func openSessplusCrowded(e *env, s scenario) *app {
	addr := e.redis().Options().Addr
	client := redis.NewClient(&redis.Options{Addr: addr, AutoPipelineOptions: &redis.AutoPipelineOptions{}})
	e.tb.Cleanup(func() { client.Close() })
	return sessplusIn(newManager(e, sessplus.Config{CookieName: "session", Backend: sessplus.Redis(client)}), s)
}

// sessplusIn is the app of a scenario with that manager.
func sessplusIn(m *sessplus.Manager, s scenario) *app {
	three := s.place == inThree
	var do func(k *sessplus.Session) bool
	switch s.do {
	case read:
		do = func(k *sessplus.Session) bool {
			return k.GetInt("user_id") == userID && (!three || k.GetString("csrf_token") == csrf && k.GetString("theme") == theme)
		}
	case change:
		do = func(k *sessplus.Session) bool {
			ok := k.GetInt("user_id") == userID
			if three {
				ok = ok && k.GetString("csrf_token") == csrf && k.GetString("theme") == theme
				k.Set("page", next())
			} else {
				k.Set("visits", next())
			}
			return ok
		}
	case readCSRF:
		do = func(k *sessplus.Session) bool { return k.GetString("csrf_token") == csrf }
	case create:
		do = func(k *sessplus.Session) bool {
			fillUser(k)
			return true
		}
	}
	a := sessplusApp(m, func(k *sessplus.Session) {
		fillUser(k)
		if three {
			k.Set("csrf_token", csrf)
			k.Set("theme", theme)
			k.Set("page", 0)
		}
		if s.place == inBig {
			for i, n := range notes {
				k.Set(noteNames[i], n)
			}
		}
	}, do)
	a.show = func(w http.ResponseWriter, r *http.Request, st *state) (err error) {
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			k := sessplus.Get(r)
			st.UserID, st.Name, st.Visits, st.Plan = k.GetInt("user_id"), k.GetString("name"), k.GetInt("visits"), k.GetString("plan")
			st.CSRF, st.Theme, st.Page = k.GetString("csrf_token"), k.GetString("theme"), k.GetInt("page")
			for _, n := range noteNames {
				st.Notes += len(k.GetString(n))
			}
			err = k.Err()
		})).ServeHTTP(w, r)
		return err
	}
	return a
}

// sessplusApp has a login that fills a session, and a handler that does something with it, or nothing for nil.
func sessplusApp(m *sessplus.Manager, fill func(k *sessplus.Session), do func(k *sessplus.Session) bool) *app {
	return &app{
		login: func(w http.ResponseWriter, r *http.Request) (err error) {
			m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				k := sessplus.Get(r)
				fill(k)
				err = k.Save()
			})).ServeHTTP(w, r)
			return err
		},
		serve: m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer(w, do == nil || do(sessplus.Get(r)))
		})),
	}
}

func fillUser(k *sessplus.Session) {
	k.Set("user_id", userID)
	k.Set("name", name)
	k.Set("visits", 0)
	k.Set("plan", plan)
}

func newManager(e *env, configs ...sessplus.Config) *sessplus.Manager {
	m, err := sessplus.New(configs, &sessplus.Options{Keys: []sessplus.KeyPair{{Hash: hashKey, Block: blockKey}}})
	e.must(err)
	return m
}

func sessplusConfigs(e *env, s scenario) []sessplus.Config {
	switch s.place {
	case inRedis:
		return []sessplus.Config{{CookieName: "session", Backend: sessplus.Redis(e.redis()), Lazy: s.do == untouched}}
	case inBig: // what is large has a record of its own, for the requests that need it
		backend := sessplus.Redis(e.redis())
		return []sessplus.Config{
			{CookieName: "session", Fields: sessplus.Include("user_id", "name", "visits", "plan"), Backend: backend},
			{CookieName: "notes", Fields: sessplus.Auto(), Backend: backend, Lazy: true},
		}
	case inFirestore:
		return []sessplus.Config{{CookieName: "session", Backend: sessplus.Firestore(e.firestore(), "sessions")}}
	case inSQLite, inPostgres:
		return []sessplus.Config{{CookieName: "session", Backend: e.sqlBackend(s.place)}}
	case inMemory:
		return []sessplus.Config{{CookieName: "session", Backend: sessplus.Memory()}}
	case inThree:
		return []sessplus.Config{
			{CookieName: "csrf", Fields: sessplus.Include("csrf_token")},
			{CookieName: "session", Fields: sessplus.Include("user_id", "name", "visits", "plan"),
				Backend: sessplus.Redis(e.redis()), Lazy: s.do == readCSRF},
			{CookieName: "prefs", Fields: sessplus.Auto()},
		}
	}
	return []sessplus.Config{{CookieName: "session"}}
}

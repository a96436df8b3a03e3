package main

import (
	"context"
	"net/http"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// openSCS keeps all fields of inThree in one session of Redis: scs has neither cookie sessions nor several backends.
func openSCS(e *env, s scenario) *app {
	m := scs.New()
	m.Lifetime = lifetime
	switch s.place {
	case inRedis, inBig, inThree:
		m.Store = goredisstore.New(e.redis())
	case inFirestore:
		m.Store = &scsFirestore{e.firestore().Collection("scs")}
	case inMemory:
		m.Store = memstore.NewWithCleanupInterval(0)
	case inSQLite, inPostgres:
		m.Store = e.scsSQL(s.place)
	default:
		return nil
	}
	three := s.place == inThree
	var do func(ctx context.Context) bool
	switch s.do {
	case read:
		do = func(ctx context.Context) bool {
			return m.GetInt(ctx, "user_id") == userID &&
				(!three || m.GetString(ctx, "csrf_token") == csrf && m.GetString(ctx, "theme") == theme)
		}
	case change:
		do = func(ctx context.Context) bool {
			ok := m.GetInt(ctx, "user_id") == userID
			if three {
				ok = ok && m.GetString(ctx, "csrf_token") == csrf && m.GetString(ctx, "theme") == theme
				m.Put(ctx, "page", next())
			} else {
				m.Put(ctx, "visits", next())
			}
			return ok
		}
	case readCSRF:
		do = func(ctx context.Context) bool { return m.GetString(ctx, "csrf_token") == csrf }
	case create:
		do = func(ctx context.Context) bool {
			m.Put(ctx, "user_id", userID)
			m.Put(ctx, "name", name)
			m.Put(ctx, "visits", 0)
			m.Put(ctx, "plan", plan)
			return true
		}
	}
	a := &app{serve: m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, do == nil || do(r.Context()))
	}))}
	a.login = func(w http.ResponseWriter, r *http.Request) error {
		m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			m.Put(ctx, "user_id", userID)
			m.Put(ctx, "name", name)
			m.Put(ctx, "visits", 0)
			m.Put(ctx, "plan", plan)
			if three {
				m.Put(ctx, "csrf_token", csrf)
				m.Put(ctx, "theme", theme)
				m.Put(ctx, "page", 0)
			}
			if s.place == inBig {
				for i, n := range notes {
					m.Put(ctx, noteNames[i], n)
				}
			}
		})).ServeHTTP(w, r)
		return nil
	}
	a.show = func(w http.ResponseWriter, r *http.Request, st *state) error {
		m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			st.UserID, st.Name = m.GetInt(ctx, "user_id"), m.GetString(ctx, "name")
			st.Visits, st.Plan = m.GetInt(ctx, "visits"), m.GetString(ctx, "plan")
			st.CSRF, st.Theme, st.Page = m.GetString(ctx, "csrf_token"), m.GetString(ctx, "theme"), m.GetInt(ctx, "page")
			for _, n := range noteNames {
				st.Notes += len(m.GetString(ctx, n))
			}
		})).ServeHTTP(w, r)
		return nil
	}
	return a
}

// scsFirestore is a store of scs with a document per session: what scs gives it, and when that expires.
type scsFirestore struct{ sessions *firestore.CollectionRef }

type scsDocument struct {
	Data    []byte    `firestore:"data"`
	Expires time.Time `firestore:"expires"`
}

func (f *scsFirestore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	snap, err := f.sessions.Doc(token).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return nil, false, nil
	}
	var doc scsDocument
	if err == nil {
		err = snap.DataTo(&doc)
	}
	if err != nil || !doc.Expires.After(time.Now()) {
		return nil, false, err
	}
	return doc.Data, true, nil
}

func (f *scsFirestore) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	_, err := f.sessions.Doc(token).Set(ctx, scsDocument{b, expiry})
	return err
}

func (f *scsFirestore) DeleteCtx(ctx context.Context, token string) error {
	_, err := f.sessions.Doc(token).Delete(ctx)
	return err
}

// The methods without a context are those of [scs.Store], which [scs.CtxStore] embeds.

func (f *scsFirestore) Find(token string) ([]byte, bool, error) {
	return f.FindCtx(context.Background(), token)
}

func (f *scsFirestore) Commit(token string, b []byte, expiry time.Time) error {
	return f.CommitCtx(context.Background(), token, b, expiry)
}

func (f *scsFirestore) Delete(token string) error { return f.DeleteCtx(context.Background(), token) }

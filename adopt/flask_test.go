package adopt_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
	"github.com/sessplus/sessplus/internal/servers"
)

// flaskSample is what testdata/flaskcookies.py has made with Flask and itsdangerous.
type flaskSample struct{ Secret, Cookie, Small, SID string }

func readFlask(t testing.TB) (s flaskSample) {
	t.Helper()
	data, err := os.ReadFile("testdata/flask.json")
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Cookies as flask-session-plus makes them are read, compressed or not, with all types that Flask knows (SPEC 12.5).
func TestFlaskCookies(t *testing.T) {
	s := readFlask(t)
	if s.Cookie[0] != '.' || s.Small[0] == '.' {
		t.Fatal("want one sample that is compressed, and one that is not")
	}
	for value, want := range map[string]*sessplus.Imported{
		s.Small: {Fields: map[string]any{"user_id": int64(42)}},
		s.Cookie: {Permanent: true, Fields: map[string]any{
			"user_id": int64(42), "large": uint64(1 << 63), "huge": json.Number("1180591620717411303424"), "negative": int64(-1),
			"share": 0.5, "name": "Zoë", "admin": true, "nothing": nil, "raw": []byte{0, 255}, "at": at, "html": "<b>",
			"pair": []any{int64(1), []any{"a", []byte("x")}}, "id": "6fa459ea-ee8a-3ca4-894e-db77e160355e",
			"looks": map[string]any{" t": []any{int64(1)}}, "prefs": map[string]any{"dark": map[string]any{"at": int64(1)}},
			"_flashes": []any{[]any{"message", "saved"}},
		}},
		".eJyrVqpQslJKHCZAqRYAn1xN-w.awft4g.LM3CcR5f7oNXjr6zWObfmPkwEUbsSocIShrwOW2CAkY": {
			Fields: map[string]any{"x": strings.Repeat("a", 200)},
		},
	} {
		got, err := adopt.FlaskSessionPlus("top secret", nil).Import(ctx, "session", value)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %#v,\nwant %#v", got, want)
		}
	}
}

// What is not signed with this secret, or older than MaxAge, is no session (SPEC 6.4).
func TestFlaskCookiesRefused(t *testing.T) {
	s := readFlask(t)
	i := adopt.FlaskSessionPlus(s.Secret, nil)
	parts := strings.Split(s.Small, ".")
	for what, value := range map[string]string{
		"an empty value":         "",
		"dots":                   "...",
		"truncated":              s.Cookie[:len(s.Cookie)-1],
		"without signature":      parts[0] + "." + parts[1],
		"another payload":        "e30." + parts[1] + "." + parts[2],
		"another time":           parts[0] + ".AAAA." + parts[2],
		"a signed id":            s.SID,
		"a cookie of 5 kB":       strings.Repeat("A", 5000) + "." + parts[1] + "." + parts[2],
		"compressed by a dot":    "." + s.Small,
		"a signature with bytes": s.Small + "=",
	} {
		_, err := i.Import(ctx, "session", value)
		wantNone(t, what, err, s.Small, s.Cookie)
	}
	_, err := adopt.FlaskSessionPlus("other secret", nil).Import(ctx, "session", s.Small)
	wantNone(t, "another secret", err, s.Small)
	_, err = adopt.FlaskSessionPlus(s.Secret, &adopt.Options{MaxAge: time.Nanosecond}).Import(ctx, "session", s.Small)
	wantNone(t, "older than MaxAge", err, s.Small)
	got, err := adopt.FlaskSessionPlus(s.Secret, &adopt.Options{MaxAge: 100 * 365 * 24 * time.Hour}).Import(ctx, "session", s.Small)
	if err != nil || time.Until(got.Expires) < 90*365*24*time.Hour {
		t.Errorf("a cookie with an end: %+v, %v", got, err)
	}
}

// Sessions of flask-session-plus in Firestore are read, with their end, and forgotten; ids of another form never
// reach the store (SPEC 12.5).
func TestFlaskFirestore(t *testing.T) {
	s, c := readFlask(t), servers.Firestore(t)
	id, _, _ := strings.Cut(s.SID, ".")
	expires := time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC()
	put := func(collection, name string, fields map[string]any) {
		t.Helper()
		if _, err := c.Collection(collection).Doc(name).Set(ctx, fields); err != nil {
			t.Fatal(err)
		}
	}
	full := map[string]any{
		"_expiration": expires, "_permanent": true, "user_id": 42, "name": "Zoë", "raw": []byte{0, 255}, "at": at, "share": 0.5,
		"prefs": map[string]any{"dark": true}, "list": []any{1, "a"}, "nothing": nil,
		"other": c.Collection("x").Doc("y"),
	}
	want := map[string]any{
		"user_id": int64(42), "name": "Zoë", "raw": []byte{0, 255}, "at": at, "share": 0.5, "prefs": map[string]any{"dark": true},
		"list": []any{int64(1), "a"}, "nothing": nil,
	}
	for what, test := range map[string]struct {
		secret, value, name string
		o                   adopt.Options
	}{
		"plain":       {"", id, "session" + id, adopt.Options{}},
		"signed":      {s.Secret, s.SID, "session" + id, adopt.Options{}},
		"with prefix": {"", id, "shop-" + id, adopt.Options{Prefix: "shop-"}},
	} {
		t.Run(what, func(t *testing.T) {
			put(what, test.name, full)
			o := test.o
			i := adopt.FlaskFirestore(c, what, test.secret, &o)
			got, err := i.Import(ctx, "session", test.value)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := got.Fields["other"].(error); !ok {
				t.Errorf("other = %v, want an error", got.Fields["other"])
			}
			delete(got.Fields, "other")
			if !reflect.DeepEqual(got.Fields, want) || !got.Expires.Equal(expires) || !got.Permanent {
				t.Errorf("got %#v,\nwant %#v", got, want)
			}
			keep := test.o
			keep.Keep = true
			if kept, err := adopt.FlaskFirestore(c, what, test.secret, &keep).Import(ctx, "session", test.value); err != nil || kept.Forget != nil {
				t.Errorf("with Keep: %+v, %v", kept, err)
			}
			for range 2 {
				if err := got.Forget(ctx); err != nil {
					t.Fatal(err)
				}
			}
			_, err = i.Import(ctx, "session", test.value)
			wantNone(t, "after Forget", err, id)
		})
	}
	put("refused", "session"+id, map[string]any{"_expiration": time.Now().Add(-time.Second), "user_id": 42})
	_, err := adopt.FlaskFirestore(c, "refused", "", nil).Import(ctx, "session", id)
	wantNone(t, "expired", err, id)
	put("refused", "session"+id, map[string]any{"_expiration": "tomorrow", "user_id": 42})
	_, err = adopt.FlaskFirestore(c, "refused", "", nil).Import(ctx, "session", id)
	wantNone(t, "without a time", err, id)
	put("refused", "session"+id, full)
	for what, value := range map[string]string{
		"an unsigned id":     id,
		"another signature":  id + ".h8h47dayaBgAEtJEpHeu4cyhAUA",
		"no id":              ".h8h47dayaBgAEtJEpHeu4cyhAUo",
		"something unlikely": "../../session" + id,
	} {
		_, err := adopt.FlaskFirestore(c, "refused", s.Secret, nil).Import(ctx, "session", value)
		wantNone(t, what, err, id)
	}
	for _, value := range []string{"", "x", id + "/a/b", strings.ToUpper(id), s.SID} {
		_, err := adopt.FlaskFirestore(c, "refused", "", nil).Import(ctx, "session", value)
		wantNone(t, "an id of another form", err, id)
	}
	if _, err := adopt.FlaskFirestore(c, "a/b", "", nil).Import(ctx, "session", id); err == nil || errors.Is(err, sessplus.ErrNoRecord) {
		t.Errorf("a collection that is none: %v", err)
	}
}

// A Firestore that does not answer logs nobody out, and its error does not hold the id (SPEC 6.1, SPEC 7.3).
func TestFlaskFirestoreDown(t *testing.T) {
	s := readFlask(t)
	id, _, _ := strings.Cut(s.SID, ".")
	process, addr := servers.NewFirestoreEmulator(t)
	c := servers.FirestoreClient(t, addr)
	process.Kill()
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := adopt.FlaskFirestore(c, "sessions", "", nil).Import(short, "session", id)
	if err == nil || errors.Is(err, sessplus.ErrNoRecord) {
		t.Errorf("the error is %v", err)
	}
	wantSecret(t, "an outage", err, id)
}

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	goredis "github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/adopt"
	"github.com/sessplus/sessplus/internal/servers"
	"google.golang.org/genproto/googleapis/type/latlng"
)

// flaskSamples are visitors of two Flask programs, as ../testdata/flaskvisitors.py has seen them: some whose sessions
// are documents, and the Cookies of others, which hold their sessions.
type flaskSamples struct {
	Secret   string
	Cookies  []string
	Visitors []struct {
		Cookie, Document string
		Fields           json.RawMessage
	}
}

func readFlask(t *testing.T) (s flaskSamples) {
	t.Helper()
	data, err := os.ReadFile("../testdata/flaskvisitors.json")
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// putDocument writes a document of the collection "sessions", whose fields are as they go over the wire.
func putDocument(c *firestore.Client, addr, name string, fields json.RawMessage) error {
	body, err := json.Marshal(map[string]any{"fields": fields})
	if err != nil {
		return err
	}
	url := "http://" + addr + "/v1/" + c.Collection("sessions").Doc(name).Path
	r, err := http.NewRequest("PATCH", url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer owner")
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the emulator answers %s", res.Status)
	}
	return nil
}

// flaskPlus is the Flask program, with the visitors and documents of the samples. open and importer share its store.
func flaskPlus() former {
	var c *firestore.Client
	return former{name: "flask-firestore", store: true,
		open: func(t *testing.T, _ *goredis.Client) http.Handler {
			s, addr := readFlask(t), servers.FirestoreAddr(t)
			c = servers.Firestore(t)
			var visitors atomic.Int64
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/login" {
					v := s.Visitors[int(visitors.Add(1)-1)%len(s.Visitors)]
					if err := putDocument(c, addr, v.Document, v.Fields); err != nil {
						http.Error(w, err.Error(), http.StatusInternalServerError)
						return
					}
					http.SetCookie(w, &http.Cookie{Name: "session", Value: v.Cookie, Path: "/"})
					return
				}
				k, err := r.Cookie("session")
				if err != nil {
					who(w, nil)
					return
				}
				id, _, _ := strings.Cut(k.Value, ".")
				doc, err := c.Collection("sessions").Doc("session" + id).Get(r.Context())
				if err != nil {
					who(w, nil)
					return
				}
				if r.URL.Path == "/visit" { // that library sets the cookie in each response
					http.SetCookie(w, &http.Cookie{Name: "session", Value: k.Value, Path: "/"})
				}
				who(w, doc.Data()["user_id"])
			})
		},
		importer: func(t *testing.T, _ *goredis.Client, o *adopt.Options, _ [][]byte) sessplus.Importer {
			return adopt.FlaskFirestore(c, "sessions", readFlask(t).Secret, o)
		},
	}
}

// flaskCookies is the Flask program with secure cookies. It is not run here: it knows its visitors by their cookies.
var flaskCookies = former{name: "flask-cookie",
	open: func(t *testing.T, _ *goredis.Client) http.Handler {
		cookies := readFlask(t).Cookies
		var visitors atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				value := cookies[int(visitors.Add(1)-1)%len(cookies)]
				http.SetCookie(w, &http.Cookie{Name: "session", Value: value, Path: "/"})
				return
			}
			if k, err := r.Cookie("session"); err == nil && slices.Contains(cookies, k.Value) {
				who(w, 42)
				return
			}
			who(w, nil)
		})
	},
	importer: func(t *testing.T, _ *goredis.Client, o *adopt.Options, _ [][]byte) sessplus.Importer {
		return adopt.FlaskSessionPlus(readFlask(t).Secret, o)
	},
}

// What flask-session-plus has stored in Firestore and in cookies is read with its types, and with the end that it has
// in Firestore (SPEC 12.5).
func TestFlaskVisitors(t *testing.T) {
	s, addr, c := readFlask(t), servers.FirestoreAddr(t), servers.Firestore(t)
	fromFirestore := adopt.FlaskFirestore(c, "sessions", s.Secret, nil)
	fromCookie := adopt.FlaskSessionPlus(s.Secret, nil)
	for n, v := range s.Visitors {
		if err := putDocument(c, addr, v.Document, v.Fields); err != nil {
			t.Fatal(err)
		}
		want := &sessplus.Imported{Permanent: true, Fields: map[string]any{
			"user_id": int64(42), "name": fmt.Sprint("Zoë ", n), "raw": []byte{0, 255}, "at": at, "share": 0.5,
			"cart": map[string]any{"items": []any{"tea", int64(1)}}, "nothing": nil,
		}}
		got, err := fromFirestore.Import(t.Context(), "session", v.Cookie)
		if err != nil {
			t.Fatal(err)
		}
		if got.Expires.Year() != 2126 {
			t.Errorf("from Firestore: it ends at %v", got.Expires)
		}
		got.Expires, got.Forget = time.Time{}, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("from Firestore: got %+v,\nwant %+v", got, want)
		}
		if got, err = fromCookie.Import(t.Context(), "session", s.Cookies[n]); err != nil {
			t.Fatal(err)
		}
		want.Permanent = false // it does not say
		if !reflect.DeepEqual(got, want) {
			t.Errorf("from a cookie: got %+v,\nwant %+v", got, want)
		}
	}
}

// A geopoint, which has no place in a session, costs its field.
func TestFlaskFirestoreGeopoint(t *testing.T) {
	c := servers.Firestore(t)
	id := "6fa459ea-ee8a-3ca4-894e-db77e160355e"
	if _, err := c.Collection("sessions").Doc("session"+id).Set(t.Context(), map[string]any{
		"_expiration": at.AddDate(100, 0, 0), "place": &latlng.LatLng{Latitude: 1}, "user_id": 42,
	}); err != nil {
		t.Fatal(err)
	}
	got, err := adopt.FlaskFirestore(c, "sessions", "", nil).Import(t.Context(), "session", id)
	if err != nil {
		t.Fatal(err)
	}
	if lost, _ := got.Fields["place"].(error); lost == nil || !strings.Contains(lost.Error(), "LatLng") || got.Fields["user_id"] != int64(42) {
		t.Errorf("the fields are %v", got.Fields)
	}
}

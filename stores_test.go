package sessplus_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/redis/go-redis/v9"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A store is a recorder with a client to look behind it.
type store struct {
	recorder
	rdb   *redis.Client
	fs    *firestore.Client
	trips []string // what was sent to Redis since the calls were last asked for, a line per round trip
}

func (s *store) ops() []string {
	s.mu.Lock()
	s.trips = nil
	s.mu.Unlock()
	return s.recorder.ops()
}

func (s *store) noteTrip(cmds ...redis.Cmder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trips = append(s.trips, fmt.Sprint(cmds))
}

// everyKeyExpires ends each test on a store in Redis (SPEC 3.5).
func (s *store) everyKeyExpires(t *testing.T) {
	ctx := context.Background()
	for key := range s.text(t) {
		ttl, err := s.rdb.PTTL(ctx, key).Result()
		if err == nil && ttl == -1 {
			t.Errorf("PTTL(%q) = none, want one", key)
		}
		if r, err := s.Backend.Load(ctx, key); err == nil && (ttl-time.Until(r.Expires)).Abs() > 2*time.Second {
			t.Errorf("PTTL(%q) = %v, want what the record says, %v", key, ttl, time.Until(r.Expires))
		}
	}
}

// text returns all that the store holds, as text by key, but the traces of records that have ended.
func (s *store) text(t *testing.T) map[string]string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	all := make(map[string]string)
	switch {
	case s.rdb != nil:
		keys, err := s.rdb.Keys(ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if hash := s.rdb.HGetAll(ctx, key).Val(); !strings.HasPrefix(hash[":mark"], "e ") {
				all[key] = fmt.Sprint(hash)
			}
		}
	case s.fs != nil:
		docs, err := s.fs.Collection("sessions").Documents(ctx).GetAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if mark, _ := d.Data()["mark"].(string); !strings.HasPrefix(mark, "e ") {
				all[d.Ref.ID] = fmt.Sprint(d.Data())
			}
		}
	default:
		s.mu.Lock()
		keys := slices.Clone(s.keys)
		s.mu.Unlock()
		for _, key := range keys {
			if r, err := s.Backend.Load(ctx, key); err == nil {
				text := fmt.Sprint(r.Created, r.Saved, r.Expires, r.Permanent, r.Version)
				for _, f := range r.Fields {
					text += " " + f.Name + ":" + string(f.Value)
				}
				all[key] = text
			}
		}
	}
	return all
}

var stores = []struct {
	name string
	open func(t *testing.T) *store
}{
	{"memory", func(*testing.T) *store { return &store{recorder: recorder{Backend: sessplus.Memory()}} }},
	{"redis", func(t *testing.T) *store {
		plain := servers.Redis(t)
		s := &store{rdb: plain}
		hooked := redis.NewClient(&redis.Options{Addr: plain.Options().Addr, DB: plain.Options().DB})
		t.Cleanup(func() { hooked.Close() })
		hooked.AddHook(tripHook(s.noteTrip))
		s.Backend = sessplus.Redis(hooked)
		t.Cleanup(func() { s.everyKeyExpires(t) })
		return s
	}},
	{"firestore", func(t *testing.T) *store {
		client := servers.Firestore(t)
		return &store{recorder: recorder{Backend: sessplus.Firestore(client, "sessions")}, fs: client}
	}},
}

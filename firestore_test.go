package sessplus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// SPEC 6.2, 6.8: the end of an old record is made and not answered within the Timeout. The renewal is undone, the
// visitor keeps the session, and no goroutine is left.
func TestFirestoreThatHangsAtTheEndOfARenewal(t *testing.T) {
	addr := servers.FirestoreAddr(t)
	fake := newFakeFirestore(t, addr)
	b := sessplus.Firestore(servers.FirestoreAt(t, fake.addr, servers.NewProject()), "sessions")
	c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: time.Second}, sessplus.Config{CookieName: "s", Backend: b}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	ended := false
	fake.before(func(ctx context.Context, r *firestorepb.CommitRequest) error {
		if mark := r.Writes[0].GetUpdate().GetFields()["mark"].GetStringValue(); ended || !strings.HasPrefix(mark, "e ") {
			return nil
		}
		ended = true
		if _, err := fake.to.Commit(passOn(ctx), r); err != nil {
			t.Errorf("Commit() = %v", err)
		}
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	})
	answer := c.askWith(c.client, func(s *sessplus.Session) { s.Set("user", "bob"); s.Renew() })
	if answer.StatusCode != 503 || !ended {
		t.Errorf("status = %d, ended = %t, want 503 after an end", answer.StatusCode, ended)
	}
	if left := libraryGoroutines(t); len(left) > 0 {
		settle(t)
	}
	c.mustAsk(c.client, wantUser(t, "ann"))
}

// fakeFirestore stands before the emulator, and may answer a Commit itself.
type fakeFirestore struct {
	firestorepb.UnimplementedFirestoreServer
	addr string
	to   firestorepb.FirestoreClient

	mu     sync.Mutex
	answer func(context.Context, *firestorepb.CommitRequest) error
}

func newFakeFirestore(t *testing.T, target string) *fakeFirestore {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeFirestore{addr: l.Addr().String(), to: firestorepb.NewFirestoreClient(conn)}
	server := grpc.NewServer()
	firestorepb.RegisterFirestoreServer(server, f)
	go server.Serve(l)
	t.Cleanup(func() { server.Stop(); conn.Close() })
	return f
}

// before lets answer have the first look at what is to be committed.
func (f *fakeFirestore) before(answer func(context.Context, *firestorepb.CommitRequest) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func passOn(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer owner",
		"google-cloud-resource-prefix", strings.Join(md.Get("google-cloud-resource-prefix"), "")))
}

func (f *fakeFirestore) Commit(ctx context.Context, r *firestorepb.CommitRequest) (*firestorepb.CommitResponse, error) {
	f.mu.Lock()
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		if err := answer(ctx, r); err != nil {
			return nil, err
		}
	}
	return f.to.Commit(passOn(ctx), r)
}

func (f *fakeFirestore) BatchGetDocuments(r *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
	in, err := f.to.BatchGetDocuments(passOn(out.Context()), r)
	for err == nil {
		var m *firestorepb.BatchGetDocumentsResponse
		if m, err = in.Recv(); err == nil {
			err = out.Send(m)
		}
	}
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// SPEC 6.7: a Firestore ABORTED or UNAVAILABLE is retried within the timeout.
func TestFirestoreAnswersAbortedOnce(t *testing.T) {
	t.Parallel()
	addr := servers.FirestoreAddr(t)
	for _, code := range []codes.Code{codes.Aborted, codes.Unavailable} {
		for name, f := range map[string]func(*sessplus.Session){
			"create":  func(s *sessplus.Session) { s.Destroy(); s.Set("user", "bob") },
			"save":    func(s *sessplus.Session) { s.Set("user", "bob") },
			"update":  func(s *sessplus.Session) { counter.Update(s, increment) },
			"renew":   func(s *sessplus.Session) { s.Renew() },
			"destroy": func(s *sessplus.Session) { s.Destroy() },
		} {
			t.Run(fmt.Sprint(code, " at ", name), func(t *testing.T) {
				fake := newFakeFirestore(t, addr)
				b := sessplus.Firestore(servers.FirestoreAt(t, fake.addr, servers.NewProject()), "sessions")
				c := newCrowd(t, newManager(t, &sessplus.Options{Timeout: 20 * time.Second}, sessplus.Config{CookieName: "s", Backend: b}))
				c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
				var mu sync.Mutex
				seen := make(map[string]bool)
				fake.before(func(_ context.Context, r *firestorepb.CommitRequest) error {
					what := fmt.Sprintf("%T of %s", r.Writes[0].Operation, r.Writes[0].GetUpdate().GetName()+r.Writes[0].GetDelete())
					mu.Lock()
					defer mu.Unlock()
					if seen[what] {
						return nil
					}
					seen[what] = true
					return status.Error(code, "too much contention on these documents")
				})
				if answer := c.askWith(c.client, f); answer.StatusCode != http.StatusOK {
					t.Errorf("status = %d, want 200", answer.StatusCode)
				}
				if len(seen) == 0 {
					t.Error("nothing was committed")
				}
			})
		}
	}
}

// SPEC 6.9, 7.3: what Firestore says of a document and its fields goes nowhere.
func TestFirestoreErrorsQuoteNothing(t *testing.T) {
	t.Parallel()
	fake := newFakeFirestore(t, servers.FirestoreAddr(t))
	b := sessplus.Firestore(servers.FirestoreAt(t, fake.addr, servers.NewProject()), "sessions")
	for _, code := range []codes.Code{codes.InvalidArgument, codes.PermissionDenied, codes.Internal, codes.Unknown} {
		fake.before(func(_ context.Context, r *firestorepb.CommitRequest) error {
			return status.Errorf(code, "cannot take %v", r)
		})
		var j journal
		c := newCrowd(t, newManager(t, j.options(2*time.Second), sessplus.Config{CookieName: "s", Backend: b}))
		var text string
		answer := c.askWith(c.client, func(s *sessplus.Session) {
			s.Set("user", "s3cr3t-value")
			text = chain(s.Save())
		})
		if answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: status = %d, want 503", code, answer.StatusCode)
		}
		if text += j.text() + answer.body; strings.Contains(text, "s3cr3t-value") || strings.Contains(text, "documents/sessions") || !strings.Contains(text, code.String()) {
			t.Errorf("%s: the error shows what it should not, or not what it should: %s", code, text)
		}
	}
}

// SPEC 6.6: a record that Firestore has no room for is too large, and not an outage; the old one stays.
func TestTooLargeForFirestore(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, newManager(t, nil, sessplus.Config{CookieName: "s", Backend: sessplus.Firestore(servers.Firestore(t), "sessions")}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	for name, fields := range map[string]map[string]int{
		"one value":          {"a": 1_048_490},
		"a larger one":       {"a": 2 << 20},
		"much larger":        {"a": 9 << 20},
		"together":           {"a": 600_000, "b": 600_000},
		"with what is there": {"a": 1_048_400},
	} {
		start := time.Now()
		for _, client := range []*http.Client{c.client, c.visitor()} {
			answer := c.askWith(client, func(s *sessplus.Session) {
				for field, size := range fields {
					s.Set(field, strings.Repeat("x", size-2))
				}
				if err := s.Save(); !errors.Is(err, sessplus.ErrTooLarge) || errors.Is(err, sessplus.ErrUnavailable) {
					t.Errorf("%s: Save() = %v, want ErrTooLarge", name, err)
				}
			})
			if answer.StatusCode != 500 {
				t.Errorf("%s: status = %d, want 500", name, answer.StatusCode)
			}
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	c.mustAsk(c.client, wantUser(t, "ann"))
}

// SPEC 4.3: several at once create the record of a key whose former record has expired, and one of them does.
func TestFirestoreCreatesOverAnExpiredRecord(t *testing.T) {
	t.Parallel()
	b := sessplus.Firestore(servers.Firestore(t), "sessions")
	for round := range 20 {
		key := fmt.Sprintf("session:s:%d", round)
		now := time.Now()
		if err := b.Create(t.Context(), key, &sessplus.Record{Created: now, Saved: now, Expires: now.Add(-time.Second)}); err != nil {
			t.Fatal(err)
		}
		var created atomic.Int32
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				err := b.Create(t.Context(), key, &sessplus.Record{Created: now, Saved: now, Expires: now.Add(time.Hour)})
				if err == nil {
					created.Add(1)
				} else if !errors.Is(err, sessplus.ErrRecordExists) {
					t.Errorf("Create() = %v, want nil or ErrRecordExists", err)
				}
			})
		}
		if wg.Wait(); created.Load() != 1 {
			t.Errorf("%d of 6 have created the record", created.Load())
		}
	}
}

// SPEC 4.5: the client library repeats a commit whose answer is lost, and finds that the document has changed.
func TestFirestoreLosesTheAnswerToAnUpdateOfAnEmptySession(t *testing.T) {
	t.Parallel()
	fake := newFakeFirestore(t, servers.FirestoreAddr(t))
	b := sessplus.Firestore(servers.FirestoreAt(t, fake.addr, servers.NewProject()), "sessions")
	now := time.Now()
	if err := b.Create(t.Context(), "session:s:k", &sessplus.Record{Created: now, Saved: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	lost := false
	fake.before(func(ctx context.Context, r *firestorepb.CommitRequest) error {
		if lost {
			return nil
		}
		lost = true
		if _, err := fake.to.Commit(passOn(ctx), r); err != nil {
			t.Errorf("Commit() = %v", err)
		}
		return status.Error(codes.Unavailable, "the answer is lost")
	})
	field := sessplus.RawField{Name: "n", Value: []byte("1")}
	result, err := b.Update(t.Context(), "session:s:k", &sessplus.Change{
		Set: []sessplus.RawField{field}, Match: []sessplus.RawField{{Name: "n"}}, Now: now, Expires: now.Add(time.Hour),
	})
	if err != nil || !lost || !result.Refilled {
		t.Errorf("Update() = %+v, %v after a lost answer: %t; want Refilled", result, err, lost)
	}
}

package sessplus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/internal/servers"
)

// A machine whose clock is fast says so, and does not end sessions without a word.
func TestClockThatIsFastIsToldOf(t *testing.T) {
	t.Parallel()
	r := servers.Redis(t)
	var j journal
	b := &recorder{Backend: sessplus.Redis(r)}
	c := newCrowd(t, newManager(t, j.options(0), sessplus.Config{CookieName: "s", Backend: b, IdleTimeout: time.Minute}))
	c.mustAsk(c.client, func(s *sessplus.Session) { s.Set("user", "ann") })
	// As if this machine were two minutes ahead of the one that wrote the record.
	r.HSet(t.Context(), b.keys[0], ":expires", time.Now().Add(-time.Minute).UnixMilli())
	c.mustAsk(c.client, func(s *sessplus.Session) {
		if s.Has("user") {
			t.Error("a record that has expired is read")
		}
	})
	if log := j.text(); !strings.Contains(log, "by the clock of this machine it has expired, by that of Redis it has not") {
		t.Errorf("the log says %q", log)
	}
}

// A machine whose clock is slow gets an error, in place of visitors whose sessions end at once.
func TestClockThatIsSlowIsAnError(t *testing.T) {
	t.Parallel()
	r := servers.Redis(t)
	b := sessplus.Redis(r)
	past := time.Now().Add(-2 * time.Minute)
	err := b.Create(t.Context(), "session:s:slow", &sessplus.Record{Created: past, Saved: past, Expires: past.Add(time.Minute),
		Fields: []sessplus.RawField{{Name: "user", Value: []byte(`"ann"`)}}})
	if err == nil || !strings.Contains(err.Error(), "the clock of this machine is slow") {
		t.Errorf("Create = %v", err)
	}
	if err := b.Create(t.Context(), "session:s:short", &sessplus.Record{Created: past, Saved: past, Expires: time.Now().Add(time.Nanosecond)}); err != nil {
		t.Errorf("a very short lifetime: Create = %v", err)
	}
}

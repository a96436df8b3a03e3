package sessplus_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/sessplustest"
)

func TestDirectory(t *testing.T) {
	t.Parallel()
	sessplustest.TestBackend(t, func(t *testing.T) sessplus.Backend {
		backend, err := OpenDirectory(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return backend
	})
}

func TestDirectorySweep(t *testing.T) {
	t.Parallel()
	backend, err := OpenDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for key, expires := range map[string]time.Time{"expired": now.Add(-time.Minute), "live": now.Add(time.Hour)} {
		if err := backend.Create(t.Context(), key, &sessplus.Record{Created: now, Saved: now, Expires: expires}); err != nil {
			t.Fatal(err)
		}
	}
	if err := backend.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(backend.path)
	if err != nil || len(entries) != 1 {
		t.Errorf("after Sweep there are %v, %v, want one file", entries, err)
	}
	if _, err := backend.Load(t.Context(), "live"); err != nil {
		t.Errorf("Load of a live record = %v", err)
	}
}

// Every snippet of the page is code that is compiled and tested here.
func TestBackendPageShowsTestedCode(t *testing.T) {
	t.Parallel()
	var code strings.Builder
	for _, name := range []string{"example_directory_backend_test.go", "directory_backend_test.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	page, err := os.ReadFile("docs/backend.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) < 8 {
		t.Errorf("the page has %d snippets, want at least 8", len(blocks))
	}
	for _, block := range blocks {
		snippet, _, _ := strings.Cut(block, "```")
		for part := range strings.SplitSeq(snippet, "\n\n") {
			if part = strings.TrimSpace(part); !strings.Contains(code.String(), part) {
				t.Errorf("docs/backend.md shows code that is not tested:\n%s", part)
			}
		}
	}
}

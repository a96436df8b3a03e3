package adopt_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The build tags of package sessplus leave out the importers that need a backend's client, and what that brings with it
// (SPEC 9.4).
func TestBuildTags(t *testing.T) {
	for tags, gone := range map[string][]string{
		"":                    nil,
		"nofirestore":         {"cloud.google.com/", "google.golang.org/"},
		"noredis":             {"github.com/redis/"},
		"nofirestore,noredis": {"cloud.google.com/", "google.golang.org/", "github.com/redis/"},
	} {
		out, err := exec.Command("go", "list", "-tags", tags, "-deps", ".").Output()
		if err != nil {
			t.Fatalf("-tags %q: %v", tags, err)
		}
		for _, prefix := range []string{"cloud.google.com/", "google.golang.org/", "github.com/redis/", "github.com/gorilla/"} {
			wanted := !slices.Contains(gone, prefix)
			if got := strings.Contains("\n"+string(out), "\n"+prefix); got != wanted {
				t.Errorf("-tags %q: depends on %s = %t, want %t", tags, prefix, got, wanted)
			}
		}
	}
	out, err := exec.Command("go", "build", "-tags", "nofirestore,noredis", ".").CombinedOutput()
	if err != nil {
		t.Errorf("go build: %v\n%s", err, out)
	}
}

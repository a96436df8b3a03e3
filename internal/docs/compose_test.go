package docs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
)

// What docker compose config -q checks, and that the files which the examples mount and build from are there.
func TestComposeFiles(t *testing.T) {
	files, err := filepath.Glob(root + "/examples/*/compose.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("found only %q, %v", files, err)
	}
	for _, file := range files {
		opts, err := cli.NewProjectOptions([]string{file}, cli.WithEnv([]string{"SESSION_SECRET=secret"}))
		if err != nil {
			t.Fatal(err)
		}
		project, err := opts.LoadProject(t.Context())
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for name, service := range project.Services {
			var needs []string
			if b := service.Build; b != nil {
				needs = append(needs, filepath.Join(b.Context, b.Dockerfile))
			}
			for _, v := range service.Volumes {
				if v.Type == "bind" {
					needs = append(needs, v.Source, filepath.Join(v.Source, "go.mod"))
				}
			}
			for _, path := range needs {
				if _, err := os.Stat(path); err != nil {
					t.Errorf("%s: %s: %v", file, name, err)
				}
			}
		}
	}
}

package docs

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// allPages returns all Markdown pages of the repository, by their path from its root.
func allPages(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case filepath.Ext(name) == ".md":
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			list = append(list, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 10 {
		t.Fatalf("found only %v", list)
	}
	return list
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	absence = regexp.MustCompile(`^[a-z]+:`) // of a page of ours: https:, mailto:
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	span    = regexp.MustCompile("`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	marks   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// links returns where the links of a page lead that are not to other sites.
func links(text string) (list []string) {
	text = span.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if !absence.MatchString(m[1]) {
			list = append(list, m[1])
		}
	}
	return list
}

// anchors returns what GitHub names the headings of a page.
func anchors(text string) (list []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		list = append(list, strings.ReplaceAll(marks.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return list
}

func TestLinksLeadSomewhere(t *testing.T) {
	n := 0
	for _, page := range allPages(t) {
		for _, to := range links(read(t, page)) {
			n++
			file, anchor, _ := strings.Cut(to, "#")
			target := page
			if file != "" {
				target = path.Join(path.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(target))); err != nil {
				t.Errorf("%s links to %s, which is not there", page, to)
			} else if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s links to %s, but %s has no such heading: %q", page, to, target, anchors(read(t, target)))
			}
		}
	}
	if n < 30 {
		t.Errorf("the pages have %d links; are they found?", n)
	}
}

func TestLinks(t *testing.T) {
	got := links("[a](b.md#c-d) and [e](https://e) `[f](g)`\n```\n[h](i)\n```\n![j](k.svg)")
	if want := []string{"b.md#c-d", "k.svg"}; !slices.Equal(got, want) {
		t.Errorf("links: %q, want %q", got, want)
	}
	got = anchors("# A title\ntext\n## What `Save()` does, and why\n```\n# no\n```\n")
	if want := []string{"a-title", "what-save-does-and-why"}; !slices.Equal(got, want) {
		t.Errorf("anchors: %q, want %q", got, want)
	}
}

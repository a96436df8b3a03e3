// Package spec checks docs/spec.md against what cites it.
package spec

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// planned marks a section or a promise that is not built yet.
const planned = "*(planned)*"

var (
	section  = regexp.MustCompile(`^## (\d+) `)
	promise  = regexp.MustCompile(`^(\d+)\. `)
	citation = regexp.MustCompile(`\bSPEC (\d+(?:\.\d+)?(?:(?:,|,? and) (?:SPEC )?\d+\.\d+)*)`)
	number   = regexp.MustCompile(`\d+(?:\.\d+)?`)
	newLine  = regexp.MustCompile(`\n\s*(?://|#)?\s*`) // inside a comment, too
)

// A page is what a specification promises: by number, and whether it is planned only. A section without numbered
// promises is one promise.
type page map[string]bool

func parse(text string) (promises page, sections page) {
	promises, sections = page{}, page{}
	current, later := "", false
	for line := range strings.Lines(text) {
		if m := section.FindStringSubmatch(line); m != nil {
			current, later = m[1], strings.Contains(line, planned)
			sections[current], promises[current] = later, later
		} else if m := promise.FindStringSubmatch(line); m != nil && current != "" {
			delete(promises, current)
			promises[current+"."+m[1]] = later || strings.Contains(line, planned)
		}
	}
	return promises, sections
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func ours(t *testing.T) (promises page, sections page) {
	t.Helper()
	return parse(read(t, filepath.Join(root, "docs", "spec.md")))
}

// citations returns the numbers that a text cites.
func citations(text string) (numbers []string) {
	for _, m := range citation.FindAllStringSubmatch(newLine.ReplaceAllString(text, " "), -1) {
		numbers = append(numbers, number.FindAllString(m[1], -1)...)
	}
	return numbers
}

// cited returns the files that cite a number, by number: of the tests, which are all *_test.go, the conformance suite
// and the scripts in .ci, and of everything else that is Go or prose.
func cited(t *testing.T) (tests, others map[string][]string) {
	t.Helper()
	tests, others = map[string][]string{}, map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if d.Name() == "testdata" || name == ".git" || name == "internal/spec" {
				return fs.SkipDir
			}
			return nil
		}
		into := others
		switch {
		case strings.HasSuffix(name, "_test.go"), strings.HasPrefix(name, "sessplustest/"), strings.HasPrefix(name, ".ci/"):
			into = tests
		case filepath.Ext(name) != ".go" && filepath.Ext(name) != ".md" || name == "docs/spec.md":
			return nil
		}
		for _, n := range citations(read(t, path)) {
			into[n] = append(into[n], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests, others
}

// order sorts numbers as the page has them: 5.9 before 5.10.
func order(numbers []string) []string {
	key := func(n string) int {
		s, p, _ := strings.Cut(n, ".")
		i, _ := strconv.Atoi(s)
		j, _ := strconv.Atoi(p)
		return 1000*i + j
	}
	slices.SortFunc(numbers, func(a, b string) int { return key(a) - key(b) })
	return numbers
}

func numbers(pages ...page) []string {
	var all []string
	for _, p := range pages {
		all = slices.AppendSeq(all, maps.Keys(p))
	}
	return slices.Compact(order(all))
}

func TestEveryCitationNamesAPromise(t *testing.T) {
	promises, sections := ours(t)
	known := numbers(promises, sections)
	tests, others := cited(t)
	for _, files := range []map[string][]string{tests, others} {
		for _, n := range order(slices.Collect(maps.Keys(files))) {
			if !slices.Contains(known, n) {
				t.Errorf("SPEC %s is not in docs/spec.md; cited in %v", n, slices.Compact(files[n]))
			}
		}
	}
}

func TestEveryPromiseIsTested(t *testing.T) {
	promises, _ := ours(t)
	if len(promises) < 90 {
		t.Fatalf("docs/spec.md has %d promises, want at least 90", len(promises))
	}
	tests, _ := cited(t)
	for _, n := range numbers(promises) {
		switch files := slices.Compact(tests[n]); {
		case promises[n] && len(files) > 0:
			t.Errorf("SPEC %s is marked %s in docs/spec.md, but %v test it: remove the mark", n, planned, files)
		case !promises[n] && len(files) == 0:
			t.Errorf("no test cites SPEC %s", n)
		}
	}
}

// The page has the numbers of the specification that the project is steered by, where that lies beside the repository.
func TestNumbersAreThoseOfTheSharedPage(t *testing.T) {
	git, err := exec.Command("git", "rev-parse", "--path-format=absolute", "--git-common-dir").Output()
	if err != nil {
		t.Skip("needs ../shared/SPEC.md, beside a git repository")
	}
	shared := filepath.Join(strings.TrimSpace(string(git)), "../../shared/SPEC.md") // of a linked worktree, too
	if _, err := os.Stat(shared); err != nil {
		t.Skip("needs ../shared/SPEC.md beside the repository")
	}
	have, want := numbers(ours(t)), numbers(parse(read(t, shared)))
	for _, n := range want {
		if !slices.Contains(have, n) {
			t.Errorf("%s is missing in docs/spec.md", n)
		}
	}
	for _, n := range have {
		if !slices.Contains(want, n) {
			t.Errorf("%s of docs/spec.md is not in ../shared/SPEC.md", n)
		}
	}
}

func TestParse(t *testing.T) {
	promises, sections := parse("1. not yet\n## 1 One\n1. a\n   - 7. no\n2. *(planned)* b\n## 2 Two\ntext\n## 10 Ten *(planned)*\n1. c\n")
	if want := (page{"1.1": false, "1.2": true, "2": false, "10.1": true}); !maps.Equal(promises, want) {
		t.Errorf("promises are %v, want %v", promises, want)
	}
	if want := (page{"1": false, "2": false, "10": true}); !maps.Equal(sections, want) {
		t.Errorf("sections are %v, want %v", sections, want)
	}
}

func TestCitations(t *testing.T) {
	for text, want := range map[string][]string{
		"// SPEC 3.11, 4.2: a\n":                      {"3.11", "4.2"},
		"// as it says (SPEC 4.6, SPEC 6.7).\n":       {"4.6", "6.7"},
		"\t// SPEC 5.1, 5.5,\n\t// 5.6 and 5.9. Two.": {"5.1", "5.5", "5.6", "5.9"},
		"// (SPEC\n// 8) 9.9":                         {"8"},
		"# SPEC 7.5: 2 of 3":                          {"7.5"},
		"// SPEC 8, 10 of them. SPECS 1.1":            {"8"},
	} {
		if got := citations(text); !slices.Equal(got, want) {
			t.Errorf("citations(%q) = %q, want %q", text, got, want)
		}
	}
}

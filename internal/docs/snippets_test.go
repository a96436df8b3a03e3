package docs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// params are what snippets of a page take for granted that means something else on other pages.
var params = map[string]string{
	"docs/from-flask-session-plus.md": "client *firestore.Client, secret string, newSecret []byte, until *adopt.Options",
	"docs/testing.md":                 "account http.HandlerFunc",
}

// forms are what a snippet may be, tried in turn. %[1]s stands for the params of its page, %[2]s for the snippet.
var forms = []string{
	"%[2]s\n",
	"func _(%[1]s) {\n%[2]s\n}\n",
	"var _ = sessplus.Config{\n%[2]s\n}\n",
	"var _ = sessplus.Options{\n%[2]s\n}\n",
}

var ownImports = regexp.MustCompile(`(?s)\A\s*import (\([^)]*\)|"[^"]*")\n`)

// What a reader copies compiles. Variables that a snippet leaves unused, and imports that it
// does not need, are no mistakes of a snippet.
func TestSnippetsCompile(t *testing.T) {
	exports := exportData(t)
	n := 0
	for _, page := range allPages(t) {
		if page == "docs/backend.md" {
			continue // its snippets make one program, which TestBackendPageShowsTestedCode finds in the root's tests
		}
		for _, s := range snippets(read(t, page)) {
			n++
			if err := compile(page, s.text, exports); err != nil {
				t.Errorf("%s:%d: %v\n%s", page, s.line, err, s.text)
			}
		}
	}
	if n < 15 {
		t.Errorf("the pages have %d snippets; are they looked for in the right place?", n)
	}
}

type snippet struct {
	line int
	text string
}

// snippets returns what is between ```go and ```.
func snippets(text string) (list []snippet) {
	within := false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case !within && strings.TrimSpace(line) == "```go":
			within = true
			list = append(list, snippet{line: i + 2})
		case within && strings.TrimSpace(line) == "```":
			within = false
		case within:
			list[len(list)-1].text += line + "\n"
		}
	}
	return list
}

// exportData finds the compiled packages that this one imports, by their path.
func exportData(t *testing.T) map[string]string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	files := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return files
}

func compile(page, text string, exports map[string]string) error {
	fset := token.NewFileSet()
	if strings.HasPrefix(text, "package ") {
		f, err := parser.ParseFile(fset, "snippet.go", text, 0)
		if err != nil {
			return err
		}
		return check(fset, exports, f)
	}
	base, err := parser.ParseFile(fset, "snippets.go", nil, 0)
	if err != nil {
		return err
	}
	imports := ownImports.FindString(text)
	text = strings.TrimPrefix(text, imports)
	head := "package docs\n" + imports
	for _, i := range base.Imports {
		if !strings.Contains(imports, i.Path.Value) {
			name := ""
			if i.Name != nil {
				name = i.Name.Name
			}
			head += fmt.Sprintf("import %s %s\n", name, i.Path.Value)
		}
	}
	var syntax, other error
	for _, form := range forms {
		f, err := parser.ParseFile(fset, "snippet.go", head+fmt.Sprintf(form, params[page], text), 0)
		if err == nil {
			if err = check(fset, exports, base, f); err == nil {
				return nil
			}
			other = cmp.Or(other, err)
		} else if form == forms[1] {
			syntax = err // most are statements
		}
	}
	return cmp.Or(other, syntax)
}

func check(fset *token.FileSet, exports map[string]string, files ...*ast.File) error {
	var errs []error
	config := types.Config{
		Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
			if exports[path] == "" {
				return nil, fmt.Errorf("%s is not among the imports of snippets.go", path)
			}
			return os.Open(exports[path])
		}),
		Error: func(err error) {
			if e := (types.Error{}); !errors.As(err, &e) || !e.Soft {
				errs = append(errs, err)
			}
		},
	}
	config.Check("docs", fset, files, nil)
	return errors.Join(errs...)
}

func TestCompile(t *testing.T) {
	exports := exportData(t)
	for text, want := range map[string]string{
		"s.Set(\"a\", 1)\nn := s.GetInt(\"a\")\n": "",
		"func f() {}\n":                          "",
		"IdleTimeout: time.Hour, // a comment\n": "",
		"import \"example.com/none\"\n\nmgr, err := sessplus.New(nil, nil)\n": "example.com/none is not among the imports",
		"package main\n\nimport \"log\"\n\nfunc main() { log.Print() }":       "",
		"s.Set(1, 1)\n":      "cannot use 1",
		"s.Sett(\"a\", 1)\n": "s.Sett undefined",
		"undefined()\n":      "undefined: undefined",
		"if {\n":             "missing condition",
	} {
		err := compile("", text, exports)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("compile(%q) = %v, want %q", text, err, want)
		}
	}
}

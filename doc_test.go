package sessplus_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// parseDir reads the package in the directory, without its tests, as go/doc wants it.
func parseDir(t *testing.T, dir string) *doc.Package {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	p, err := doc.NewFromFiles(fset, files, "./"+dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Types whose own comment speaks of their fields or methods.
var documentedAsAWhole = []string{"RawField", "Codec", "RedisClient"}

// undocumented lists the exported names without a comment: package, constants, variables, functions, types, methods but
// Error, and the fields and methods of exported structs and interfaces.
func undocumented(p *doc.Package) (names []string) {
	missing := func(name string, comments ...string) {
		if strings.TrimSpace(strings.Join(comments, "")) == "" {
			names = append(names, name)
		}
	}
	values := func(list []*doc.Value) {
		for _, v := range list {
			for _, spec := range v.Decl.Specs {
				spec := spec.(*ast.ValueSpec)
				group := ""
				if !v.Decl.Lparen.IsValid() {
					group = v.Doc
				}
				for _, n := range spec.Names {
					if n.IsExported() {
						missing(n.Name, group, spec.Doc.Text(), spec.Comment.Text())
					}
				}
			}
		}
	}
	funcs := func(list []*doc.Func, of string) {
		for _, f := range list {
			if f.Name != "Error" {
				missing(of+f.Name, f.Doc)
			}
		}
	}
	missing("package "+p.Name, p.Doc)
	values(p.Consts)
	values(p.Vars)
	funcs(p.Funcs, "")
	for _, t := range p.Types {
		missing(t.Name, t.Doc)
		values(t.Consts)
		values(t.Vars)
		funcs(t.Funcs, "")
		funcs(t.Methods, t.Name+".")
		for _, spec := range t.Decl.Specs {
			for _, f := range members(spec.(*ast.TypeSpec).Type) {
				for _, n := range f.Names {
					if n.IsExported() && !slices.Contains(documentedAsAWhole, t.Name) {
						missing(t.Name+"."+n.Name, f.Doc.Text(), f.Comment.Text())
					}
				}
			}
		}
	}
	return names
}

// members are the fields of a struct or the methods of an interface.
func members(t ast.Expr) []*ast.Field {
	switch t := t.(type) {
	case *ast.StructType:
		return t.Fields.List
	case *ast.InterfaceType:
		return t.Methods.List
	}
	return nil
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{".", "sessplustest", "adopt", "inspect"} {
		for _, name := range undocumented(parseDir(t, dir)) {
			t.Errorf("%s: %s has no comment", dir, name)
		}
	}
}

func TestUndocumentedNamesAreFound(t *testing.T) {
	t.Parallel()
	const src = `package p

type T struct { A, B int; C int // c
	d int }

type I interface { M() }

// U has a comment.
type U int

const ( // a group
	X U = 1 // x
	Y U = 2
)

func F() {}
func (U) G() {}
func (U) h() {}
func (U) Error() string { return "" }

var V int
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	p, err := doc.NewFromFiles(fset, []*ast.File{file}, "p")
	if err != nil {
		t.Fatal(err)
	}
	got := undocumented(p)
	want := []string{"package p", "V", "F", "I", "I.M", "T", "T.A", "T.B", "Y", "U.G"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("undocumented = %q, want %q", got, want)
	}
}

// SPEC 7.8: every test that SECURITY.md names is there.
func TestSecurityDocumentNamesTests(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "_test.go") {
			data, err := os.ReadFile(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			all += string(data)
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z][A-Za-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1)
	if len(named) < 20 {
		t.Errorf("SECURITY.md names %d tests, want at least 20", len(named))
	}
	for _, m := range named {
		if !strings.Contains(all, "func "+m[1]+"(") {
			t.Errorf("SECURITY.md names %s, which is no test", m[1])
		}
	}
}

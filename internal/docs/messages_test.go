package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	verb  = regexp.MustCompile(`%(\[\d+\])?[-+#]?[a-zA-Z]`)
	table = regexp.MustCompile(`\{t\}`) // of package sessplussql
	query = regexp.MustCompile(`^,? ?(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|WHERE|FOR UPDATE|ON CONFLICT|return redis|d AS|p AS)\b`)
)

// notMessages are texts of several words that nobody gets to read as a message.
var notMessages = []string{
	// What String returns.
	"sessplus.Options(… pairs of keys, timeout …)", "sessplus.Config(…: … in …)", "…: … in …, …, …", "no absolute end",
	"sessplus rotated from …", "sessplus bound to …", "gob of adopt.Store", // what keys are derived with
	// What is looked for in a reply.
	"-ERR max number of clients", "executing the script", "nknown Redis command", "No such master", " run ",
	"(?s),? (with )?args beginning with.*", "(?, ?, ?)", ", … = ?", " or ",
	`^ERR Error running script \(call to \w+\): @user_script: ?\d+: (@user_script: ?\d+: )?-?`,
}

// TestTroubleshootingLacksNoMessage takes every literal of three words or more for a message.
func TestTroubleshootingLacksNoMessage(t *testing.T) {
	page := " " + plain(read(t, "docs/troubleshooting.md"))
	var all []string
	for _, dir := range []string{".", "adopt", "ginsessplus", "sessplussql"} {
		all = append(all, messages(t, dir)...)
	}
	if len(all) < 200 {
		t.Errorf("%d messages were found; are they looked for in the right place?", len(all))
	}
	for _, m := range all {
		if !strings.Contains(page, plain(strings.TrimPrefix(m, "sessplus: "))) {
			t.Errorf("docs/troubleshooting.md lacks %q", m)
		}
	}
	for _, n := range notMessages {
		if !slices.ContainsFunc([]string{".", "adopt", "sessplussql"}, func(dir string) bool { return slices.Contains(literals(t, dir), n) }) {
			t.Errorf("nothing says %q any more: remove it from notMessages", n)
		}
	}
}

// plain is a text without what Markdown and the line breaks of a page add to it, and without a … at either end.
func plain(text string) string {
	text = strings.Join(strings.Fields(strings.NewReplacer("`", "", "\u00a0", " ").Replace(text)), " ")
	return strings.Trim(text, " …:")
}

func messages(t *testing.T, dir string) (list []string) {
	t.Helper()
	for _, text := range literals(t, dir) {
		if query.MatchString(text) || slices.Contains(notMessages, text) || len(strings.Fields(strings.ReplaceAll(text, "…", ""))) < 2 {
			continue
		}
		list = append(list, text)
	}
	return list
}

// literals returns the literals of a package that have three words or more and one line, with … for what they quote.
func literals(t *testing.T, dir string) (list []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := literal(e)
			if ok && strings.Count(text, " ") >= 2 && !strings.Contains(text, "\n") {
				list = append(list, table.ReplaceAllString(verb.ReplaceAllString(text, "…"), "sessions"))
			}
			return !ok
		})
	}
	return list
}

// literal returns the text of a literal, or of a sum of them and of others, for which it has a ….
func literal(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, l := literal(e.X)
		right, r := literal(e.Y)
		if !l {
			left = "…"
		}
		if !r {
			right = "…"
		}
		return left + right, e.Op == token.ADD && (l || r)
	}
	return "", false
}

package sessplus

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// Fields says which fields a config owns. The zero value owns every field. A field may have several owners: Set and
// Delete apply to all of them, and if several have a value, that of the last config is read. A stored field that its
// config does not own reads as absent, is logged once, and is removed by the next save.
type Fields struct {
	rule  fieldRule
	names []string
}

type fieldRule uint8

const (
	everyField fieldRule = iota
	includeFields
	excludeFields
	autoFields
)

// Include returns the rule of a config that owns the named fields and no others.
func Include(fields ...string) Fields { return Fields{includeFields, slices.Clone(fields)} }

// Exclude returns the rule of a config that owns every field except those named.
func Exclude(fields ...string) Fields { return Fields{excludeFields, slices.Clone(fields)} }

// Auto returns the rule of a config that owns every field that no other config includes by name.
func Auto() Fields { return Fields{rule: autoFields} }

// String returns the rule as text, such as `include "user_id", "plan"`.
func (f Fields) String() string {
	quoted := make([]string, len(f.names))
	for i, n := range f.names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	names := strings.Join(quoted, ", ")
	switch f.rule {
	case includeFields:
		return "include " + names
	case excludeFields:
		return "exclude " + names
	case autoFields:
		return "auto"
	default:
		return "every field"
	}
}

func (f Fields) includes(name string) bool {
	return f.rule == includeFields && slices.Contains(f.names, name)
}

// owns reports whether f takes the field, given whether any config includes it.
func (f Fields) owns(name string, included bool) bool {
	switch f.rule {
	case includeFields:
		return f.includes(name)
	case excludeFields:
		return !slices.Contains(f.names, name)
	case autoFields:
		return !included
	default:
		return true
	}
}

// maxFieldName is the longest name of a field, in bytes.
const maxFieldName = 256

// nameProblem says why name cannot be a field's, or "".
func nameProblem(name string) string {
	switch {
	case name == "":
		return "the name of a field is empty"
	case len(name) > maxFieldName:
		return fmt.Sprintf("the name of a field has more than %d bytes", maxFieldName)
	case !isASCII(name) && !utf8.ValidString(name):
		return "the name of a field is not valid UTF-8"
	}
	return ""
}

// isASCII is much cheaper than ValidString for names as short as those of fields.
func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// routes knows the owners of every field, as indexes of configs in their order. It is made by New and only read later.
type routes struct {
	named  map[string][]int // of the names that a config mentions
	others []int            // of all other names
}

func newRoutes(cookies []*cookie) routes {
	r := routes{named: make(map[string][]int)}
	included := make(map[string]bool)
	for _, c := range cookies {
		for _, name := range c.Fields.names {
			r.named[name] = nil
			included[name] = included[name] || c.Fields.includes(name)
		}
	}
	for i, c := range cookies {
		for name := range r.named {
			if c.Fields.owns(name, included[name]) {
				r.named[name] = append(r.named[name], i)
			}
		}
		if c.Fields.rule != includeFields {
			r.others = append(r.others, i)
		}
	}
	return r
}

// owners returns the configs that own the field. The caller must not change the slice.
func (r *routes) owners(name string) []int {
	if owners, ok := r.named[name]; ok {
		return owners
	}
	return r.others
}

// owns reports whether a stored field belongs to config i. Our notes belong to none.
func (r *routes) owns(i int, name string) bool {
	return slices.Contains(r.owners(name), i) && !isNote(name)
}

// A FieldRoute is a line of [Manager.Describe]: a field and a cookie that owns it.
type FieldRoute struct {
	Cookie     string        // the CookieName of the config
	Backend    string        // "secure cookie", "redis", …; otherwise what String returns, or the type
	Field      string        // the name; "" stands for all other fields that the config owns
	Rule       string        // the config's Fields, such as "auto"
	Lifetime   time.Duration // from creation or renewal, or the last write of a secure cookie; <0: no absolute end
	Visibility Visibility    // what the visitor can see of it
}

// Visibility says what the visitor can see of a field.
type Visibility string

const (
	VisibleSigned    Visibility = "signed"      // in the cookie: the visitor can read but not change it
	VisibleEncrypted Visibility = "encrypted"   // in the cookie: the visitor can neither read nor change it
	VisibleNever     Visibility = "server-side" // never sent to the visitor
)

// String returns the route as one line of text.
func (r FieldRoute) String() string {
	return fmt.Sprintf("%s: %s in %s, %s, %s", r.Cookie, r.field(), r.Backend, r.Visibility, r.lifetime())
}

func (r FieldRoute) lifetime() string {
	if r.Lifetime < 0 {
		return "no absolute end"
	}
	return r.Lifetime.String()
}

func (r FieldRoute) field() string {
	if r.Field == "" {
		return "(" + r.Rule + ")"
	}
	return fmt.Sprintf("%q", r.Field)
}

// FieldRoutes is a []FieldRoute that prints as a table.
type FieldRoutes []FieldRoute

// String returns a table with a line for each route, for a program to log when it starts.
func (l FieldRoutes) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "COOKIE\tFIELD\tBACKEND\tVISIBILITY\tLIFETIME")
	for _, r := range l {
		fmt.Fprintf(w, "\n%s\t%s\t%s\t%s\t%s", r.Cookie, r.field(), r.Backend, r.Visibility, r.lifetime())
	}
	w.Flush() // a Builder returns no error
	return b.String()
}

// Describe lists which config owns which field. For each config, in order, it has a route for each field that some
// config names and this one owns, and one for all other fields if it owns them. It prints as a table.
func (m *Manager) Describe() FieldRoutes {
	names := make([]string, 0, len(m.routes.named))
	for name := range m.routes.named {
		names = append(names, name)
	}
	slices.Sort(names)
	var list FieldRoutes
	for i, c := range m.cookies {
		r := FieldRoute{
			Cookie: c.CookieName, Backend: c.store, Rule: c.Fields.String(),
			Lifetime: c.lifetime(false), Visibility: VisibleNever,
		}
		if c.sealer != nil {
			r.Lifetime, r.Visibility = c.contentAge(false), VisibleSigned
			if c.sealer.encrypts {
				r.Visibility = VisibleEncrypted
			}
		}
		for _, name := range names {
			if m.routes.owns(i, name) {
				r.Field = name
				list = append(list, r)
			}
		}
		if slices.Contains(m.routes.others, i) {
			r.Field = ""
			list = append(list, r)
		}
	}
	return list
}

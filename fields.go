package sessplus

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// Fields says which fields a config owns. Its zero value owns every field. A field may have several owners: Set and
// Delete reach all of them, and of several stored values the one of the last config is read. A stored field that its
// config does not own reads as absent, is named in the log once, and goes with the next save.
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

// Include owns the fields named, and no others.
func Include(fields ...string) Fields { return Fields{includeFields, slices.Clone(fields)} }

// Exclude owns every field but those named.
func Exclude(fields ...string) Fields { return Fields{excludeFields, slices.Clone(fields)} }

// Auto owns every field that no other config includes.
func Auto() Fields { return Fields{rule: autoFields} }

// String describes the rule, as in `include "user_id", "plan"`.
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
	case !utf8.ValidString(name):
		return "the name of a field is not valid UTF-8"
	}
	return ""
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

func (r *routes) owns(i int, name string) bool { return slices.Contains(r.owners(name), i) }

// A FieldRoute is a line of [Manager.Describe]: one field and the cookie that owns it.
type FieldRoute struct {
	Cookie     string        // the CookieName of the config
	Backend    string        // "secure cookie", "redis", "firestore", "memory", or the type of another backend
	Field      string        // "" stands for every field that no line of this cookie names and its rule takes
	Rule       string        // the config's Fields, as in "auto"
	Lifetime   time.Duration // of what is stored, from creation, renewal or (secure cookie) writing; <0: no absolute end
	Visibility Visibility    // what the visitor can see of it
}

// Visibility tells what the visitor can see of a field.
type Visibility string

const (
	VisibleSigned    Visibility = "signed"      // in the cookie, for the visitor to read but not to change
	VisibleEncrypted Visibility = "encrypted"   // in the cookie, unreadable for the visitor
	VisibleNever     Visibility = "server-side" // not sent to the visitor
)

// String is the route as one line of text.
func (r FieldRoute) String() string {
	return fmt.Sprintf("%s: %s in %s, %s, %s", r.Cookie, r.field(), r.Backend, r.Visibility, r.Lifetime)
}

func (r FieldRoute) field() string {
	if r.Field == "" {
		return "(" + r.Rule + ")"
	}
	return fmt.Sprintf("%q", r.Field)
}

// FieldRoutes is a []FieldRoute that prints as a table.
type FieldRoutes []FieldRoute

// String is a table with a line for each route, for the log of a program that starts.
func (l FieldRoutes) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "COOKIE\tFIELD\tBACKEND\tVISIBILITY\tLIFETIME")
	for _, r := range l {
		lifetime := "no absolute end"
		if r.Lifetime >= 0 {
			lifetime = r.Lifetime.String()
		}
		fmt.Fprintf(w, "\n%s\t%s\t%s\t%s\t%s", r.Cookie, r.field(), r.Backend, r.Visibility, lifetime)
	}
	w.Flush() // a Builder returns no error
	return b.String()
}

// Describe lists who owns what, for a person or a test to read: per config, in the order of the configs, a line for
// each field that it owns by name, and one for the others if it owns any. Printed, it is a table.
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

package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestPageTellsWhereFieldsLive(t *testing.T) {
	b := newSite(t)()
	b.open()
	b.shows("<code>any other</code></td><td><code>data</code>")
	b.submit("/theme", "theme", "dark")
	b.submit("/login", "name", "Ann")
	rows := regexp.MustCompile(`(?s)<tr[^>]*>.*?</tr>`).FindAllString(b.page, -1)
	var got []string
	for _, row := range rows[1:] { // without the head
		got = append(got, strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(row, " ")), " "))
	}
	want := []string{
		"csrf_token csrf secure cookie encrypted 38", // the name, 26 letters, 2 quotes
		"cart session memory server-side –",
		"user_id session memory server-side 17",
		"user_name session memory server-side 14",
		"plan account memory server-side 10",
		"theme data secure cookie encrypted 11",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the table is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPageTellsWhatTheLastFormWrote(t *testing.T) {
	b := newSite(t)()
	wrote := func() string {
		b.Helper()
		list := regexp.MustCompile(`(?s)<ul id="wrote">(.*?)</ul>`).FindStringSubmatch(b.page)
		if list == nil {
			b.Fatalf("no list in %s", b.page)
		}
		return strings.Join(strings.Fields(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(list[1], " ")), " ")
	}
	b.open()
	const nothing = "Nothing. Add something to the cart."
	if got := wrote(); got != nothing {
		t.Errorf("before any form it wrote %q, want %q", got, nothing)
	}
	for _, step := range []struct{ path, name, value, want string }{
		{"/cart", "item", "tea", "session create : 1 field, 13 bytes"}, // cart{"tea":1}
		{"/cart", "item", "tea", "session save : 1 field, 13 bytes"},
		{"/login", "name", "Ann", "session renew : 3 fields, 44 bytes"},
		{"/plan", "plan", "pro", "account save : 1 field, 9 bytes"},
		{"/logout", "", "", "session destroy"},
	} {
		b.submit(step.path, step.name, step.value)
		if got := wrote(); !strings.Contains(got, step.want) {
			t.Errorf("%s wrote %q, want %q", step.path, got, step.want)
		}
	}
	b.open()
	if got := wrote(); got != nothing {
		t.Errorf("the page tells again what was written: %q", got)
	}
}

// A secure cookie is a session like any other: SPEC 8 promises a create and a destroy of it, too.
func TestPageTellsOfSecureCookies(t *testing.T) {
	b := newSite(t)()
	b.open()
	b.submit("/theme", "theme", "dark")
	b.shows("<code>data</code> <b>create</b>")
	b.submit("/theme", "theme", "forest")
	b.shows("<code>data</code> <b>save</b>")
	b.submit("/logout")
	b.shows("<code>data</code> <b>destroy</b>", "<code>csrf</code> <b>destroy</b>")
}

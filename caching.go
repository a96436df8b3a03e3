package sessplus

import (
	"iter"
	"net/http"
	"net/textproto"
	"strings"
)

// noteUse keeps shared caches from mixing up visitors: it adds Vary to a response that depends on a session.
func (s *Session) noteUse(h http.Header) {
	vary := h["Vary"]
	if varies(vary) {
		return
	}
	if vary == nil {
		vary = s.vary[:0]
	}
	h["Vary"] = append(vary, "Cookie")
}

// varies reports whether the lines of a Vary header name the Cookie header.
func varies(lines []string) bool {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(name, " \t"), "Cookie") {
				return true
			}
		}
	}
	return false
}

// noteSetCookie keeps a response that sets a session out of shared caches. What the handler says about caching stays,
// except what lets those store it: then this reports true.
func (s *Session) noteSetCookie(h http.Header) (changed bool) {
	own := false
	rest := []string{"private"}
	for name, directive := range directives(h["Cache-Control"]) {
		own = true
		switch name {
		case "public", "s-maxage":
			changed = true
		case "private": // also one that is private for some headers only
		default:
			rest = append(rest, directive)
		}
	}
	switch {
	case !own:
		h["Cache-Control"] = append(s.cacheControl[:0], "private, no-cache")
	case changed:
		h["Cache-Control"] = []string{strings.Join(rest, ", ")}
	}
	return changed
}

// personal reports whether shared caches keep such a response to the one visitor: without a Set-Cookie, as it goes.
func personal(h http.Header) bool {
	for name := range directives(h["Cache-Control"]) {
		if name == "private" || name == "no-store" {
			return true
		}
	}
	return varies(h["Vary"])
}

// directives yields those of a Cache-Control header, each with its name in lower case: RFC 9111 section 5.2. An
// argument in quotes may have commas.
func directives(lines []string) iter.Seq2[string, string] {
	return func(yield func(name, directive string) bool) {
		for _, line := range lines {
			quoted := false
			for i := 0; i < len(line); i++ {
				switch {
				case line[i] == '"':
					quoted = !quoted
				case line[i] == '\\' && quoted:
					i++
				case line[i] == ',' && !quoted:
					if !yieldDirective(line[:i], yield) {
						return
					}
					line, i = line[i+1:], -1
				}
			}
			if !yieldDirective(line, yield) {
				return
			}
		}
	}
}

// yieldDirective yields a directive unless it is empty, as RFC 9110 section 5.6.1 allows in lists.
func yieldDirective(text string, yield func(name, directive string) bool) bool {
	text = textproto.TrimString(text)
	if text == "" {
		return true
	}
	name, _, _ := strings.Cut(text, "=")
	return yield(strings.ToLower(textproto.TrimString(name)), text)
}

// clearContent removes from the header what the handler has set for a response that will not be sent.
func (s *Session) clearContent(h http.Header) {
	for _, name := range []string{
		"Accept-Ranges", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
		"Content-Range", "Content-Type", "Etag", "Expires", "Last-Modified", "Location", "Trailer",
	} {
		h.Del(name)
	}
	if s.encoding != "" {
		h.Set("Content-Encoding", s.encoding)
	}
}

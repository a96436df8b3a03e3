package sessplus

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ParseConfigs reads configs from a JSON array of objects with the property names of flask-session-plus. A property
// that is null counts as absent. A property that is unknown or repeated is an error.
//
//	cookie_name                 text          CookieName; required
//	session_type                text          Backend: "secure_cookie", or a name in backends; default "secure_cookie"
//	session_fields              see below     Fields; default every field
//	cookie_domain               text          Domain; default the host that set the cookie
//	cookie_path                 text          Path; default "/"
//	cookie_httponly             bool          not ScriptReadable; default true
//	cookie_secure               bool or text  Secure: true always, false never, "auto" over TLS; default "auto"
//	cookie_max_age              seconds       MaxAge; default until the browser closes
//	cookie_samesite             text          SameSite: "Lax", "Strict" or "None", in any case; default "Lax"
//	session_lifetime            duration      Lifetime; default 24 hours
//	session_permanent_lifetime  duration      PermanentLifetime; default 31 days
//	idle_timeout                duration      IdleTimeout; default none
//	rotate_every                duration      RotateEvery; default never
//	device_bound                duration      DeviceBound; default off
//	key_prefix                  text          KeyPrefix; default "session:"
//	use_signer                  bool          SignID; default false
//	index_by                    text          IndexBy; default none
//	bound_to                    text          BoundTo; default none
//	adopt                       array         Adopt: names of cookies; default none
//	lazy                        bool          Lazy; default false
//	optional                    bool          Optional; default false
//	drop_if_gone                bool          DropIfGone; default false
//	partitioned                 bool          Partitioned; default false
//	max_chunks                  whole number  MaxChunks; default 1
//
// Seconds are a number, which may have a fraction. A duration is either seconds or text such as "24h" or "1h30m". As in
// [Config], 0 means the default. session_fields is an array of the names to include, {"include": […]}, {"exclude": […]}
// or "auto".
//
// The error joins a [*ConfigError] for every mistake. Its Field is the name of the property, or "data" if no property
// is to blame. For data that is not JSON it only says where. It never quotes the value of an unknown property, or
// anything else that may be a key. Whether the configs make sense is for [New] to check.
func ParseConfigs(data []byte, backends map[string]Backend) ([]Config, error) {
	var errs []error
	report := func(cookie, property, wrong string) {
		errs = append(errs, &ConfigError{cookie, cmp.Or(property, "data"), wrong})
	}
	var list []json.RawMessage
	err := json.Unmarshal(data, &list)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		cookie, property, line := locate(data[:syntax.Offset])
		report(cookie, property, fmt.Sprintf("the text is not JSON, in line %d", line))
	} else if err != nil || list == nil {
		report("", "", `is not an array, as in [{"cookie_name": "session"}]`)
	} else if !utf8.Valid(data) {
		report("", "", "is not valid UTF-8")
	}
	configs := make([]Config, len(list))
	table := configProperties(backends)
	for i, element := range list {
		if element[0] != '{' {
			report(nameOf(nil, i), "", `is not an object, as in {"cookie_name": "session"}`)
			continue
		}
		properties, _ := members(json.NewDecoder(bytes.NewReader(element)))
		cookie := nameOf(properties, i)
		seen := make(map[string]bool)
		for _, p := range properties {
			wrong := "is the second value; give the property once"
			set, known := table[p.name]
			if known && !seen[p.name] {
				wrong = set(&configs[i], p.value)
			}
			switch {
			case !known:
				report(cookie, p.name, "is unknown; the properties are "+strings.Join(slices.Sorted(maps.Keys(table)), ", "))
			case wrong != "" && mayBeKey(p):
				report(cookie, p.name, "the value "+wrong)
			case wrong != "":
				report(cookie, p.name, quoteJSON(p.value)+" "+wrong)
			}
			seen[p.name] = true
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return configs, nil
}

// mayBeKey reports whether a wrong value may be a secret: a key for signing, or a server's address with a password.
func mayBeKey(m member) bool {
	return m.name == "use_signer" || m.name == "session_type" && bytes.IndexByte(m.value, ':') >= 0
}

// quoteJSON is as much of a value as a line of text has room for.
func quoteJSON(value json.RawMessage) string {
	var line bytes.Buffer
	json.Compact(&line, value) // it has been parsed
	if line.Len() > maxFieldName {
		return strings.ToValidUTF8(line.String()[:maxFieldName], "") + "…"
	}
	return line.String()
}

// A setter gives a config the value of a property, and returns what is wrong with it, or "".
type setter func(c *Config, value json.RawMessage) (wrong string)

// configProperties is the table of all properties.
func configProperties(backends map[string]Backend) map[string]setter {
	text, flag := decode[string]("text"), decode[bool]("true or false, without quotes")
	httpOnly := oneOf(map[string]bool{"true": false, "false": true})
	secure := oneOf(map[string]SecureMode{"true": SecureAlways, "false": SecureNever, `"auto"`: SecureAuto})
	sameSite := oneOf(map[string]http.SameSite{`"lax"`: http.SameSiteLaxMode, `"strict"`: http.SameSiteStrictMode, `"none"`: http.SameSiteNoneMode})
	return map[string]setter{
		"cookie_name":                property(text, func(c *Config) *string { return &c.CookieName }),
		"session_type":               property(parseBackend(backends), func(c *Config) *Backend { return &c.Backend }),
		"session_fields":             property(parseFields, func(c *Config) *Fields { return &c.Fields }),
		"cookie_domain":              property(text, func(c *Config) *string { return &c.Domain }),
		"cookie_path":                property(text, func(c *Config) *string { return &c.Path }),
		"cookie_httponly":            property(httpOnly, func(c *Config) *bool { return &c.ScriptReadable }),
		"cookie_secure":              property(secure, func(c *Config) *SecureMode { return &c.Secure }),
		"cookie_max_age":             property(parseSeconds, func(c *Config) *time.Duration { return &c.MaxAge }),
		"cookie_samesite":            property(sameSite, func(c *Config) *http.SameSite { return &c.SameSite }),
		"session_lifetime":           property(parseDuration, func(c *Config) *time.Duration { return &c.Lifetime }),
		"session_permanent_lifetime": property(parseDuration, func(c *Config) *time.Duration { return &c.PermanentLifetime }),
		"idle_timeout":               property(parseDuration, func(c *Config) *time.Duration { return &c.IdleTimeout }),
		"rotate_every":               property(parseDuration, func(c *Config) *time.Duration { return &c.RotateEvery }),
		"device_bound":               property(parseDuration, func(c *Config) *time.Duration { return &c.DeviceBound }),
		"key_prefix":                 property(text, func(c *Config) *string { return &c.KeyPrefix }),
		"use_signer":                 property(flag, func(c *Config) *bool { return &c.SignID }),
		"index_by":                   property(text, func(c *Config) *string { return &c.IndexBy }),
		"bound_to":                   property(text, func(c *Config) *string { return &c.BoundTo }),
		"adopt":                      property(decode[[]string]("an array of the names of cookies"), func(c *Config) *[]string { return &c.Adopt }),
		"lazy":                       property(flag, func(c *Config) *bool { return &c.Lazy }),
		"optional":                   property(flag, func(c *Config) *bool { return &c.Optional }),
		"drop_if_gone":               property(flag, func(c *Config) *bool { return &c.DropIfGone }),
		"partitioned":                property(flag, func(c *Config) *bool { return &c.Partitioned }),
		"max_chunks":                 property(decode[int]("a whole number that fits"), func(c *Config) *int { return &c.MaxChunks }),
	}
}

// A parser gives the value of a property, and what is wrong with it.
type parser[T any] func(value json.RawMessage) (v T, wrong string)

// property gives the field what is parsed. null leaves it alone.
func property[T any](parse parser[T], field func(*Config) *T) setter {
	return func(c *Config, value json.RawMessage) (wrong string) {
		if string(value) != "null" {
			*field(c), wrong = parse(value)
		}
		return wrong
	}
}

// decode parses what encoding/json takes for a T. Its errors quote what they read, so they go no further.
func decode[T any](what string) parser[T] {
	return func(value json.RawMessage) (v T, wrong string) {
		if json.Unmarshal(value, &v) != nil {
			wrong = "is not " + what
		}
		return v, wrong
	}
}

// oneOf parses the values that are the keys, in lower case and as JSON writes them.
func oneOf[T any](values map[string]T) parser[T] {
	return func(value json.RawMessage) (T, string) {
		key, _ := decode[any]("")(value)
		if v, ok := values[strings.ToLower(fmt.Sprintf("%#v", key))]; ok {
			return v, ""
		}
		return *new(T), "is none of " + strings.Join(slices.Sorted(maps.Keys(values)), ", ")
	}
}

func parseBackend(backends map[string]Backend) parser[Backend] {
	return func(value json.RawMessage) (Backend, string) {
		name, wrong := decode[string]("text")(value)
		b := backends[name]
		if name == "secure_cookie" {
			b = SecureCookie()
		}
		if wrong != "" || isNil(b) {
			wrong = fmt.Sprintf(`is neither "secure_cookie" nor one of the backends %q, or that one is nil`, slices.Sorted(maps.Keys(backends)))
		}
		return b, wrong
	}
}

func parseSeconds(value json.RawMessage) (time.Duration, string) {
	f, err := strconv.ParseFloat(string(value), 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, "is not a number of seconds; a day is 86400"
	}
	d, err := time.ParseDuration(strconv.FormatFloat(f, 'f', -1, 64) + "s")
	if err != nil || d == 0 && f != 0 {
		return 0, "is no number of seconds that a time.Duration holds; a day is 86400"
	}
	return d, ""
}

func parseDuration(value json.RawMessage) (time.Duration, string) {
	text, notText := decode[string]("")(value)
	if notText != "" {
		if d, wrong := parseSeconds(value); wrong == "" {
			return d, ""
		}
	} else if d, err := time.ParseDuration(text); err == nil {
		return d, ""
	}
	return 0, `is no duration that a time.Duration holds; a day is "24h", or 86400 for its seconds`
}

func parseFields(value json.RawMessage) (Fields, string) {
	rule := Include
	if text, _ := decode[string]("")(value); text == "auto" {
		return Auto(), ""
	} else if value[0] == '{' {
		rules := map[string]func(...string) Fields{"include": Include, "exclude": Exclude}
		list, _ := members(json.NewDecoder(bytes.NewReader(value)))
		list = slices.DeleteFunc(list, func(m member) bool { return rules[m.name] != nil && string(m.value) == "null" })
		if len(list) != 1 || rules[list[0].name] == nil {
			return Fields{}, `has not exactly one of "include" and "exclude", as in {"include": ["user_id"]}`
		}
		rule, value = rules[list[0].name], list[0].value
	}
	list, wrong := decode[[]any](`an array of names, {"include": […]}, {"exclude": […]} or "auto"`)(value)
	names := make([]string, len(list))
	for i := range list {
		var ok bool
		if names[i], ok = list[i].(string); !ok { // encoding/json would take null for ""
			wrong = "has a name that is not text"
		}
	}
	return rule(names...), wrong
}

// A member is a name and its value in a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members reads an object, with all that is there twice. whole is false if the text ends within the last one.
func members(d *json.Decoder) (list []member, whole bool) {
	for d.Token(); d.More(); {
		token, _ := d.Token()
		name, ok := token.(string)
		if !ok {
			return list, false
		}
		list = append(list, member{name: name})
		if d.Decode(&list[len(list)-1].value) != nil {
			return list, false
		}
	}
	_, err := d.Token()
	return list, err == nil
}

// nameOf tells in errors which config the members are of.
func nameOf(list []member, i int) string {
	for _, m := range list {
		if name, _ := decode[string]("")(m.value); m.name == "cookie_name" && name != "" {
			return name
		}
	}
	return "#" + strconv.Itoa(i)
}

// locate tells where head ends: the text up to its first byte that is not JSON.
func locate(head []byte) (cookie, property string, line int) {
	d := json.NewDecoder(bytes.NewReader(head))
	start, _ := d.Token()
	for i, whole := 0, start == json.Delim('['); whole && d.More(); i++ {
		var list []member
		list, whole = members(d)
		if cookie, property = nameOf(list, i), ""; !whole && len(list) > 0 {
			property = list[len(list)-1].name
		}
	}
	return cookie, property, 1 + bytes.Count(head, []byte("\n"))
}

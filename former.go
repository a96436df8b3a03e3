package sessplus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Former imports the sessions of this library that were made with an earlier config: with another CookieName, such as
// one without "__Host-", or another Backend, KeyPrefix, Keys, SignID or Fields. c is the old config. If it has no Keys,
// those of the new Manager are used, and so is that Manager's Codec; see [FormerOf]. [New] reports its mistakes.
// Settings of c that do not matter for finding and reading its sessions are ignored.
//
// A session ends when it would have ended by its Lifetime or, in a secure cookie, its MaxAge; the IdleTimeout is that
// of the new config. The old record ends as if the program had called [Session.Destroy]. A secure cookie with BoundTo
// cannot be imported, nor can a session that is bound to a device, since nothing proves its key here: its visitor must
// log in again.
//
// Import and Adopt of c are ignored. If the configs change twice, the newest config lists both earlier ones in its
// Import, but it knows only what it has imported itself. A session of the first config that the second one has
// imported, and that has ended there, begins again with its first cookie if that is a secure cookie. Leave the first
// config out if that matters.
func Former(c Config) Importer { return FormerOf(c, nil) }

// FormerOf is [Former] for a config whose Manager had other Options: Keys, Codec or SingleCookie. The rest of o is
// ignored.
func FormerOf(c Config, o *Options) Importer {
	if o == nil {
		o = &Options{}
	}
	f := &former{config: c, options: Options{Keys: o.Keys, Codec: o.Codec, SingleCookie: o.SingleCookie}}
	f.config.Import, f.config.Adopt = nil, nil
	f.m, f.err = New([]Config{f.config}, f.managerOptions(nil))
	return f
}

// A former is an importer for sessions of this library.
type former struct {
	config  Config
	options Options
	m       *Manager // of this config only; nil if that has mistakes
	err     error    // the mistakes
	raw     bool     // the values of its fields are encoded as the new Manager does
}

// managerOptions are those of its Manager. keys are used if the config and its options have none.
func (f *former) managerOptions(keys []KeyPair) *Options {
	o := f.options
	if o.Keys == nil {
		o.Keys = keys
	}
	o.Logger = slog.New(slog.DiscardHandler)
	return &o
}

// bind gives the former what it shares with the Manager that it imports for.
func (f *former) bind(m *Manager, keys []KeyPair) *former {
	b := &former{config: f.config, options: f.options, raw: f.options.Codec == nil}
	if b.raw {
		b.options.Codec = m.codec
	}
	if b.m, b.err = New([]Config{f.config}, b.managerOptions(keys)); b.err == nil {
		b.m.timeout, b.m.log = m.timeout, m.log
	}
	return b
}

// CookieName is the cookie that it reads.
func (f *former) CookieName() string { return cmp.Or(f.options.SingleCookie, f.config.CookieName) }

// Format keeps the keys out of logs.
func (f *former) Format(s fmt.State, _ rune) {
	io.WriteString(s, "sessplus.Former("+f.CookieName()+")")
}

// chunks is how many cookies its value may be split over.
func (f *former) chunks() int {
	if f.m == nil || f.m.single != nil {
		return 1
	}
	return f.m.cookies[0].MaxChunks
}

// Import implements [Importer].
func (f *former) Import(ctx context.Context, _, value string) (*Imported, error) {
	found, _, err := f.find(ctx, []candidate{{value, 0}})
	return found, err
}

// find imports the session of the cookie and its chunks. same is what identifies it, even if it is not found: a session
// that was rotated a moment ago has two ids, and must become one.
func (f *former) find(ctx context.Context, texts []candidate) (found *Imported, same stray, err error) {
	if f.err != nil {
		return nil, same, f.err
	}
	s := f.m.beside(ctx)
	p := &s.parts[0]
	if f.m.single != nil {
		own, ok := packedText(texts[0].text, p.CookieName, time.Now())
		if !ok {
			return nil, same, &formerError{errMalformed}
		}
		texts = []candidate{{own, 0}}
	}
	found = &Imported{}
	now := time.Now()
	if p.sealer != nil {
		r, _, err := p.cookie.unseal(texts[0].text, texts, nil, now)
		if err != nil {
			return nil, same, &formerError{err}
		}
		p.rec, found.Expires = r, r.Expires
	} else {
		id, _, err := p.parseID(texts[0].text)
		if err != nil {
			return nil, same, &formerError{err}
		}
		c := &call{part: p, op: opLoad, sessionName: p.nameOf(id)}
		s.run([]*call{c})
		if same.id = c.id; c.moved {
			same.value = p.cookieText(c.sessionName)
			if f.m.single != nil {
				same.value = packedName.Replace(p.CookieName) + ":" + same.value
			}
		}
		switch {
		case errors.Is(c.err, ErrNoRecord), c.err == nil && (!p.alive(c.record, now) || c.record.DeviceKey != ""):
			// Nothing here proves the key of a bound session.
			return nil, same, &formerError{errors.New("there is no such session")}
		case c.err != nil:
			return nil, same, c.err
		}
		p.rec = c.record
		if life := p.lifetime(p.rec.Permanent); life > 0 {
			found.Expires = p.rec.Created.Add(life)
		}
		if until := p.rec.until(); !until.IsZero() && (found.Expires.IsZero() || until.Before(found.Expires)) {
			found.Expires = until
		}
		found.Forget = func(ctx context.Context) error {
			s := f.m.beside(ctx)
			end := s.parts[0].endCall(c.key)
			s.run([]*call{end})
			if errors.Is(end.err, ErrNoRecord) {
				return nil
			}
			return end.err
		}
	}
	found.Permanent = p.rec.Permanent
	found.Fields = make(map[string]any)
	for _, field := range p.rec.Fields {
		if f.m.routes.owns(0, field.Name) && nameProblem(field.Name) == "" {
			found.Fields[field.Name] = f.value(field.Value)
		}
	}
	return found, same, nil
}

// encodedValue is the value of a field, encoded as it will be stored.
type encodedValue []byte

// value is that of a field of the session.
func (f *former) value(data []byte) any {
	if f.raw {
		return encodedValue(data)
	}
	v, err := decodeAny(f.m.codec, data)
	if err != nil {
		return errors.New("it cannot be decoded by the former Codec")
	}
	return v
}

// formerError is why a cookie is not one of the former config.
type formerError struct{ error }

func (e *formerError) Is(target error) bool { return target == ErrNoRecord }

// packedText returns what a single cookie that is not split has for a config.
func packedText(value, cookie string, now time.Time) (text string, ok bool) {
	for item := range strings.SplitSeq(value, "/") {
		if name, text, ends := unpackItem(item); name == cookie && text != "" && (ends == 0 || ends > now.Unix()) {
			return text, true
		}
	}
	return "", false
}

// formerChunks are the names of the chunks of secure cookies that formers read.
func formerChunks(cookies []*cookie) map[string][]slot {
	m := make(map[string][]slot)
	for i, c := range cookies {
		if c.imports == nil {
			continue
		}
		for _, s := range c.imports.sources {
			f, ok := s.Importer.(*former)
			for n := 1; ok && n < f.chunks(); n++ {
				name := chunkName(s.cookie, n)
				if at := (slot{i, n}); !slices.Contains(m[name], at) {
					m[name] = append(m[name], at)
				}
			}
		}
	}
	return m
}

package sessplus

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sessplus/sessplus/internal/inspection"
)

// An inspector gives package inspect access to a session. It is not part of the API, and not for programs. The package
// gets it from the context of a request, so that the linker leaves its methods out of other programs.
type inspector struct{ s *Session }

func (i inspector) Expire(cookie string) { i.s.try(cookie, tryExpiry) }
func (i inspector) Rotate(cookie string) { i.s.try(cookie, tryRotation) }

// A trial is what a developer makes happen to a session prematurely.
type trial uint8

const (
	noTrial trial = iota
	tryExpiry
	tryRotation
)

// try makes the next commit do it to a session on the server. It does not count as a use.
func (s *Session) try(cookie string, t trial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	if p := s.part(cookie); p != nil && p.sealer == nil && s.use(p.index).rec != nil {
		p.tried, p.trial = false, t
	}
}

func (i inspector) Setup() inspection.Setup {
	m := i.s.m
	var all inspection.Setup
	if m.single != nil {
		all.Single = m.single.CookieName
	}
	for _, c := range m.cookies {
		flags := c.flags
		if c.Secure == SecureAlways {
			flags = c.secureFlags
		}
		all.Configs = append(all.Configs, inspection.Config{
			Cookie: c.CookieName, ServerSide: c.sealer == nil, Attributes: strings.TrimPrefix(c.scope+flags, "; "),
			MaxAge: c.MaxAge, Chunks: c.MaxChunks, IdleTimeout: c.IdleTimeout, RotateEvery: c.RotateEvery, DeviceBound: c.DeviceBound,
		})
	}
	return all
}

func (i inspector) Look(values func(cookie string) bool) []inspection.Session {
	s := i.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
	s.useAll(s.m.every)
	list := make([]inspection.Session, len(s.parts))
	for i := range s.parts {
		list[i] = s.parts[i].looks(values(s.parts[i].CookieName))
	}
	return list
}

func (p *part) looks(values bool) inspection.Session {
	v := inspection.Session{Cookie: p.CookieName, Exists: p.rec != nil, Ended: p.gone, Foreign: slices.Clone(p.foreign)}
	if p.err != nil {
		v.Err = p.err
	}
	if p.rec == nil {
		return v
	}
	v.Permanent, v.Expires, v.Saved = p.rec.Permanent, p.expires(wallNow()), p.rec.Saved
	if p.sealer == nil {
		v.Handle, v.Created, v.Rotated, v.Bound = p.rec.handle(p.name.key), p.rec.Created, p.rec.Rotated, p.rec.DeviceKey != ""
	}
	for _, f := range p.appendFields(nil) {
		field := inspection.Field{Name: f.Name, Bytes: len(f.Name) + len(f.Value)}
		if values {
			field.Value = p.readable(f.Value)
		}
		v.Fields = append(v.Fields, field)
	}
	slices.SortFunc(v.Fields, func(a, b inspection.Field) int { return strings.Compare(a.Name, b.Name) })
	return v
}

// readable is an encoded value in readable form.
func (c *cookie) readable(data []byte) string {
	if _, json := c.codec.(jsonCodec); json && utf8.Valid(data) {
		return string(data)
	}
	v, err := decodeAny(c.codec, data)
	if err != nil {
		return "(cannot be decoded)"
	}
	return fmt.Sprintf("%#v", v)
}

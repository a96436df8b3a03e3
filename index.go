package sessplus

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// An Info describes a live session, for the user it belongs to or for an administrator.
type Info struct {
	Handle    string         // identifies it to Revoke and Edit, until it is renewed; it cannot be used as a cookie
	Created   time.Time      // when it was created or renewed
	LastSaved time.Time      // when a field was last saved
	Expires   time.Time      // when it ends if it is not used again
	Device    string         // the User-Agent that created it, at most 256 bytes; the client chose it, so escape it
	Fields    map[string]any // this cookie's fields, as Session.Get returns them, without those that cannot be decoded
	Bound     bool           // whether it is bound to a device's key, see Config.DeviceBound
}

// Sessions lists the live sessions of a user, most recently used first. user is the value of the [Config.IndexBy] field
// as text: "42" for the int 42, "ann" for the string "ann". The empty string matches nobody. The last use is known to
// within a tenth of [Config.IdleTimeout]; without an IdleTimeout it is the last save. The session of the current
// request is the one whose Handle equals [Session.Handle]. It is not listed before its first save.
//
// It is an error if no config has the cookie, or its config has no IndexBy. The error matches [ErrUnavailable] if the
// backend does not answer within [Options.Timeout]. Sessions may be called concurrently, and outside of a request.
func (m *Manager) Sessions(ctx context.Context, cookie, user string) ([]Info, error) {
	c, err := m.indexed(cookie, "list")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	list, err := m.owned(ctx, c, user, now)
	if err != nil {
		return nil, c.listError(err)
	}
	list, _ = once(list)
	slices.SortFunc(list, func(a, b KeyedRecord) int {
		return cmp.Or(c.lastUse(b.Record, now).Compare(c.lastUse(a.Record, now)), b.since().Compare(a.since()), strings.Compare(a.Key, b.Key))
	})
	infos := make([]Info, len(list))
	for i, r := range list {
		fields := make(map[string]any, len(r.Fields))
		for _, f := range r.Fields {
			if v, err := decodeAny(m.codec, f.Value); err == nil && m.routes.owns(c.index, f.Name) {
				fields[f.Name] = v
			}
		}
		infos[i] = Info{r.handle(r.Key), r.Created, r.Saved, c.ends(r.Record), r.Device, fields, r.DeviceKey != ""}
	}
	return infos, nil
}

// Revoke ends the session with the handle, as [Session.Destroy] does: the next request with its id, on any machine, is
// anonymous. Revoke accepts any handle, so check first that it is one of those that [Manager.Sessions] lists for the
// user. It is not an error if no live session has the handle, so Revoke can be retried. A handle survives rotations.
// After a renewal, the old handle still ends the session for [EndGrace].
//
// It is an error if no config has the cookie, its config has no [Config.IndexBy], or the handle is malformed. The error
// matches [ErrUnavailable] if the backend does not answer.
func (m *Manager) Revoke(ctx context.Context, cookie, handle string) error {
	c, err := m.indexed(cookie, "revoke")
	if err != nil {
		return err
	}
	n, err := c.parseHandle(handle, "revoke")
	if err != nil {
		return err
	}
	ended, err := m.revoke(ctx, c, []KeyedRecord{{c.recordKey(n.first), nil}}, handle)
	if ended > 0 || err != nil {
		return err
	}
	list, err := m.rotated(ctx, c, n)
	if err != nil {
		return c.listError(err)
	}
	_, err = m.revoke(ctx, c, list, handle)
	return err
}

// RevokeAll ends the sessions that [Manager.Sessions] lists for the user, except those with the given handles, and
// returns how many it has ended. Pass the [Session.Handle] of the current request to "log out everywhere else": that
// session is spared even if it is renewed in the meantime. The errors are those of [Manager.Revoke]. RevokeAll can be
// retried.
func (m *Manager) RevokeAll(ctx context.Context, cookie, user string, except ...string) (int, error) {
	c, err := m.indexed(cookie, "revoke")
	if err != nil {
		return 0, err
	}
	spared, firsts := make([]string, len(except)), make([]string, len(except))
	for i, handle := range except {
		n, err := c.parseHandle(handle, "revoke")
		if err != nil {
			return 0, err
		}
		spared[i], firsts[i] = c.recordKey(n.first), n.first
	}
	list, err := m.owned(ctx, c, user, time.Now())
	if err != nil || len(list) == 0 {
		return 0, c.listError(err)
	}
	if len(spared) > 0 {
		for _, r := range list {
			if slices.Contains(firsts, r.first(r.Key)) { // rotated so long ago that nothing leads from the handle to it
				spared = append(spared, r.Key)
			}
		}
		if spared, err = m.successors(ctx, c, spared); err != nil {
			return 0, &Error{Cookie: cookie, Op: "revoke", Err: err}
		}
		list = slices.DeleteFunc(list, func(r KeyedRecord) bool { return slices.Contains(spared, r.Key) })
	}
	list, replacing := once(list)
	n, err := m.revoke(ctx, c, list, "")
	if err == nil {
		_, err = m.revoke(ctx, c, replacing, "")
	}
	return n, err
}

// Edit calls change with the session that has the handle, outside of any request of its visitor, and saves the fields
// that it changes. The visitor's next request sees them, on any machine. Edit does not count as a use for
// [Config.IdleTimeout]. Like [Manager.Revoke], it accepts any handle.
//
// Fields of other cookies are absent. Whatever needs a Set-Cookie header ([Session.Renew], [Session.SetPermanent],
// setting fields of other cookies) is [ErrHeadersSent]. If change returns an error, Edit returns it and saves nothing,
// except what [Session.Save] or [Field.Update] have saved already. The error matches [ErrSessionGone] if there is no
// such session, or it ends in the meantime; the other errors are those of Revoke. A session that is renewed in the
// meantime is changed under its new id.
func (m *Manager) Edit(ctx context.Context, cookie, handle string, change func(s *Session) error) error {
	const op = "edit"
	c, err := m.indexed(cookie, op)
	if err != nil {
		return err
	}
	n, err := c.parseHandle(handle, op)
	if err != nil {
		return err
	}
	s := m.beside(ctx)
	p := &s.parts[c.index]
	load := &call{part: p, op: opLoad, sessionName: sessionName{key: c.recordKey(n.first)}, named: handle}
	if err := s.runFor(ctx, []*call{load}); err != nil {
		return &Error{Cookie: cookie, Op: op, Err: err}
	}
	if errors.Is(load.err, ErrNoRecord) {
		list, err := m.rotated(ctx, c, n)
		if err != nil {
			return c.listError(err)
		}
		for _, r := range list {
			load.key, load.record, load.err = r.Key, r.Record, nil
		}
	}
	s.loaded(load, time.Now())
	switch {
	case errors.Is(load.err, ErrNoRecord) || load.err == nil && (!c.alive(load.record, time.Now()) || len(load.record.Fields) == 0):
		return &Error{Cookie: cookie, Op: op, Err: ErrSessionGone}
	case load.err != nil:
		return &Error{Cookie: cookie, Op: op, Err: load.err}
	}
	p.name, p.held, p.quiet = load.sessionName, true, true
	p.take(m, load.record)
	if err := change(s); err != nil {
		return err
	}
	err = s.Save()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && p.gone { // no error with DropIfGone
		err = &Error{Cookie: cookie, Op: op, Err: ErrSessionGone}
	}
	return err
}

// indexed returns the cookie, which must have an IndexBy.
func (m *Manager) indexed(name, op string) (*cookie, error) {
	for _, c := range m.cookies {
		if c.CookieName == name && c.IndexBy != "" {
			return c, nil
		}
		if c.CookieName == name {
			return nil, &Error{Cookie: name, Op: op, Err: errors.New("its config has no IndexBy, so its sessions cannot be found by user")}
		}
	}
	return nil, &Error{Cookie: name, Op: op, Err: errors.New("no config has this cookie")}
}

// A handle is the tail of the first key of the session's record, and the tail of its Owner if it has one, by which the
// session is found after its key has changed.

// tail is the part of a record's key that distinguishes the sessions of one cookie.
func tail(key string) string { return key[strings.LastIndexByte(key, ':')+1:] }

// first is the tail of the key that the record had before it was rotated.
func (r *Record) first(key string) string {
	if _, first, rotated := strings.Cut(r.Origin, "."); rotated {
		first, _, _ = strings.Cut(first, ".")
		return first
	}
	return tail(key)
}

// handle names the session of a record that has this key.
func (r *Record) handle(key string) string {
	if i := strings.LastIndexByte(r.Owner, '@'); i >= 0 {
		return r.first(key) + "-" + r.Owner[i+1:]
	}
	return r.first(key)
}

// handle names the session of the call, as far as it is known.
func (c *call) handle() string {
	switch {
	case c.named != "":
		return c.named
	case c.record != nil:
		return c.record.handle(c.key)
	case c.change != nil && c.change.Seen != nil:
		return c.change.Seen.handle(c.key)
	case c.ending != nil && c.ending.Seen != nil:
		return c.ending.Seen.handle(c.key)
	}
	return tail(c.key)
}

// A named session is one that a handle names.
type named struct{ first, owner string }

// parseHandle parses a handle.
func (c *cookie) parseHandle(handle, op string) (n named, err error) {
	first, owner, owned := strings.Cut(handle, "-")
	if !isHex(first, sha256.Size) || owned && !isHex(owner, ownerBytes) {
		return n, &Error{Cookie: c.CookieName, Op: op, Err: errors.New("the handle is malformed: Session.Handle and Info.Handle give one")}
	}
	if owned {
		owner = c.ownerPrefix() + owner
	}
	return named{first, owner}, nil
}

func isHex(text string, bytes int) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == bytes && text == strings.ToLower(text)
}

// rotated finds the record of a session that was rotated so long ago that the tombstone under its first key is gone.
func (m *Manager) rotated(ctx context.Context, c *cookie, n named) (list []KeyedRecord, err error) {
	if n.owner == "" {
		return nil, nil
	}
	list, err = m.ownedBy(ctx, c, n.owner)
	return slices.DeleteFunc(list, func(r KeyedRecord) bool { return r.first(r.Key) != n.first }), err
}

func (c *cookie) recordKey(tail string) string { return c.KeyPrefix + c.CookieName + ":" + tail }

func (c *cookie) listError(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Cookie: c.CookieName, Op: "list", Err: fmt.Errorf("%w: %w", ErrUnavailable, err)}
}

// beside makes a session that belongs to no request: nothing is loaded yet, and there is no response.
func (m *Manager) beside(ctx context.Context) *Session {
	s := &newRequest(len(m.cookies)).ctx.s
	s.m, s.ctx, s.sent = m, ctx, true
	for i, c := range m.cookies {
		s.parts[i].cookie, s.parts[i].state = c, loaded
	}
	return s
}

// runFor makes the calls, unless the caller has already given up.
func (s *Session) runFor(ctx context.Context, calls []*call) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.run(calls)
	return nil
}

// owned returns the live records of the user.
func (m *Manager) owned(ctx context.Context, c *cookie, user string, now time.Time) ([]KeyedRecord, error) {
	owner := c.ownerOf(user)
	if owner == "" {
		return nil, nil
	}
	list, err := m.ownedBy(ctx, c, owner)
	return slices.DeleteFunc(list, func(r KeyedRecord) bool {
		value := r.valueOf(c.IndexBy)
		if value == nil || !c.alive(r.Record, now) {
			return true
		}
		text, _ := userText(m.codec, value)
		return text != user
	}), err
}

// ownedBy returns the records of the owner.
func (m *Manager) ownedBy(ctx context.Context, c *cookie, owner string) ([]KeyedRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	start := time.Now()
	list, err := c.Backend.(Indexer).Owned(ctx, owner)
	if err != nil {
		made := &call{began: start.UnixNano(), took: time.Since(start)}
		m.beside(ctx).failed(c, EventLoad, made, c.listError(err))
	}
	return list, err
}

// once splits the list into the records of distinct sessions, and those that are about to replace one of them. Until
// the old one has ended, what is done to it applies to its successor as well, which is not known yet.
func once(list []KeyedRecord) (sessions, successors []KeyedRecord) {
	var taken []string
	for _, r := range list {
		if r.Mark != nil {
			taken = append(taken, r.Mark.Token)
		}
	}
	for _, r := range list {
		if slices.Contains(taken, tail(r.Key)) {
			successors = append(successors, r)
		} else {
			sessions = append(sessions, r)
		}
	}
	return sessions, successors
}

// since is when the record was created under its present id.
func (r *Record) since() time.Time {
	if r.Rotated.After(r.Created) {
		return r.Rotated
	}
	return r.Created
}

// ends is when a record ends, by its own expiry and by the present config.
func (c *cookie) ends(r *Record) time.Time {
	if life := c.lifetime(r.Permanent); life > 0 && r.Created.Add(life).Before(r.Expires) {
		return r.Created.Add(life)
	}
	return r.Expires
}

// lastUse is when the session was last used, as far as its record shows: only the last save, if that was under a longer
// IdleTimeout. Clocks of other machines may be a minute ahead.
func (c *cookie) lastUse(r *Record, now time.Time) time.Time {
	if c.IdleTimeout > 0 {
		if used := r.Expires.Add(-c.IdleTimeout); used.After(r.Saved) && !used.After(now.Add(time.Minute)) {
			return used
		}
	}
	return r.Saved
}

// How many sessions are ended concurrently: in one round trip, or with a goroutine for each.
const (
	revokedTogether = 1000
	revokedBeside   = 32
)

// revoke ends records and their successors for good, and returns how many it has ended. named is the handle that the
// program has passed for one, or "".
func (m *Manager) revoke(ctx context.Context, c *cookie, list []KeyedRecord, named string) (ended int, err error) {
	s := m.beside(ctx)
	step := revokedBeside
	if c.batch != nil {
		step = revokedTogether
	}
	for some := range slices.Chunk(list, step) {
		calls := make([]*call, len(some))
		for i, r := range some {
			calls[i] = s.parts[c.index].endCall(r.Key)
			calls[i].ending.Seen, calls[i].named = r.Record, named
		}
		if err := s.runFor(ctx, calls); err != nil {
			return ended, &Error{Cookie: c.CookieName, Op: "revoke", Err: err}
		}
		for _, call := range calls {
			switch {
			case call.err == nil:
				ended++
				s.event(c, EventDestroy, call, nil)
			case !errors.Is(call.err, ErrNoRecord):
				s.event(c, EventError, call, nil)
				err = &Error{Cookie: c.CookieName, Op: "revoke", Err: call.err}
			}
		}
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// successors returns the keys, and those of all successors that renewals and rotations have created, or are about to.
func (m *Manager) successors(ctx context.Context, c *cookie, keys []string) ([]string, error) {
	s := m.beside(ctx)
	all := slices.Clone(keys)
	for len(keys) > 0 {
		calls := make([]*call, len(keys))
		for i, key := range keys {
			calls[i] = &call{part: &s.parts[c.index], op: opLoad, sessionName: sessionName{key: key}, still: true}
		}
		if err := s.runFor(ctx, calls); err != nil {
			return nil, err
		}
		keys = nil
		for _, call := range calls {
			next := nextKey(call.err)
			switch {
			case next != "" && !slices.Contains(all, next):
				all, keys = append(all, next), append(keys, next)
			case call.err != nil && !errors.Is(call.err, ErrNoRecord):
				s.event(c, EventError, call, nil)
				return nil, call.err
			case call.err == nil && call.record.Mark != nil:
				all = append(all, c.recordKey(call.record.Mark.Token))
			}
		}
	}
	return all, nil
}

// maxDevice is the longest User-Agent that a record keeps, in bytes.
const maxDevice = 256

// device is the part of a User-Agent that a record keeps.
func device(agent string) string {
	agent = strings.ToValidUTF8(agent, "")
	if len(agent) > maxDevice {
		agent = agent[:maxDevice]
		for !utf8.ValidString(agent) {
			agent = agent[:len(agent)-1]
		}
	}
	return agent
}

// userText is the user that the encoded value of an IndexBy field names, "" for nobody. A value that is not text, a
// number or a bool names nobody.
func userText(codec Codec, value []byte) (user string, ok bool) {
	if value == nil {
		return "", true
	}
	v, err := decodeAny(codec, value)
	switch kind := reflect.ValueOf(v).Kind(); {
	case err != nil:
		return "", false
	case kind == reflect.Invalid: // nil
		return "", true
	case kind == reflect.Bool, kind == reflect.String, kind >= reflect.Int && kind <= reflect.Float64:
		return fmt.Sprint(v), true
	}
	return "", false
}

// ownerOf is the [Record.Owner] of a user's sessions. It fits every store, whatever the user's name is.
func (c *cookie) ownerOf(user string) string {
	if user == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(user))
	return c.ownerPrefix() + hex.EncodeToString(sum[:ownerBytes])
}

// ownerBytes is how many bytes of the hash of a user's name an owner has.
const ownerBytes = sha256.Size / 2

func (c *cookie) ownerPrefix() string { return c.KeyPrefix + c.CookieName + "@" }

// owner is the [Record.Owner] that the part's session should have, with IndexBy.
func (p *part) owner() (owner string, err error) {
	e, _ := p.entries.find(p.IndexBy)
	owner, err = p.ownerBy(e.value)
	if err != nil && !e.dirty() { // the stored value names nobody, and this request did not set it
		return p.rec.Owner, nil
	}
	return owner, err
}

// ownerBy is the [Record.Owner] for an encoded value of the IndexBy field.
func (c *cookie) ownerBy(value []byte) (owner string, err error) {
	user, ok := userText(c.codec, value)
	if !ok {
		return "", &fieldError{c.IndexBy, "names the user for IndexBy, and must be text, a number or a bool", nil}
	}
	return c.ownerOf(user), nil
}

// misfiled reports whether the record is not indexed as the config says, because it is older than IndexBy or its last
// change.
func (p *part) misfiled() bool {
	if p.IndexBy == "" || p.rec == nil || !p.used {
		return false
	}
	owner, err := p.owner()
	return err == nil && owner != p.rec.Owner
}

// file makes the save set the owner of the session, if IndexBy requires it.
func (s *Session) file(v *save) {
	p := v.part
	if p.IndexBy == "" || v.main == nil || v.err != nil {
		return
	}
	owner, err := p.owner()
	e, _ := p.entries.find(p.IndexBy)
	v.named = owner != "" && e.saved == nil
	switch {
	case err != nil:
		v.err, v.main, v.take = p.saveError(err), nil, nil
	case v.creates():
		v.main.record.Owner, v.main.record.Device = owner, device(s.agent)
	case v.main.change != nil:
		if owner != p.rec.Owner && !e.dirty() { // unless another request changes the field meanwhile
			v.main.change.Owner, v.main.change.Match = &owner, append(v.main.change.Match, RawField{p.IndexBy, e.saved})
		} else {
			p.fileChange(v.main.change)
		}
	}
}

// fileChange lets a change that sets or removes the IndexBy field set the Owner, in the same atomic step.
func (c *cookie) fileChange(change *Change) (err error) {
	if c.IndexBy == "" {
		return nil
	}
	var owner string
	for _, f := range change.Set {
		if f.Name == c.IndexBy {
			owner, err = c.ownerBy(f.Value)
			change.Owner = &owner
		}
	}
	if slices.Contains(change.Delete, c.IndexBy) {
		change.Owner = &owner
	}
	return err
}

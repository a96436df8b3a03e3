package sessplus

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
)

// SecureCookie returns the backend that stores the fields in the cookie itself, signed and, with a Block key, encrypted
// by gorilla/securecookie. It needs [Config.Keys] or [Options.Keys]. Name and value may have 4096 bytes, which is about
// 2.2 kB of fields; [Config.MaxChunks] allows more. A visitor can bring back an old copy of the cookie until it is too
// old: whatever must not come back (a login, a balance) belongs in a server-side backend, or needs [Config.BoundTo].
func SecureCookie() Backend { return secureCookie{} }

// secureCookie stands for "in the cookie" in a Config. It has no records, and its methods are never called.
type secureCookie struct{}

func (secureCookie) String() string { return "secure cookie" }

func (secureCookie) Load(context.Context, string) (*Record, error) { return nil, ErrNoRecord }
func (secureCookie) Create(context.Context, string, *Record) error { return errors.ErrUnsupported }
func (secureCookie) Update(context.Context, string, *Change) (Result, error) {
	return Result{}, ErrNoRecord
}
func (secureCookie) End(context.Context, string, *Ending) (*Record, error) { return nil, ErrNoRecord }

// maxCookieBytes is the limit of browsers for a cookie's name and value together (RFC 6265 section 6.1).
const maxCookieBytes = 4096

// maxClockSkew is how far a time stamp may be in the future, that is, how much the clocks of two servers may differ.
const maxClockSkew = time.Minute

// Why the text of a cookie is rejected. None of them quotes it.
var (
	errMalformed = errors.New("malformed")
	errSplit     = errors.New("split over more cookies than the config takes; raise MaxChunks")
	errForged    = errors.New("not signed with any of the keys")
	errExpired   = errors.New("expired")
	errFuture    = errors.New("written in the future")
	errForeign   = errors.New("not written by sessplus, or malformed (version 1 is known)")
	errVersion   = errors.New("written by a later version of sessplus, or not written by sessplus (version 1 is known)")
	errUnbound   = errors.New("not bound to the session that BoundTo names")
)

// A sealer writes and reads the text of secure cookies.
type sealer struct {
	codecs   []*securecookie.SecureCookie // newest first
	encrypts bool                         // the first of them
}

func newSealer(keys []KeyPair) *sealer {
	s := &sealer{encrypts: len(keys[0].Block) > 0}
	for _, k := range keys {
		s.codecs = append(s.codecs, k.codec(true))
	}
	return s
}

// seal returns the text of a cookie with that content. The encoding of a securecookie is "date|base64 of the
// content|MAC" in base64, and its MAC covers the cookie's name as well.
func (s *sealer) seal(name string, content []byte) (string, error) {
	return s.codecs[0].Encode(name, content) // encrypts content in place
}

// open reads the content of a cookie's text, and reports whether an older key wrote it. data holds its bytes. A valid
// MAC does not prove that the key is the right one: pairs may share their Hash, and another Block key turns the content
// into noise.
func (s *sealer) open(name, text string, data *[]byte, content *sealedContent) (older bool, err error) {
	err = errForged
	for i, c := range s.codecs {
		if c.Decode(name, text, data) != nil {
			continue
		}
		wrong := content.read(text, *data)
		if wrong == nil {
			return i > 0, nil
		}
		if err == errForged {
			err = wrong
		}
	}
	return false, err
}

// read decodes the content of a text. Both have the date of one writing.
func (c *sealedContent) read(text string, data []byte) error {
	if err := c.decode(data); err != nil {
		return err
	}
	if dated, ok := writtenAt(text); !ok || c.written.Sub(dated).Abs() > maxClockSkew {
		return errForeign
	}
	return nil
}

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// canonical reports whether text is the only encoding of its bytes. Base64 decoding ignores line breaks and stray bits
// at the end, so without this check an altered text could be accepted.
func canonical(text string) bool {
	digits := strings.TrimRight(text, "=")
	if digits == "" {
		return false
	}
	stray := 1<<(2*(len(text)-len(digits))) - 1 // bits of the last digit that encode nothing
	return strings.IndexByte(base64Digits, digits[len(digits)-1])&stray == 0 &&
		strings.IndexByte(text, '\r') < 0 && strings.IndexByte(text, '\n') < 0
}

// isBase64 reports whether text consists of base64 digits and padding.
func isBase64(text string) bool {
	digits := strings.TrimRight(text, "=")
	for i := 0; i < len(digits); i++ {
		if c := digits[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return digits != ""
}

// writtenAt reads the date of a securecookie: ten digits and "|", as for any from 2001 to 2286.
func writtenAt(text string) (t time.Time, ok bool) {
	const digits, bytes, base64ed = 10, 12, 16
	if len(text) < base64ed {
		return t, false
	}
	var head [bytes]byte
	if _, err := base64.URLEncoding.Decode(head[:], []byte(text[:base64ed])); err != nil || head[digits] != '|' {
		return t, false
	}
	seconds, ok := parseDigits(stringOf(head[:digits]))
	return time.Unix(seconds, 0), ok
}

// parseDigits parses a decimal number without a sign, for a fraction of what ParseInt takes.
func parseDigits(s string) (n int64, ok bool) {
	const safe = 18 // digits fit an int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, 0 < len(s) && len(s) <= safe
}

// The content of a secure cookie, before securecookie seals it:
//
//	version 1 | flags | when it was written | 32 bytes of the bound session, if flagged | for each field: name, value
//
// The time is 48 bits of Unix milliseconds, because a securecookie's own date has whole seconds only. A name or value
// is its length as a uvarint and then its bytes.
const (
	contentVersion = 1
	contentHead    = 2 + 6

	// What other code seals with the same keys begins otherwise: with 12 or more for a map in gob, gorilla's
	// default, and with a character in JSON. So up to here it may be a version that is yet to come.
	lastPlausible = contentVersion + 7
)

const (
	flagPermanent = 1 << iota
	flagBound
)

// binding names a session inside the content of a cookie that is bound to it: a hash, so that a signed cookie does
// not show the id that an HttpOnly cookie hides.
func binding(id string) []byte {
	sum := sha256.Sum256([]byte("sessplus bound to " + id))
	return sum[:]
}

// A sealedContent is what a secure cookie says.
type sealedContent struct {
	written   time.Time
	permanent bool
	bound     []byte // what binding says of the session that it belongs to, nil for none
	fields    []RawField
}

func (c *sealedContent) encode() []byte {
	size := contentHead + len(c.bound)
	for _, f := range c.fields {
		size += 2*binary.MaxVarintLen32 + len(f.Name) + len(f.Value)
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, size), uint64(c.written.UnixMilli()))
	b[0], b[1] = contentVersion, 0 // the milliseconds leave them free until the year 10889
	if c.permanent {
		b[1] |= flagPermanent
	}
	if c.bound != nil {
		b[1] |= flagBound
		b = append(b, c.bound...)
	}
	for _, f := range c.fields {
		b = append(binary.AppendUvarint(b, uint64(len(f.Name))), f.Name...)
		b = append(binary.AppendUvarint(b, uint64(len(f.Value))), f.Value...)
	}
	return b
}

// decode is the inverse of encode. It reuses the memory of c.fields.
func (c *sealedContent) decode(b []byte) error {
	if len(b) < contentHead || b[0] == 0 || b[0] > lastPlausible {
		return errForeign
	}
	flags := b[1]
	if b[0] != contentVersion || flags&^(flagPermanent|flagBound) != 0 {
		return errVersion
	}
	c.permanent = flags&flagPermanent != 0
	c.written = time.UnixMilli(int64(binary.BigEndian.Uint64(b) & (1<<48 - 1)))
	b, c.bound = b[contentHead:], nil
	if flags&flagBound != 0 {
		if len(b) < sha256.Size {
			return errForeign
		}
		c.bound, b = b[:sha256.Size], b[sha256.Size:]
	}
	for c.fields = c.fields[:0]; len(b) > 0; {
		name, next, ok := contentText(b, 0)
		if !ok {
			return errForeign
		}
		value, end, ok := contentText(b, next)
		if !ok {
			return errForeign
		}
		c.fields, b = append(c.fields, RawField{stringOf(name), value}), b[end:]
	}
	return nil
}

// contentText returns the name or value at an index of b, and the index after it.
func contentText(b []byte, at int) (text []byte, next int, ok bool) {
	if at >= len(b) {
		return nil, 0, false
	}
	n, size := uint64(b[at]), 1
	if n >= 0x80 {
		n, size = binary.Uvarint(b[at:])
	}
	at += size
	if size <= 0 || n > uint64(len(b)-at) {
		return nil, 0, false
	}
	next = at + int(n)
	return b[at:next:next], next, true
}

// A longer text is split over cookies: the first one holds "n.tag.text", the others "tag.text". The tag tells the
// chunks of one writing from those of another, or from a stray cookie of the same name; the MAC does the rest.
const chunkTagBytes = 6

func chunkName(name string, n int) string {
	if n == 0 {
		return name
	}
	return name + "." + strconv.Itoa(n)
}

// split appends to chunks the values of the cookies over which text is spread, or returns nil if they would be more
// than most.
func split(name, text string, most int, chunks []string) []string {
	if len(name)+len(text) <= maxCookieBytes {
		return append(chunks, text)
	}
	sum := sha256.Sum256([]byte(text))
	tag := base64.RawURLEncoding.EncodeToString(sum[:chunkTagBytes]) + "."
	prefix := func(n int) int { // what precedes the text in chunk n
		if n == 0 {
			return len("nn.") + len(tag)
		}
		return len(tag)
	}
	for n := 0; text != ""; n++ {
		room := maxCookieBytes - len(chunkName(name, n)) - prefix(n)
		if n == most || room <= 0 {
			return nil
		}
		room = min(room, len(text))
		chunks = append(chunks, tag+text[:room])
		text = text[room:]
	}
	chunks[0] = strconv.Itoa(len(chunks)) + "." + chunks[0]
	return chunks
}

// firstChunk parses the value of the first cookie: the number of chunks, their tag, and its part of the text.
func firstChunk(value string) (n int, tag, text string, ok bool) {
	count, rest, found := strings.Cut(value, ".")
	if !found {
		return 1, "", value, true
	}
	n, err := strconv.Atoi(count)
	tag, text, found = strings.Cut(rest, ".")
	return n, tag, text, found && err == nil && n > 1
}

// join reassembles a text from the value of the first cookie and those of its other chunks, among all that came. It
// does not even try if that is longer than a cookie can be, or has more than most chunks.
func join(first string, all []candidate, most int) (string, error) {
	n, tag, text, ok := firstChunk(first)
	if ok && n > most && n <= maxChunks {
		return "", errSplit
	}
	if !ok || n > most || n == 1 && len(text) > most*maxCookieBytes || n > 1 && len(first) > maxCookieBytes {
		return "", errMalformed
	}
	if n == 1 {
		return text, nil
	}
	tag += "."
	chunks := append(make([]string, 0, maxChunks), text)
	for chunk := 1; chunk < n; chunk++ {
		i := slices.IndexFunc(all, func(c candidate) bool { return c.chunk == chunk && strings.HasPrefix(c.text, tag) })
		if i < 0 || len(all[i].text) > maxCookieBytes {
			return "", errMalformed
		}
		chunks = append(chunks, all[i].text[len(tag):])
	}
	return strings.Join(chunks, ""), nil
}

// unseal decodes the text of a secure cookie into a record. bound is what binding says of the session that the content
// must belong to, nil for none.
func (c *cookie) unseal(first string, all []candidate, bound []byte, now time.Time) (r *Record, older bool, err error) {
	text, err := join(first, all, c.MaxChunks)
	if err != nil {
		return nil, false, err
	}
	if !canonical(text) {
		return nil, false, errMalformed
	}
	opened := new(struct { // one allocation
		Record
		data   []byte
		fields [fewFields]RawField
	})
	content := sealedContent{fields: opened.fields[:0]}
	if older, err = c.sealer.open(c.CookieName, text, &opened.data, &content); err != nil {
		return nil, false, err
	}
	written := content.written
	r = &opened.Record
	*r = Record{Created: written, Saved: written, Permanent: content.permanent, Fields: content.fields}
	r.Expires = written.Add(c.contentAge(r.Permanent))
	r.inherit()
	switch {
	case written.After(now.Add(maxClockSkew)):
		return nil, false, errFuture
	case !r.Expires.After(now):
		return nil, false, errExpired
	case subtle.ConstantTimeCompare(content.bound, bound) != 1:
		return nil, false, errUnbound
	}
	return r, older, nil
}

// seal appends to values that of the cookie, and those of its chunks.
func (c *cookie) seal(content *sealedContent, values []string) ([]string, error) {
	text, err := c.sealer.seal(c.CookieName, content.encode())
	if err != nil {
		return nil, errors.New("securecookie cannot encode") // its text may quote anything
	}
	if c.packed { // with others, and split with them
		return append(values, text), nil
	}
	chunks := split(c.CookieName, text, c.MaxChunks, values)
	if chunks == nil {
		return nil, tooLargeError(largest(content.fields).Name, len(c.CookieName)+len(text))
	}
	return chunks, nil
}

// largest returns the field with the largest value, of those that the program knows.
func largest(fields []RawField) RawField {
	size := func(f RawField) int { return len(f.Value) * min(len(f.Name), 1) } // the legacy has no name
	return slices.MaxFunc(fields, func(a, b RawField) int { return cmp.Compare(size(a), size(b)) })
}

// tooLargeError reports a cookie that is too large, and its largest field.
func tooLargeError(field string, bytes int) error {
	return &fieldError{field, "is the largest of a cookie that would have " + strconv.Itoa(bytes) +
		" bytes, more than browsers keep; a server-side backend is the better home for it", ErrTooLarge}
}

// A signer signs ids, so that one that was never issued does not reach a backend.
type signer struct {
	codecs []*securecookie.SecureCookie // newest first; signing only
}

func newSigner(keys []KeyPair) *signer {
	s := &signer{}
	for _, k := range keys {
		s.codecs = append(s.codecs, k.codec(false))
	}
	return s
}

func (s *signer) sign(name, id string) (string, error) { return s.codecs[0].Encode(name, []byte(id)) }

// verify returns the id of a signed text, and whether an older key signed it.
func (s *signer) verify(name, text string) (id string, older bool, err error) {
	if len(text) > maxCookieBytes || !canonical(text) {
		return "", false, errMalformed
	}
	var content []byte
	for i, c := range s.codecs {
		if c.Decode(name, text, &content) == nil {
			return string(content), i > 0, nil
		}
	}
	return "", false, errForged
}

// idBytes is the entropy of an id: 256 bits, where OWASP asks for 64. Its text has idLength characters.
const (
	idBytes  = 32
	idLength = (idBytes*8 + 5) / 6
)

// strictRaw rejects stray bits after the last byte.
var strictRaw = base64.RawURLEncoding.Strict()

// validID reports whether s has the form of an id, and is the only text for its bytes: the last digit encodes four bits
// of its six.
func validID(s string) bool {
	return len(s) == idLength && isBase64(s) && strings.IndexByte(base64Digits, s[idLength-1])%4 == 0
}

// decodeID returns the bytes of a valid id.
func decodeID(id string) []byte {
	b, _ := strictRaw.DecodeString(id)
	return b
}

func encodeID(b [idBytes]byte) string {
	return string(base64.RawURLEncoding.AppendEncode(make([]byte, 0, 64), b[:]))
}

// newID draws an id.
func newID() string {
	var b [idBytes]byte
	rand.Read(b[:]) // never fails
	return encodeID(b)
}

package sessplus

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Device Bound Session Credentials (https://w3c.github.io/webappsec-dbsc/): the record of a session keeps the public
// half of a key that cannot leave the visitor's device. Besides the id, a request then needs a second, short-lived
// cookie, which the browser gets for a proof of the key. Only the key is stored: that cookie, and the challenges that
// proofs answer, are times with an HMAC.

// A DeviceKeeper is a [Backend] that keeps [Record.DeviceKey], as [Config.DeviceBound] requires. [Redis], [Firestore],
// [Memory] and package sessplussql's backend are DeviceKeepers. sessplustest.TestBackend checks what the method
// promises.
type DeviceKeeper interface {
	Backend

	// KeepsDeviceKeys promises that Create, Update and End keep Record.DeviceKey, and that Update sets it as
	// [Change.DeviceKey] says. It is never called.
	KeepsDeviceKeys()
}

const (
	defaultDevicePath = "/.sessplus/device"

	minDeviceBound = 4 * time.Minute // see SPEC 14.1
	bindGrace      = time.Minute     // requests may be under way that began before the registration
	challengeAge   = time.Minute
	reloadAge      = 10 * time.Second // how long no second reload is requested

	boundSuffix  = "-bound"
	reloadSuffix = "-reload"
)

// A dbsc is what a cookie with DeviceBound has in addition.
type dbsc struct {
	keys   [][]byte // for HMACs, newest first
	bound  *cookie  // the short-lived one
	reload *cookie  // says that a reload was requested

	scope                 string // the path above the endpoints
	registration, refresh string // their paths, as in a URL
}

// prepareDevice completes a cookie with DeviceBound.
func (c *cookie) prepareDevice(keys []KeyPair) {
	d := &dbsc{keys: deriveKeys(keys, "device "+c.CookieName)}
	also := func(suffix string) *cookie {
		k := &cookie{Config: Config{CookieName: c.CookieName + suffix, Path: "/", Secure: SecureAlways, SameSite: c.SameSite}}
		k.prepareLines()
		return k
	}
	d.bound, d.reload = also(boundSuffix), also(reloadSuffix)
	c.device = d
}

// What an HMAC is for. Two of them are also the names of the endpoints.
const (
	forBound        = "bound"
	forRegistration = "registration"
	forRefresh      = "refresh"
)

// A pledge is a time that this program has signed for one purpose and one subject: eight bytes of Unix milliseconds,
// maybe a nonce, and the HMAC, in base64.

const nonceBytes = 8

func (d *dbsc) pledge(purpose, subject string, at time.Time, nonce []byte) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 64), uint64(at.UnixMilli()))
	b = append(b, nonce...)
	return strictRaw.EncodeToString(append(b, pledgeMAC(d.keys[0], purpose, subject, b)...))
}

func pledgeMAC(key []byte, purpose, subject string, content []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose + "\x00" + subject + "\x00"))
	mac.Write(content)
	return mac.Sum(nil)
}

// open returns the time of a pledge, if it is one.
func (d *dbsc) open(purpose, subject, text string, nonce int) (at time.Time, ok bool) {
	size := 8 + nonce
	if len(text) != strictRaw.EncodedLen(size+sha256.Size) {
		return at, false
	}
	b, err := strictRaw.DecodeString(text)
	if err != nil || len(b) != size+sha256.Size { // a line break would leave fewer bytes
		return at, false
	}
	for _, key := range d.keys {
		if hmac.Equal(pledgeMAC(key, purpose, subject, b[:size]), b[size:]) {
			return time.UnixMilli(int64(binary.BigEndian.Uint64(b))), true
		}
	}
	return at, false
}

// challenge makes one for a purpose and a subject.
func (d *dbsc) challenge(purpose, subject string, now time.Time) string {
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce) // never fails
	return d.pledge(purpose, subject, now, nonce)
}

// answers reports whether a challenge was made for this purpose and subject less than challengeAge ago. The clock of
// the machine that made it may be ahead.
func (d *dbsc) answers(purpose, subject, challenge string, now time.Time) bool {
	at, ok := d.open(purpose, subject, challenge, nonceBytes)
	age := now.Sub(at)
	return ok && age < challengeAge && age > -maxClockSkew
}

// A deviceKey is what [Record.DeviceKey] says: the thumbprint of the key, when it was registered, and the key.
type deviceKey struct {
	thumbprint string
	since      time.Time
	public     string // as encodePublic returns it
}

func (k deviceKey) String() string {
	return k.thumbprint + "." + strconv.FormatInt(k.since.UnixMilli(), 10) + "." + k.public
}

// parseDeviceKey is the inverse of String. Text that it cannot parse becomes a key that nobody has.
func parseDeviceKey(text string) (k deviceKey) {
	thumbprint, rest, _ := strings.Cut(text, ".")
	since, public, _ := strings.Cut(rest, ".")
	if ms, err := strconv.ParseInt(since, 10, 64); err == nil && validID(thumbprint) {
		k = deviceKey{thumbprint, time.UnixMilli(ms), public}
	}
	return k
}

// A proof is what a request says about the device that it comes from.
type proof struct {
	texts    []string           // values of the short-lived cookie
	skipped  string             // why the browser has not renewed it, in a header
	endpoint bool               // the request is about to prove it
	meant    func(c *call) bool // which of several sessions an endpoint is asked for; nil: the first
	valid    bool               // one of texts is valid for the session
	unproven bool               // none is, so there is no session
	offers   bool               // the response offers a registration
	offer    string             // in this header
}

// bringProof notes a value of the short-lived cookie.
func (p *part) bringProof(text string) {
	if len(p.proof.texts) < maxCandidates && len(text) <= maxProof {
		p.proof.texts = append(p.proof.texts, text)
	}
}

// subject names the session, for as long as it keeps its key.
func (r *Record) subject(id, thumbprint string) string { return string(r.binding(id)) + thumbprint }

// admits reports whether the request may have the session that a load has found. If not, it tells OnEvent why.
func (s *Session) admits(c *call, now time.Time) bool {
	p, r := c.part, c.record
	switch {
	case p.device == nil:
		return true
	case p.proof.endpoint:
		return p.proof.meant == nil || p.proof.meant(c)
	case r.DeviceKey == "":
		return true
	}
	key := parseDeviceKey(r.DeviceKey)
	reason := "missing"
	for _, text := range p.proof.texts {
		until, ok := p.device.open(forBound, r.subject(c.id, key.thumbprint), text, 0)
		switch {
		case ok && until.After(now):
			p.proof.valid, p.proof.unproven = true, false
			return true
		case ok:
			reason = "expired"
		case reason == "missing":
			reason = "forged"
		}
	}
	admitted := now.Before(key.since.Add(bindGrace))
	if skipped := p.proof.skippedFor(key.thumbprint); skipped != "" {
		s.unproven(c, EventLoad, skipped)
	} else if !admitted {
		s.unproven(c, EventLoad, reason)
	}
	p.proof.unproven = !admitted
	return admitted
}

// unproven reports a request without a proof by the session's key, or a wrong proof, to OnEvent.
func (s *Session) unproven(made *call, op EventKind, reason string) {
	if s.m.onEvent != nil {
		s.tell(made.part.cookie, Event{Kind: EventUnproven, Op: op, Reason: reason}, made)
	}
}

// maxSkipped is how much of a Secure-Session-Skipped header is read.
const maxSkipped = 1024

// skippedFor returns why the browser has not renewed the proof of that key, or "" if it does not say.
func (p *proof) skippedFor(thumbprint string) string {
	if len(p.skipped) > maxSkipped {
		return ""
	}
	for item := range strings.SplitSeq(p.skipped, ",") {
		token, params, _ := strings.Cut(item, ";")
		switch token = strings.Trim(token, " \t"); token {
		case "unreachable", "server_error", "quota_exceeded":
		default:
			continue
		}
		_, id, named := strings.Cut(params, "session_identifier=")
		if id, _, _ = strings.Cut(id, ";"); !named || bareItem(id) == thumbprint {
			return token
		}
	}
	return ""
}

// DeviceBound reports whether the device that the session of the cookie is bound to has proved its key for this
// request: the request has a cookie that was issued for a signature less than [Config.DeviceBound] ago. It is false for
// a session that is not bound, as in browsers without support, and in the first minute after the registration until the
// browser sends that cookie.
func (s *Session) DeviceBound(cookie string) bool {
	return inspect(s, cookie, func(p *part) bool { return p.rec != nil && p.rec.DeviceKey != "" && p.proof != nil && p.proof.valid })
}

// keepOffer notes that the response must offer a registration: the browser gets a new id, or the session now names a
// user.
func (s *Session) keepOffer(v *save, failed bool) {
	p := v.part
	if p.device == nil || failed || p.rec == nil || v.drop {
		return
	}
	if v.rotated != nil && !v.joined || v.written && (v.named || v.creates() && v.renews) {
		p.proof.offers = true
	}
}

// offerRegistrations writes the headers that let a browser make keys, and register them.
func (s *Session) offerRegistrations(h http.Header) {
	const name = "Secure-Session-Registration"
	for i := range s.parts {
		p := &s.parts[i]
		if p.proof == nil || !p.proof.offers || p.rec == nil || p.rec.DeviceKey != "" || !p.secureOver(s.tls) {
			continue
		}
		if p.proof.offer == "" {
			challenge := p.device.challenge(forRegistration, p.rec.subject(p.name.id, ""), time.Now())
			p.proof.offer = `(ES256 RS256);path="` + p.device.registration + `";challenge="` + challenge + `"`
		}
		if !slices.Contains(h[name], p.proof.offer) {
			h[name] = append(h[name], p.proof.offer)
		}
	}
}

// dropProof makes the browser drop the short-lived cookie together with the id.
func (p *part) dropProof(lines []string, now time.Time) []string {
	if p.proof == nil || len(p.proof.texts) == 0 {
		return lines
	}
	return append(lines, p.device.bound.setCookie(p.device.bound.CookieName, "", -1, now, true))
}

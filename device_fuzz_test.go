package sessplus

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// signProof makes a proof with any header and claims.
func signProof(t testing.TB, key crypto.Signer, header, claims string) string {
	t.Helper()
	text := strictRaw.EncodeToString([]byte(header)) + "." + strictRaw.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(text))
	var signature []byte
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		signature = make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
	default:
		var err error
		if signature, err = key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	return text + "." + strictRaw.EncodeToString(signature)
}

func jwkOf(key crypto.PublicKey) string {
	encode := strictRaw.EncodeToString
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		b, _ := key.Bytes()
		return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":"%s","y":"%s"}`, encode(b[1:33]), encode(b[33:]))
	case *rsa.PublicKey:
		return fmt.Sprintf(`{"kty":"RSA","n":"%s","e":"%s"}`, encode(key.N.Bytes()), encode(big.NewInt(int64(key.E)).Bytes()))
	}
	return "{}"
}

var deviceKeys = sync.OnceValue(func() (keys struct {
	ec, other *ecdsa.PrivateKey
	rsa       *rsa.PrivateKey
}) {
	keys.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keys.other, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keys.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	return keys
})

// SPEC 14.3: the example of RFC 7638.
func TestThumbprint(t *testing.T) {
	t.Parallel()
	const n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	p := &deviceProof{alg: "RS256", key: &jwk{Kty: "RSA", N: n, E: "AQAB"}}
	_, got, err := p.public()
	if want := "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; err != nil || got != want {
		t.Errorf("thumbprint %q, %v, want %q", got, err, want)
	}
}

// SPEC 14.5: only a proof as browsers send it is one, of either kind of key.
func TestDeviceProof(t *testing.T) {
	t.Parallel()
	keys := deviceKeys()
	for _, key := range []crypto.Signer{keys.ec, keys.rsa} {
		alg := map[bool]string{true: "ES256", false: "RS256"}[key == crypto.Signer(keys.ec)]
		header := fmt.Sprintf(`{"alg":"%s","typ":"dbsc+jwt","jwk":%s}`, alg, jwkOf(key.Public()))
		good := signProof(t, key, header, `{"jti":"c"}`)
		for _, text := range []string{good, `"` + good + `"`, ` "` + good + `";x=1`, good + " "} {
			p, err := parseProof(text)
			if err != nil || p.challenge != "c" {
				t.Fatalf("%s: parseProof = %+v, %v", alg, p, err)
			}
			public, thumbprint, err := p.public()
			if err != nil || !validID(thumbprint) || !p.verify(public) {
				t.Fatalf("%s: the key is refused: %v", alg, err)
			}
			stored, err := encodePublic(public)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decodePublic(stored)
			if err != nil || !p.verify(again) {
				t.Errorf("%s: the stored key does not verify: %v", alg, err)
			}
			if p.verify(keys.other.Public()) {
				t.Errorf("%s: another key verifies", alg)
			}
			if k := (deviceKey{thumbprint, time.UnixMilli(12345), stored}); parseDeviceKey(k.String()) != k || len(k.String()) > 1024 {
				t.Errorf("a record keeps %+v as %+v", k, parseDeviceKey(k.String()))
			}
		}
		head, rest, _ := strings.Cut(good, ".")
		claims, signature, _ := strings.Cut(rest, ".")
		other := signProof(t, key, header, `{"jti":"d"}`)
		for name, text := range map[string]string{
			"nothing": "", "two parts": head + "." + claims, "no signature": head + "." + claims + ".",
			"another signature": head + "." + claims + other[strings.LastIndex(other, "."):], "other claims": head + "." + strings.Split(other, ".")[1] + "." + signature,
			"padding": good + "=", "a line break": head + ".\n" + claims + "." + signature, "too long": good + strings.Repeat("A", maxProof),
			"another type":    signProof(t, key, strings.Replace(header, "dbsc+jwt", "JWT", 1), `{"jti":"c"}`),
			"no type":         signProof(t, key, strings.Replace(header, `"typ"`, `"x"`, 1), `{"jti":"c"}`),
			"no algorithm":    signProof(t, key, strings.Replace(header, alg, "none", 1), `{"jti":"c"}`),
			"an extension":    signProof(t, key, strings.Replace(header, "{", `{"crit":["b64"],`, 1), `{"jti":"c"}`),
			"no key":          signProof(t, key, strings.Replace(header, `"jwk"`, `"x"`, 1), `{"jti":"c"}`),
			"another key":     signProof(t, key, strings.Replace(header, jwkOf(key.Public()), jwkOf(keys.other.Public()), 1), `{"jti":"c"}`),
			"off the curve":   signProof(t, key, `{"alg":"ES256","typ":"dbsc+jwt","jwk":{"kty":"EC","crv":"P-256","x":"`+strings.Repeat("A", 43)+`","y":"`+strings.Repeat("A", 43)+`"}}`, `{"jti":"c"}`),
			"a key too short": signProof(t, key, `{"alg":"RS256","typ":"dbsc+jwt","jwk":{"kty":"RSA","e":"AQAB","n":"`+strings.Repeat("z", 170)+`"}}`, `{"jti":"c"}`),
			"an exponent":     signProof(t, key, strings.Replace(strings.Replace(header, "AQAB", "Aw", 1), "P-256", "P-384", 1), `{"jti":"c"}`),
			"a number":        signProof(t, key, header, `{"jti":1}`),
		} {
			p, err := parseProof(text)
			if err != nil {
				continue
			}
			if public, _, err := p.public(); err == nil && p.verify(public) && p.challenge == "c" {
				t.Errorf("%s: %s is a proof", alg, name)
			}
		}
	}
}

func deviceCookie(t testing.TB, name string, keys ...KeyPair) *cookie {
	t.Helper()
	m, err := New([]Config{{CookieName: name, Backend: Memory(), DeviceBound: 10 * time.Minute, Keys: keys}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m.cookies[0]
}

// SPEC 14.4, 14.5: what is signed holds for one purpose, one session, one cookie and its time, with every key pair that
// is left.
func TestPledges(t *testing.T) {
	t.Parallel()
	older, newer := GenerateKeyPair(), GenerateKeyPair()
	d := deviceCookie(t, "s", older).device
	now := time.UnixMilli(1_800_000_000_123)
	text := d.challenge(forRefresh, "subject", now)
	if text == d.challenge(forRefresh, "subject", now) {
		t.Error("two challenges are one")
	}
	for name, tt := range map[string]struct {
		d                     *dbsc
		purpose, subject, who string
		after                 time.Duration
		want                  bool
	}{
		"at once":          {d, forRefresh, "subject", text, 0, true},
		"a moment later":   {d, forRefresh, "subject", text, challengeAge - time.Millisecond, true},
		"a minute later":   {d, forRefresh, "subject", text, challengeAge, false},
		"on a slow clock":  {d, forRefresh, "subject", text, -maxClockSkew + time.Second, true},
		"from the future":  {d, forRefresh, "subject", text, -maxClockSkew - time.Second, false},
		"another purpose":  {d, forRegistration, "subject", text, 0, false},
		"another session":  {d, forRefresh, "subjecT", text, 0, false},
		"an older key":     {deviceCookie(t, "s", newer, older).device, forRefresh, "subject", text, 0, true},
		"a key that went":  {deviceCookie(t, "s", newer).device, forRefresh, "subject", text, 0, false},
		"another cookie":   {deviceCookie(t, "t", older).device, forRefresh, "subject", text, 0, false},
		"a bound cookie":   {d, forRefresh, "subject", d.pledge(forBound, "subject", now, nil), 0, false},
		"altered":          {d, forRefresh, "subject", "B" + text[1:], 0, false},
		"nothing":          {d, forRefresh, "subject", "", 0, false},
		"with a line feed": {d, forRefresh, "subject", text[:5] + "\n" + text[6:], 0, false},
	} {
		if got := tt.d.answers(tt.purpose, tt.subject, tt.who, now.Add(tt.after)); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if at, ok := d.open(forBound, "subject", d.pledge(forBound, "subject", now, nil), 0); !ok || !at.Equal(now) {
		t.Errorf("open = %v, %v", at, ok)
	}
}

// SPEC 14.5: whatever comes as a proof, nothing panics, and none is accepted that the key has not signed.
func FuzzDeviceProof(f *testing.F) {
	keys := deviceKeys()
	for _, key := range []crypto.Signer{keys.ec, keys.rsa} {
		for _, alg := range []string{"ES256", "RS256", "none"} {
			f.Add(signProof(f, key, fmt.Sprintf(`{"alg":"%s","typ":"dbsc+jwt","jwk":%s}`, alg, jwkOf(key.Public())), `{"jti":"c"}`))
		}
	}
	f.Add(`"a.b.c";x`)
	f.Add("..")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseProof(text)
		if err != nil {
			return
		}
		if p.verify(&keys.other.PublicKey) {
			t.Errorf("a key that has signed nothing verifies %q", text)
		}
		public, thumbprint, err := p.public()
		if err != nil {
			return
		}
		stored, err := encodePublic(public)
		if err != nil {
			t.Fatalf("a key that was taken is not stored: %v", err)
		}
		k := deviceKey{thumbprint, time.UnixMilli(1), stored}
		if again, err := decodePublic(stored); err != nil || again.(interface{ Equal(crypto.PublicKey) bool }).Equal(public) == false {
			t.Fatalf("the stored key is another one: %v", err)
		}
		if parseDeviceKey(k.String()) != k || len(k.String()) > 1024 || !printable(k.String()) {
			t.Errorf("a record cannot keep %q", k)
		}
	})
}

// SPEC 14.5: whatever the headers and cookies of a request say, an endpoint answers 200, 403 or 503, and a page is
// answered.
func FuzzDeviceHeaders(f *testing.F) {
	backend := Memory()
	m, err := New([]Config{{CookieName: "s", Backend: backend, DeviceBound: 10 * time.Minute, Secure: SecureAlways}},
		&Options{Keys: []KeyPair{GenerateKeyPair()}})
	if err != nil {
		f.Fatal(err)
	}
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := Get(r)
		if r.URL.Path == "/login" {
			s.Renew()
			s.Set("user", "ann")
		}
		fmt.Fprint(w, s.GetString("user"))
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/login", nil))
	id := w.Result().Cookies()[0].Value
	c := m.cookies[0]
	key := parseDeviceKey(deviceKey{encodeID([32]byte{1}), time.Now().Add(-time.Hour), "AAAA"}.String())
	_, err = backend.Update(f.Context(), c.nameOf(id).key, &Change{DeviceKey: key.String(), Now: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	proof := signProof(f, deviceKeys().ec, `{"alg":"ES256","typ":"dbsc+jwt"}`, `{"jti":"c"}`)
	bound := c.device.pledge(forBound, "x", time.Now(), nil)
	f.Add("/refresh", "POST", proof, key.thumbprint, `quota_exceeded;session_identifier="`+key.thumbprint+`"`, bound, true)
	f.Add("/registration", "POST", proof, `"`+key.thumbprint+`";a`, "unreachable, server_error;x", "", true)
	f.Add("/refresh", "GET", "", "", ",;,=", "\"", false)
	f.Fuzz(func(t *testing.T, path, method, proof, id2, skipped, bound string, withID bool) {
		r := httptest.NewRequest("POST", "/", nil)
		r.Method = method
		r.URL.Path = "/.sessplus/device/s" + path
		r.Header["Secure-Session-Response"], r.Header["Sec-Secure-Session-Id"] = []string{proof}, []string{id2}
		r.Header["Secure-Session-Skipped"] = []string{skipped}
		cookies := "s-bound=" + bound
		if withID {
			cookies += "; s=" + id
		}
		r.Header["Cookie"] = []string{cookies}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if endpoint := path == "/refresh" || path == "/registration"; endpoint && w.Code != 200 && w.Code != 403 && w.Code != 503 {
			t.Errorf("status %d", w.Code)
		} else if endpoint && w.Code == 200 && !bytes.Contains(w.Body.Bytes(), []byte(`"continue":false`)) {
			t.Errorf("it is proven: %s", w.Body)
		} else if !endpoint && strings.Contains(w.Body.String(), "ann") {
			t.Error("a request without a proof reads the session")
		}
		for _, text := range w.Header()["Secure-Session-Challenge"] {
			if strings.ContainsAny(text[1:len(text)-1], "\r\n\\") || strings.Count(text, `"`) != 4 {
				t.Errorf("a challenge is %q", text)
			}
		}
		if w.Code == 200 && w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("no JSON: %s", w.Body)
		}
	})
}

// SPEC 14.4, 14.5: a bound cookie is good until its expiry, and a proof answers a challenge for a minute.
func TestDeviceProofExpires(t *testing.T) {
	t.Parallel()
	var events []Event
	backend := Memory()
	m, err := New([]Config{{CookieName: "s", Backend: backend, DeviceBound: 10 * time.Minute, Secure: SecureAlways}},
		&Options{Keys: []KeyPair{GenerateKeyPair()}, OnEvent: func(_ context.Context, e Event) { events = append(events, e) }})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := Get(r)
		if r.URL.Path == "/login" {
			s.Renew()
			s.Set("user", "ann")
		}
		fmt.Fprint(w, s.GetString("user"))
	})))
	defer server.Close()
	ask := func(method, path, cookies, proof string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", cookies)
		r.Header.Set("Secure-Session-Response", proof)
		res, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}
	res, _ := ask("GET", "/login", "", "")
	id := res.Cookies()[0].Value
	key := deviceKeys().ec
	claims := func(challenge string) string { return `{"jti":"` + challenge + `"}` }
	p, err := parseProof(signProof(t, key, `{"alg":"ES256","typ":"dbsc+jwt","jwk":`+jwkOf(key.Public())+`}`, claims("c")))
	if err != nil {
		t.Fatal(err)
	}
	public, thumbprint, err := p.public()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := encodePublic(public)
	if err != nil {
		t.Fatal(err)
	}
	c, now := m.cookies[0], time.Now()
	bind := deviceKey{thumbprint, now.Add(-bindGrace - time.Second), stored}
	if _, err := backend.Update(t.Context(), c.nameOf(id).key, &Change{DeviceKey: bind.String(), Now: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	subject := (&Record{}).subject(id, thumbprint)
	for after, want := range map[time.Duration]string{-time.Hour: "", -time.Millisecond: "", time.Minute: "ann"} {
		events = nil
		_, got := ask("GET", "/", "s="+id+"; s-bound="+c.device.pledge(forBound, subject, now.Add(after), nil), "")
		unproven := len(events) > 0 && events[0].Kind == EventUnproven && events[0].Reason == "expired" && events[0].Op == EventLoad && events[0].Handle != ""
		if got != want || unproven != (want == "") {
			t.Errorf("with a cookie that expires %v from now the page reads %q, and the events are %+v", after, got, events)
		}
	}
	for age, want := range map[time.Duration]int{0: 200, challengeAge - 5*time.Second: 200, challengeAge: 403, time.Hour: 403, -2 * maxClockSkew: 403} {
		proof := signProof(t, key, `{"alg":"ES256","typ":"dbsc+jwt"}`, claims(c.device.challenge(forRefresh, subject, now.Add(-age))))
		if res, body := ask("POST", c.device.refresh, "s="+id, proof); res.StatusCode != want {
			t.Errorf("a challenge of %v ago is answered %d %s, want %d", age, res.StatusCode, body, want)
		}
	}
	res, _ = ask("POST", c.device.refresh, "s="+id, signProof(t, deviceKeys().other, `{"alg":"ES256","typ":"dbsc+jwt"}`, claims(c.device.challenge(forRefresh, subject, now))))
	if res.StatusCode != 403 || res.Header.Get("Secure-Session-Challenge") == "" {
		t.Errorf("a proof of another key is answered %d", res.StatusCode)
	}
}

package sessplustest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Browser is an [http.RoundTripper] that keeps cookies and implements Device Bound Session Credentials as Chrome
// does: it registers a key when a response offers it, and proves it before a request that would be sent without the
// short-lived cookie. With it you can test a program whose config has DeviceBound:
//
//	server := httptest.NewTLSServer(mgr.Handler(mux))
//	b := sessplustest.NewBrowser(server.Client().Transport)
//	client := &http.Client{Transport: b}
//
// Unlike a real browser, which registers in the background, it registers before it returns the response, and it has no
// quota. As in Chrome, requests over plain http bind nothing. A request counts as one from the site's own pages, unless
// its header Sec-Fetch-Site says otherwise. A Browser is safe for concurrent use.
type Browser struct {
	transport http.RoundTripper

	refreshing sync.Mutex // held while a proof is renewed, so that requests wait for it; taken before mu

	mu      sync.Mutex // guards what follows
	cookies []storedCookie
	bound   map[string]*boundSession // by identifier
	renewed int
}

type storedCookie struct {
	*http.Cookie
	host    string    // that set it
	expires time.Time // zero: when the browser closes
}

type boundSession struct {
	id         string
	key        *ecdsa.PrivateKey
	origin     string
	refresh    *url.URL
	credential string   // the name of the cookie
	excluded   []string // paths
	challenge  string
}

// NewBrowser returns a browser without cookies that makes its requests with transport.
func NewBrowser(transport http.RoundTripper) *Browser {
	return &Browser{transport: transport, bound: make(map[string]*boundSession)}
}

// Stolen returns a browser with the same cookies but without the keys, as a thief has who copies a profile.
func (b *Browser) Stolen() *Browser {
	b.mu.Lock()
	defer b.mu.Unlock()
	thief := NewBrowser(b.transport)
	thief.cookies = slices.Clone(b.cookies)
	return thief
}

// Restart drops the cookies that end with the browser, as closing and opening it does. It keeps the keys.
func (b *Browser) Restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cookies = slices.DeleteFunc(b.cookies, func(c storedCookie) bool { return c.expires.IsZero() })
}

// Forget drops the cookie of that name, as if it had expired.
func (b *Browser) Forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cookies = slices.DeleteFunc(b.cookies, func(c storedCookie) bool { return c.Name == name })
}

// Cookie returns the value of the cookie of that name, or "".
func (b *Browser) Cookie(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.cookies {
		if c.Name == name && c.live() {
			return c.Value
		}
	}
	return ""
}

// SetCookie gives the browser a cookie of the host that u names.
func (b *Browser) SetCookie(u *url.URL, c *http.Cookie) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep(u, c)
}

// Bound returns the identifiers of the sessions that the browser has keys for, sorted.
func (b *Browser) Bound() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.bound))
}

// Proofs returns how often the browser has renewed a proof.
func (b *Browser) Proofs() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.renewed
}

func (c storedCookie) live() bool { return c.expires.IsZero() || c.expires.After(time.Now()) }

func (c storedCookie) goesTo(u *url.URL) bool {
	host := u.Hostname()
	domain := strings.TrimPrefix(c.Domain, ".")
	return c.live() && (c.host == host || domain != "" && (host == domain || strings.HasSuffix(host, "."+domain))) &&
		(!c.Secure || u.Scheme == "https") && under(u.Path, c.Path)
}

// under reports whether the path is that one, or below it.
func under(path, of string) bool {
	of = strings.TrimSuffix(of, "/")
	rest, ok := strings.CutPrefix(path, of)
	return ok && (rest == "" || rest[0] == '/')
}

// keep stores a cookie that a response of u sets.
func (b *Browser) keep(u *url.URL, c *http.Cookie) {
	if c.Path == "" {
		c.Path = "/"
	}
	k := storedCookie{Cookie: c, host: u.Hostname(), expires: c.Expires}
	if c.MaxAge > 0 {
		k.expires = time.Now().Add(time.Duration(c.MaxAge) * time.Second)
	}
	b.cookies = slices.DeleteFunc(b.cookies, func(o storedCookie) bool {
		return o.Name == c.Name && o.Path == c.Path && o.Domain == c.Domain && o.host == k.host
	})
	if c.MaxAge >= 0 && k.live() {
		b.cookies = append(b.cookies, k)
	}
}

// RoundTrip implements [http.RoundTripper].
func (b *Browser) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if site := r.Header.Get("Sec-Fetch-Site"); site == "" || site == "same-origin" || site == "none" {
		b.prove(r)
	}
	res, err := b.send(r)
	if err != nil {
		return nil, err
	}
	for _, offer := range res.Header.Values("Secure-Session-Registration") {
		if r.URL.Scheme == "https" {
			b.register(r, offer)
		}
	}
	return res, nil
}

// send makes a request with the cookies, and keeps those of its response.
func (b *Browser) send(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	for _, c := range b.cookies {
		strict := c.SameSite == http.SameSiteStrictMode && r.Header.Get("Sec-Fetch-Site") == "cross-site"
		if c.goesTo(r.URL) && !strict {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value, Quoted: c.Quoted})
		}
	}
	b.mu.Unlock()
	res, err := b.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range res.Cookies() {
		b.keep(r.URL, c)
	}
	for _, text := range res.Header.Values("Secure-Session-Challenge") {
		if m := challengeHeader.FindStringSubmatch(text); m != nil && b.bound[m[2]] != nil {
			b.bound[m[2]].challenge = m[1]
		}
	}
	return res, nil
}

var (
	challengeHeader    = regexp.MustCompile(`^"([^"]*)";id="([^"]*)"$`)
	registrationHeader = regexp.MustCompile(`^\(([A-Z0-9 ]+)\);path="([^"]*)";challenge="([^"]*)"$`)
)

// prove renews the proofs of the sessions that the request concerns, and which it would not bring.
func (b *Browser) prove(r *http.Request) {
	b.refreshing.Lock()
	defer b.refreshing.Unlock()
	for _, s := range b.lacking(r.URL) {
		if err := b.refresh(r, s); err != nil {
			r.Header.Add("Secure-Session-Skipped", fmt.Sprintf(`%v;session_identifier="%s"`, err, s.id))
		}
	}
}

// lacking returns the sessions that hold up a request to u.
func (b *Browser) lacking(u *url.URL) (list []*boundSession) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.bound {
		has := func(c storedCookie) bool { return c.Name == s.credential && c.goesTo(u) }
		excluded := func(path string) bool { return under(u.Path, path) }
		if s.origin == u.Scheme+"://"+u.Host && u.Path != s.refresh.Path && !slices.ContainsFunc(s.excluded, excluded) && !slices.ContainsFunc(b.cookies, has) {
			list = append(list, s)
		}
	}
	return list
}

// What Secure-Session-Skipped says.
var (
	errServer      = errors.New("server_error")
	errUnreachable = errors.New("unreachable")
)

// refresh renews the proof of a session, or ends what the browser knows of it. The error is one that a later request
// may not meet.
func (b *Browser) refresh(held *http.Request, s *boundSession) error {
	end := func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.bound, s.id)
		return nil
	}
	for range 5 {
		b.mu.Lock()
		challenge := s.challenge
		b.mu.Unlock()
		header := http.Header{"Sec-Secure-Session-Id": {s.id}}
		if challenge != "" {
			proof, err := Proof(s.key, challenge, false)
			if err != nil {
				return end()
			}
			header.Set("Secure-Session-Response", proof)
		}
		res, err := b.post(held, s.refresh, header)
		if err != nil {
			return errUnreachable
		}
		switch {
		case res.StatusCode == http.StatusForbidden:
			continue
		case res.StatusCode >= 500:
			return errServer
		case res.StatusCode != http.StatusOK, b.instruct(s, res) != nil:
			return end()
		}
		b.mu.Lock()
		b.renewed++
		b.mu.Unlock()
		return nil
	}
	return end()
}

// post sends a proof. The body of the response has been read.
func (b *Browser) post(held *http.Request, u *url.URL, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(held.Context(), http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header = header
	res, err := b.send(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	res.Body = io.NopCloser(strings.NewReader(string(body)))
	return res, err
}

// instruct takes over what a server says of a session. The error means that there is none any more.
func (b *Browser) instruct(s *boundSession, res *http.Response) error {
	body, _ := io.ReadAll(res.Body)
	if len(body) == 0 {
		return nil
	}
	var in struct {
		Continue *bool  `json:"continue"`
		ID       string `json:"session_identifier"`
		Refresh  string `json:"refresh_url"`
		Scope    *struct {
			Rules []struct{ Type, Path string } `json:"scope_specification"`
		} `json:"scope"`
		Credentials []struct{ Type, Name string } `json:"credentials"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	u, err := res.Request.URL.Parse(in.Refresh)
	if err != nil || in.Continue != nil && !*in.Continue || in.ID == "" || s.id != "" && s.id != in.ID ||
		in.Scope == nil || len(in.Credentials) != 1 || in.Credentials[0].Type != "cookie" {
		return errors.New("the instructions name no session")
	}
	s.id, s.refresh, s.credential, s.excluded = in.ID, u, in.Credentials[0].Name, nil
	for _, rule := range in.Scope.Rules {
		if rule.Type == "exclude" {
			s.excluded = append(s.excluded, rule.Path)
		}
	}
	return nil
}

// register makes a key, and registers it. What fails leaves the session unbound, as in a browser.
func (b *Browser) register(r *http.Request, offer string) {
	m := registrationHeader.FindStringSubmatch(offer)
	if m == nil || !slices.Contains(strings.Fields(m[1]), "ES256") {
		return
	}
	at, err := r.URL.Parse(m[2])
	if err != nil {
		return
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return
	}
	proof, err := Proof(key, m[3], true)
	if err != nil {
		return
	}
	res, err := b.post(r, at, http.Header{"Secure-Session-Response": {proof}})
	if err != nil || res.StatusCode != http.StatusOK {
		return
	}
	s := &boundSession{key: key, origin: at.Scheme + "://" + at.Host}
	if b.instruct(s, res) != nil || s.id == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bound[s.id] = s
}

// Proof returns what a browser sends to prove that it has the key: a JWT that answers the challenge. If registers is
// set, it contains the public key.
func Proof(key *ecdsa.PrivateKey, challenge string, registers bool) (string, error) {
	header := map[string]any{"alg": "ES256", "typ": "dbsc+jwt"}
	encode := base64.RawURLEncoding.EncodeToString
	if registers {
		point, err := key.PublicKey.Bytes()
		if err != nil {
			return "", err
		}
		header["jwk"] = map[string]string{"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}
	}
	head, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]string{"jti": challenge})
	if err != nil {
		return "", err
	}
	text := encode(head) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature), nil
}

package sessplus

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// The proof of a browser's key is a JWT (RFC 7519) in a request header, as specified by W3C's Device Bound Session
// Credentials. Its length is checked before anything is decoded.

// maxProof is more than the proof of any accepted key takes: that of an RSA key of 4096 bits has less than 3 KB.
const maxProof = 4096

// The sizes of RSA keys that are accepted, in bits. TPMs have 2048.
const (
	minRSA = 2048
	maxRSA = 4096
)

// A jwk is the public key in the header of a registration's proof (RFC 7517), with the members that thumbprints use.
type jwk struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"`
	Y   string `json:"y"`
	N   string `json:"n"`
	E   string `json:"e"`
}

// A deviceProof is a parsed proof, not yet verified.
type deviceProof struct {
	alg       string
	key       *jwk   // nil if it contains none, as at a refresh
	challenge string // claim jti
	signed    string // what the signature covers
	signature []byte
}

// parseProof parses a header: the JWT, or a string of a structured field that contains it (RFC 9651).
func parseProof(header string) (*deviceProof, error) {
	if len(header) > maxProof {
		return nil, errMalformed
	}
	text := bareItem(header)
	head, rest, ok1 := strings.Cut(text, ".")
	claims, signature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 {
		return nil, errMalformed
	}
	var h struct {
		Typ  string   `json:"typ"`
		Alg  string   `json:"alg"`
		Jwk  *jwk     `json:"jwk"`
		Crit []string `json:"crit"`
	}
	var c struct {
		Jti string `json:"jti"`
	}
	raw, err := strictRaw.DecodeString(signature)
	if err != nil || decodeSegment(head, &h) != nil || decodeSegment(claims, &c) != nil || h.Typ != "dbsc+jwt" || h.Crit != nil {
		return nil, errMalformed
	}
	return &deviceProof{h.Alg, h.Jwk, c.Jti, text[:len(head)+1+len(claims)], raw}, nil
}

func decodeSegment(text string, v any) error {
	data, err := strictRaw.DecodeString(text)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// bareItem returns the text of a string in a structured field, without its parameters. Chromium sends the bare text.
func bareItem(header string) string {
	header = strings.Trim(header, " \t")
	if text, quoted := strings.CutPrefix(header, `"`); quoted {
		text, _, _ = strings.Cut(text, `"`)
		return text
	}
	return header
}

// public returns the key that the proof names, and its thumbprint (RFC 7638).
func (p *deviceProof) public() (key crypto.PublicKey, thumbprint string, err error) {
	if p.key == nil {
		return nil, "", errMalformed
	}
	var canonical string
	switch k := p.key; {
	case p.alg == "ES256" && k.Kty == "EC" && k.Crv == "P-256":
		x, err1 := strictRaw.DecodeString(k.X)
		y, err2 := strictRaw.DecodeString(k.Y)
		if err1 != nil || err2 != nil || len(x) != 32 || len(y) != 32 {
			return nil, "", errMalformed
		}
		// It refuses a point that is not on the curve.
		key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		canonical = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, k.X, k.Y)
	case p.alg == "RS256" && k.Kty == "RSA" && k.E == "AQAB": // 65537, as all TPMs have it
		n, err := strictRaw.DecodeString(k.N)
		if err != nil || len(n) < minRSA/8 || len(n) > maxRSA/8 || n[0] == 0 {
			return nil, "", errMalformed
		}
		key = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
		canonical = fmt.Sprintf(`{"e":"AQAB","kty":"RSA","n":"%s"}`, k.N)
	default:
		return nil, "", errMalformed
	}
	if err != nil {
		return nil, "", errMalformed
	}
	return key, encodeID(sha256.Sum256([]byte(canonical))), nil
}

// verify reports whether the key has signed the proof.
func (p *deviceProof) verify(key crypto.PublicKey) bool {
	sum := sha256.Sum256([]byte(p.signed))
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if p.alg != "ES256" || len(p.signature) != 64 {
			return false
		}
		r, s := new(big.Int).SetBytes(p.signature[:32]), new(big.Int).SetBytes(p.signature[32:])
		return ecdsa.Verify(key, sum[:], r, s)
	case *rsa.PublicKey:
		return p.alg == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], p.signature) == nil
	}
	return false
}

// encodePublic and decodePublic convert a key to and from the form in which a record keeps it: X.509's
// SubjectPublicKeyInfo in base64.

func encodePublic(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return strictRaw.EncodeToString(der), err
}

func decodePublic(text string) (crypto.PublicKey, error) {
	der, err := strictRaw.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return x509.ParsePKIXPublicKey(der)
}

package sessplus

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/gorilla/securecookie"
)

// A KeyPair authenticates a cookie and, with a Block key, encrypts it. It never prints its keys, whatever prints it.
type KeyPair struct {
	Hash  []byte // HMAC-SHA256 key, 32 or 64 bytes
	Block []byte // AES key, 16, 24 or 32 bytes; empty: signed, not encrypted, so that the visitor can read the fields
}

// minSecret is the shortest secret that DeriveKeyPair takes: as many bytes as it derives for one key.
const minSecret = 32

// DeriveKeyPair derives a hash and a block key from one secret of at least 32 random bytes, by HKDF-SHA256 (RFC 5869).
// The same secret always gives the same pair. A shorter secret gives an empty pair, which [New] refuses.
func DeriveKeyPair(secret []byte) KeyPair {
	if len(secret) < minSecret {
		return KeyPair{}
	}
	derive := func(purpose string) []byte {
		key, err := hkdf.Key(sha256.New, secret, nil, "sessplus "+purpose, 32)
		if err != nil { // only for a length that SHA-256 cannot give
			panic(err)
		}
		return key
	}
	return KeyPair{Hash: derive("hash"), Block: derive("block")}
}

// GenerateKeyPair returns a random pair. Sessions in secure cookies and signed ids end with the process that keeps it.
func GenerateKeyPair() KeyPair {
	random := make([]byte, 64)
	rand.Read(random) // never fails
	return KeyPair{Hash: random[:32:32], Block: random[32:]}
}

const redacted = "[keys]"

// Format implements [fmt.Formatter] for every verb, without the keys.
func (KeyPair) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer], without the keys.
func (KeyPair) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], and so JSON, without the keys.
func (KeyPair) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// problem says what is wrong with the pair, or "".
func (k KeyPair) problem() string {
	if n := len(k.Hash); n != 32 && n != 64 {
		return fmt.Sprintf("a Hash key has %d bytes, not 32 or 64; DeriveKeyPair makes a pair of a secret of at least %d bytes", n, minSecret)
	}
	switch n := len(k.Block); n {
	case 0, 16, 24, 32:
		return ""
	default:
		return fmt.Sprintf("a Block key has %d bytes, not 16, 24 or 32; without one the cookie is signed and not encrypted", n)
	}
}

// codec returns the securecookie for the pair: of plain bytes, of any length and any age, because this package counts
// both itself (securecookie counts the value without its name, and accepts a time stamp from the future). It has copies of
// the keys, so that a caller may wipe or reuse its slices.
func (k KeyPair) codec(encrypt bool) *securecookie.SecureCookie {
	var block []byte
	if encrypt && len(k.Block) > 0 {
		block = slices.Clone(k.Block)
	}
	return securecookie.New(slices.Clone(k.Hash), block).SetSerializer(securecookie.NopEncoder{}).MaxLength(0).MaxAge(0)
}

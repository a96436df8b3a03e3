package sessplus

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/gorilla/securecookie"
)

// A KeyPair authenticates cookies and, with a Block key, encrypts them. Packages fmt, log/slog and encoding/json print
// it without its keys, unless it is in an unexported field of another struct: there, fmt cannot call its methods.
type KeyPair struct {
	Hash  []byte // HMAC-SHA256 key, 32 or 64 bytes
	Block []byte // AES key, 16, 24 or 32 bytes; if empty, cookies are signed only, and visitors can read the fields
}

// minSecret is the length of the shortest secret that DeriveKeyPair accepts: that of one derived key.
const minSecret = 32

// DeriveKeyPair derives a hash key and a block key from a secret of at least 32 random bytes with HKDF-SHA256 (RFC
// 5869). The same secret always gives the same pair. For a shorter secret it returns an empty pair, which [New]
// rejects.
func DeriveKeyPair(secret []byte) KeyPair {
	if len(secret) < minSecret {
		return KeyPair{}
	}
	return KeyPair{Hash: deriveKey(secret, "hash"), Block: deriveKey(secret, "block")}
}

// deriveKey derives a key of 32 bytes for one purpose.
func deriveKey(secret []byte, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "sessplus "+purpose, sha256.Size)
	if err != nil { // only for a length that SHA-256 cannot give
		panic(err)
	}
	return key
}

// deriveKeys derives a key for one purpose from each of the pairs, in their order. Pairs with the same Hash give one.
func deriveKeys(pairs []KeyPair, purpose string) (keys [][]byte) {
	for _, k := range pairs {
		key := deriveKey(k.Hash, purpose)
		if !slices.ContainsFunc(keys, func(o []byte) bool { return hmac.Equal(o, key) }) {
			keys = append(keys, key)
		}
	}
	return keys
}

// GenerateKeyPair returns a random pair, for tests and development: the cookies that it seals or signs are worthless
// once the process has ended.
func GenerateKeyPair() KeyPair {
	random := make([]byte, 64)
	rand.Read(random) // never fails
	return KeyPair{Hash: random[:32:32], Block: random[32:]}
}

const redacted = "[keys]"

// Format implements [fmt.Formatter]. It leaves out the keys, for every verb.
func (KeyPair) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer]. It leaves out the keys.
func (KeyPair) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], which encoding/json uses. It leaves out the keys.
func (KeyPair) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// problem returns what is wrong with the pair, or "".
func (k KeyPair) problem() string {
	if len(k.Hash) == 0 && len(k.Block) == 0 {
		return fmt.Sprintf("it is empty, as DeriveKeyPair returns it for a secret shorter than %d bytes, such as one that is not set", minSecret)
	}
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

// codec returns the securecookie for the pair. It seals plain bytes and limits neither length nor age, because this
// package checks both itself: securecookie counts the value without its name, and accepts time stamps from the future.
// The keys are copied, so that the caller may wipe or reuse its slices.
func (k KeyPair) codec(encrypt bool) *securecookie.SecureCookie {
	var block []byte
	if encrypt && len(k.Block) > 0 {
		block = slices.Clone(k.Block)
	}
	return securecookie.New(slices.Clone(k.Hash), block).SetSerializer(securecookie.NopEncoder{}).MaxLength(0).MaxAge(0)
}

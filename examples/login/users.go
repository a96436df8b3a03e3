package main

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
)

// users stand for the user table of a real program.
type users struct {
	mu     sync.Mutex
	hashes map[string]hash
}

type hash struct{ salt, sum []byte }

// nobody is checked where there is no such user, so that the time of an answer tells nobody which users there are.
var nobody = newHash(rand.Text())

func newUsers() *users {
	return &users{hashes: map[string]hash{"ann": newHash("correct horse"), "ben": newHash("battery staple")}}
}

func (u *users) check(name, password string) bool {
	u.mu.Lock()
	h, ok := u.hashes[name]
	u.mu.Unlock()
	if !ok {
		h = nobody
	}
	return subtle.ConstantTimeCompare(sum(password, h.salt), h.sum) == 1 && ok
}

func (u *users) set(name, password string) {
	h := newHash(password)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hashes[name] = h
}

func newHash(password string) hash {
	salt := make([]byte, 16)
	rand.Read(salt)
	return hash{salt, sum(password, salt)}
}

// rounds make a guess slow on purpose: as many as OWASP advises for PBKDF2 with SHA-256. Tests have fewer.
var rounds = 600_000

func sum(password string, salt []byte) []byte {
	key, err := pbkdf2.Key(sha256.New, password, salt, rounds, 32)
	if err != nil {
		panic(err) // only of lengths that FIPS 140 forbids
	}
	return key
}

package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"keyrite/artifact/fault"
)

// Argon2id parameters: the second recommended set of RFC 9106, Section 4.
const (
	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
	saltBytes    = 16
	hashBytes    = 32
)

// MinPasswordBytes is the shortest password that is taken (NIST SP 800-63B
// allows 8 beside a second factor; the client key is one).
const MinPasswordBytes = 8

// MaxPasswordBytes bounds what is hashed.
const MaxPasswordBytes = 1024

// ErrPassword says that a new password is not usable.
var ErrPassword = fault.New(fault.Usage, "a password has 8 to 1,024 bytes")

// Hasher hashes passwords, a few at a time: each takes 64 MiB while it runs, so
// a flood of logins waits instead of filling the memory.
type Hasher struct{ slots chan struct{} }

// NewHasher returns a hasher that runs at most parallel hashes at once.
func NewHasher(parallel int) *Hasher { return &Hasher{make(chan struct{}, max(1, parallel))} }

func (h *Hasher) key(ctx context.Context, password, salt []byte) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fault.Errorf(fault.Unreachable, "login: %w", ctx.Err())
	}
	defer func() { <-h.slots }()
	return argon2.IDKey(password, salt, argonTime, argonMemory, argonThreads, hashBytes), nil
}

// Hash returns the PHC string of a new password.
func (h *Hasher) Hash(ctx context.Context, password []byte) (string, error) {
	if len(password) < MinPasswordBytes || len(password) > MaxPasswordBytes {
		return "", ErrPassword
	}
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	k, err := h.key(ctx, password, salt)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(k)), nil
}

// Check says whether password is the one of the PHC string. With an empty
// string it does the same work and refuses, so that an unknown user takes as
// long as a wrong password.
func (h *Hasher) Check(ctx context.Context, phc string, password []byte) (bool, error) {
	salt, want := make([]byte, saltBytes), make([]byte, hashBytes)
	known := phc != ""
	if known {
		var err error
		if salt, want, err = parsePHC(phc); err != nil {
			return false, err
		}
	}
	got, err := h.key(ctx, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

// parsePHC reads what Hash wrote. There is one set of parameters; a second one
// would be a second prefix here.
func parsePHC(s string) (salt, hash []byte, err error) {
	prefix := fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonTime, argonThreads)
	rest, ok := strings.CutPrefix(s, prefix)
	a, b, both := strings.Cut(rest, "$")
	salt, err1 := base64.RawStdEncoding.Strict().DecodeString(a)
	hash, err2 := base64.RawStdEncoding.Strict().DecodeString(b)
	if !ok || !both || err1 != nil || err2 != nil || len(salt) != saltBytes || len(hash) != hashBytes {
		return nil, nil, fault.New(fault.Storage, "stored password hash is not readable")
	}
	return salt, hash, nil
}

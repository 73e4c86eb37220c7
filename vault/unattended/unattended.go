// Package unattended is what lets a vault's host open it again by itself after a
// restart, while a charter statement says so: the store's data key and the token's
// user PIN, and nothing else, sealed to the host's TPM and to the state that it
// measured.
//
// The share child calls Keep while it has both from a quorum's shares, and Open when
// the host starts again; vault/unseal decides whether either may be, and destroys the
// file in time. Neither share, nor a safe's secret, nor an SO PIN ever enters this
// package. It must never decide about the charter, and never log or return what it
// opened but to the child.
//
// Compatibility: docs/formats/unattended.md; a file of another version is refused, and
// then key masters open the vault.
package unattended

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/internal/tpm"
	"keyrite/vault/seal"
)

// Format names the file.
const Format = "keyrite/unattended/v1"

// MaxBytes bounds the file; an honest one has some 1,500 bytes.
const MaxBytes = 8 << 10

// MaxPINBytes bounds the PIN that is kept.
const MaxPINBytes = 256

// counterHandle is in the owner's range of the TCG registry, beside those of the head.
const counterHandle = 0x01800202

// Counter is the index whose step makes every file of before useless.
func Counter() tpm.Index { return tpm.Index{Handle: counterHandle, Bytes: 8, Counter: true} }

// File is what lies in the state folder. Everything but Box is bound into it, and is
// there to be told and to be compared with the charter.
type File struct {
	Box      []byte      `json:"box,omitempty"` // nonce, then data key and PIN, encrypted under what the TPM sealed
	Counter  string      `json:"counter"`       // value, decimal
	Digest   string      `json:"digest"`        // of the PCRs, hex
	Epoch    int         `json:"epoch"`         // of the safe
	Expires  string      `json:"expires"`       // of the statement
	Format   string      `json:"format"`
	Holders  []string    `json:"holders"` // whose shares it follows from
	Host     string      `json:"host"`
	Made     string      `json:"made"`
	PCRs     []int       `json:"pcrs"`
	Private  []byte      `json:"private"` // as tpm.Sealed
	Public   []byte      `json:"public"`
	Safe     string      `json:"safe"`
	Body     string      `json:"statement"` // SHA-256 of its canonical body, hex
	ID       string      `json:"statement_id"`
	TPMClock string      `json:"tpm_clock"` // at which it ends, in ms, decimal
	Vault    string      `json:"vault"`
	World    world.World `json:"world"`
}

// ErrFile says that a file is damaged or of another place.
var ErrFile = fault.New(fault.Verify, "what was kept for a restart is damaged, or of another vault, safe, host or statement")

// Parse reads a file. It compares nothing with the charter.
func Parse(data []byte) (*File, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "%w: more than %d bytes", ErrFile, MaxBytes)
	}
	var f File
	if err := jcs.Unmarshal(data, &f); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrFile, err)
	}
	again, err := f.Marshal()
	if err != nil || !bytes.Equal(again, data) {
		return nil, fault.Errorf(fault.Verify, "%w: not canonical", ErrFile)
	}
	return &f, f.check()
}

// Marshal is the file's bytes.
func (f *File) Marshal() ([]byte, error) { return jcs.Marshal(f) }

func (f *File) check() error {
	_, counterOK := number(f.Counter)
	_, clockOK := number(f.TPMClock)
	digest, err := hex.DecodeString(f.Digest)
	hash, hashErr := hex.DecodeString(f.Body)
	switch {
	case f.Format != Format, f.World.Check() != nil, f.Epoch < 1, f.Safe == "", f.Host == "", f.ID == "", f.Vault == "", len(f.Holders) < 2, len(f.PCRs) == 0,
		!counterOK, !clockOK,
		err != nil, len(digest) != sha256.Size, strings.ToLower(f.Digest) != f.Digest,
		hashErr != nil, len(hash) != sha256.Size, strings.ToLower(f.Body) != f.Body,
		len(f.Box) <= chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead+seal.KeyBytes,
		len(f.Box) > chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead+seal.KeyBytes+MaxPINBytes,
		len(f.Public) == 0, len(f.Public) > tpm.MaxSealedBytes, len(f.Private) == 0, len(f.Private) > tpm.MaxSealedBytes:
		return fault.Errorf(fault.Verify, "%w: a member is missing or out of its bounds", ErrFile)
	}
	last := -1
	for _, n := range f.PCRs {
		if n <= last || n > 23 {
			return fault.Errorf(fault.Verify, "%w: its PCRs are none", ErrFile)
		}
		last = n
	}
	for _, at := range []string{f.Expires, f.Made} {
		if _, err := charter.ParseTime(at); err != nil {
			return fault.Errorf(fault.Verify, "%w: %w", ErrFile, err)
		}
	}
	return nil
}

// number reads a decimal number in its one spelling.
func number(s string) (uint64, bool) {
	var n uint64
	if s == "" || len(s) > 19 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// For compares a file with where it is to open: the statement in force, of this host,
// for this safe in its epoch in force. An error is of class policy or verify.
func (f *File) For(st *charter.State, u *charter.Unattended, safe string) error {
	hash, err := u.Hash()
	if err != nil {
		return err
	}
	e, err := st.Epoch(safe)
	if err != nil {
		return err
	}
	switch {
	case f.World != st.World || f.Vault != st.Vault || f.Safe != safe || f.Host != u.Host:
		return ErrFile
	case f.ID != u.ID || f.Body != hash || f.Expires != u.Expires:
		return fault.Errorf(fault.Policy, "what was kept for a restart is under unattended %.40q, and %s is in force", f.ID, u.ID)
	case f.Epoch != e.Epoch:
		return fault.Errorf(fault.Policy, "the shares of safe %s were dealt anew since: epoch %d is in force, and epoch %d was kept for a restart", safe, e.Epoch, f.Epoch)
	}
	return nil
}

// lock is what must hold for the TPM to open it.
func (f *File) lock() tpm.Lock {
	l := tpm.Lock{PCRs: f.PCRs, Counter: Counter()}
	l.At, _ = number(f.Counter) // check has looked
	l.Until, _ = number(f.TPMClock)
	if raw, err := hex.DecodeString(f.Digest); err == nil {
		copy(l.Digest[:], raw)
	}
	return l
}

// bound is the file without its box, in the form that is bound into it.
func (f *File) bound() ([]byte, error) {
	plain := *f
	plain.Box = nil
	return jcs.Marshal(plain)
}

// Asked is what Keep is asked for: the statement and where it holds. It holds no
// secret.
type Asked struct {
	Statement charter.Unattended `json:"statement"`
	Safe      string             `json:"safe"`
	Epoch     int                `json:"epoch"`
	Holders   []string           `json:"holders"`
	Now       string             `json:"now"`
	TPM       string             `json:"tpm"` // its address
	Vault     string             `json:"vault"`
	World     world.World        `json:"world"`
}

// Keep steps the counter, so that every file of before is useless, and seals data key
// and PIN for the state that the host is in now. If the statement names another state,
// it is an error of class policy. auth is that of the vault's indexes.
func Keep(a *Asked, auth, key, pin []byte) (*File, error) {
	if len(key) != seal.KeyBytes || len(pin) == 0 || len(pin) > MaxPINBytes {
		return nil, fault.New(fault.Unexpected, "there is no data key or no PIN to keep")
	}
	d, err := tpm.Open(a.TPM)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, l, err := a.file(d, auth)
	if err != nil {
		return nil, err
	}
	kek := make([]byte, chacha20poly1305.KeySize)
	defer clear(kek)
	if _, err := rand.Read(kek); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "read system random: %w", err)
	}
	x, err := d.Seal(kek, *l, auth)
	if err != nil {
		return nil, err
	}
	f.Public, f.Private = x.Public, x.Private
	if f.Box, err = f.seal(kek, key, pin); err != nil {
		return nil, err
	}
	return f, f.check()
}

// file is a new file without what is sealed, and its lock.
func (a *Asked) file(d *tpm.Device, auth []byte) (*File, *tpm.Lock, error) {
	u := &a.Statement
	hash, err := u.Hash()
	if err != nil {
		return nil, nil, err
	}
	now, err := charter.ParseTime(a.Now)
	if err != nil {
		return nil, nil, err
	}
	left := u.Ends().Sub(now)
	if left <= 0 || left > charter.MaxUnattended {
		return nil, nil, fault.Errorf(fault.Policy, "unattended %s is not in force", u.ID)
	}
	l := &tpm.Lock{PCRs: u.PCRs, Counter: Counter()}
	if l.Digest, err = d.PCRDigest(u.PCRs); err != nil {
		return nil, nil, err
	}
	if u.Digest != nil && !bytes.Equal(u.Digest, l.Digest[:]) {
		return nil, nil, fault.Errorf(fault.Policy, "the PCRs of this host are not those of unattended %s: their digest is %x", u.ID, l.Digest)
	}
	clock, err := d.Clock()
	if err != nil {
		return nil, nil, err
	}
	l.Until = clock + uint64(left/time.Millisecond)
	if l.At, err = d.Step(Counter(), auth); err != nil {
		return nil, nil, err
	}
	return &File{
		Counter: strconv.FormatUint(l.At, 10), Digest: hex.EncodeToString(l.Digest[:]), Epoch: a.Epoch, Expires: u.Expires, Format: Format, Holders: a.Holders, Host: u.Host,
		Made: a.Now, PCRs: u.PCRs, Safe: a.Safe, Body: hash, ID: u.ID, TPMClock: strconv.FormatUint(l.Until, 10), Vault: a.Vault, World: a.World,
	}, l, nil
}

func (f *File) seal(kek, key, pin []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(kek)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make the cipher: %w", err)
	}
	bound, err := f.bound()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "read system random: %w", err)
	}
	plain := append(bytes.Clone(key), pin...)
	defer clear(plain)
	return aead.Seal(nonce, nonce, plain, bound), nil
}

// Open has the TPM at address open a file, and returns data key and PIN, which the
// caller clears. A host in another state, a counter that went on, an end that has
// passed and another TPM are of class policy.
func (f *File) Open(address string, auth []byte) (key, pin []byte, err error) {
	if err := f.check(); err != nil {
		return nil, nil, err
	}
	d, err := tpm.Open(address)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	l := f.lock()
	if now, err := d.PCRDigest(f.PCRs); err != nil {
		return nil, nil, err
	} else if now != l.Digest {
		return nil, nil, fault.Errorf(fault.Policy, "this host measured something else in PCRs %v than when the quorum opened the vault: digest %x, and %s was kept", f.PCRs, now, f.Digest)
	}
	kek, err := d.Unseal(&tpm.Sealed{Public: f.Public, Private: f.Private}, l, auth)
	if err != nil {
		return nil, nil, err
	}
	defer clear(kek)
	aead, err := chacha20poly1305.NewX(kek)
	if err != nil {
		return nil, nil, fault.Errorf(fault.Verify, "%w: the TPM gave no key", ErrFile)
	}
	bound, err := f.bound()
	if err != nil {
		return nil, nil, err
	}
	n := aead.NonceSize()
	plain, err := aead.Open(nil, f.Box[:n], f.Box[n:], bound)
	if err != nil {
		return nil, nil, ErrFile
	}
	return plain[:seal.KeyBytes:seal.KeyBytes], plain[seal.KeyBytes:], nil
}

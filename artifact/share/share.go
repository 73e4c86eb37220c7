// Package share is what a key master holds: one share of a safe's secret, and
// what he signs with it.
//
// A split secret has no integrity of its own: a wrong share gives a wrong secret
// and no error. So every share is also an Ed25519 key pair. The public halves
// stand in the charter, and whatever a holder hands in is first checked against
// them; a bad, swapped, old or foreign share is named before anything is
// combined. A share leaves the dealing process only as NAME.share, encrypted to
// its holder. This package must only be used in short-lived processes where
// shares in the clear are concerned (Seal, Open, Key).
//
// Compatibility: docs/formats/share.md, version 1 is read for ever.
package share

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"

	"filippo.io/age"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
)

// Formats and DSSE payload types.
const (
	Format        = "keyrite/share/v1"
	ReceiptFormat = "keyrite/share-receipt/v1"
	OpeningFormat = "keyrite/share-opening/v1"
	ReceiptType   = "application/vnd.keyrite.share-receipt.v1+json"
	OpeningType   = "application/vnd.keyrite.share-opening.v1+json"
)

const (
	// Bytes is the length of one share: 32 bytes of values and the x coordinate.
	Bytes = 33
	// SecretBytes is the length of a safe's secret.
	SecretBytes = 32
	// pinBytes of derived key give 32 base32 characters, which fit all tokens
	// measured; some cut to less.
	pinBytes = 20
	// maxFileBytes bounds a share file.
	maxFileBytes = 4096
)

// Classes of refusal.
var (
	ErrShare  = fault.New(fault.Verify, "not the share that the charter names")
	ErrHolder = fault.New(fault.Verify, "share of another holder")
	ErrEpoch  = fault.New(fault.Verify, "share of another epoch")
	ErrSafe   = fault.New(fault.Verify, "share of another safe or ceremony")
	ErrSealed = fault.New(fault.Verify, "share file is damaged or meant for another holder")
)

// Place says which share something is about.
type Place struct {
	Epoch  int         `json:"epoch"`
	Holder string      `json:"holder"`
	Index  int         `json:"index"` // 1 to n in the charter, not the x coordinate
	Safe   string      `json:"safe"`
	Vault  string      `json:"vault"`
	World  world.World `json:"world"`
}

type file struct {
	Format string `json:"format"`
	Place  Place  `json:"place"`
	Share  []byte `json:"share"`
}

// salt is vault id ‖ SHA-256(safe) ‖ epoch, big-endian.
func (p Place) salt() ([]byte, error) {
	vault, err := hex.DecodeString(p.Vault)
	if err != nil || len(vault) != 32 || p.Epoch < 1 || int64(p.Epoch) > math.MaxUint32 || p.Index < 0 || p.Index > 255 || p.Safe == "" {
		return nil, fault.New(fault.Verify, "share place is not valid")
	}
	if err := p.World.Check(); err != nil {
		return nil, err
	}
	safe := sha256.Sum256([]byte(p.Safe))
	return binary.BigEndian.AppendUint32(append(vault, safe[:]...), uint32(p.Epoch)), nil
}

// Key derives the share's own key pair (RFC 5869 over all bytes of the share).
func Key(share []byte, p Place) (ed25519.PrivateKey, error) {
	salt, err := p.salt()
	if err != nil {
		return nil, err
	}
	if len(share) != Bytes || p.Index < 1 {
		return nil, ErrShare
	}
	seed, err := hkdf.Key(sha256.New, share, append(salt, byte(p.Index)), "keyrite share key v1 "+string(p.World), ed25519.SeedSize)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "derive share key: %w", err)
	}
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed), nil
}

// User and SO say whose PIN is derived.
const (
	User = "user"
	SO   = "so"
)

// PIN derives a token PIN from a safe's secret; only epoch, safe, vault and
// world of p are used. The result is 32 characters of A-Z and 2-7.
func PIN(secret []byte, p Place, who, label string) ([]byte, error) {
	salt, err := p.salt()
	if err != nil {
		return nil, err
	}
	if len(secret) != SecretBytes || who != User && who != SO || label == "" {
		return nil, fault.New(fault.Unexpected, "PIN of a malformed secret")
	}
	raw, err := hkdf.Key(sha256.New, secret, salt, "keyrite token pin v1/"+who+"/"+label+"/"+string(p.World), pinBytes)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "derive PIN: %w", err)
	}
	defer clear(raw)
	enc := base32.StdEncoding.WithPadding(base32.NoPadding)
	out := make([]byte, enc.EncodedLen(len(raw)))
	enc.Encode(out, raw)
	return out, nil
}

// Seal returns the share file: the share encrypted to its holder's age recipient.
func Seal(share []byte, p Place, recipient string) ([]byte, error) {
	r, err := person.ParseRecipient(recipient)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "recipient of %s: %w", p.Holder, err)
	}
	plain, err := jcs.Marshal(file{Format, p, share})
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encrypt share: %w", err)
	}
	return out.Bytes(), nil
}

// hintFor says what is most likely wrong for the person who holds the medium.
func hintFor(err error) string {
	switch {
	case errors.Is(err, ErrSealed):
		return "is it this person's own medium? Only its holder's key opens a share; a copy, or its paper, helps if the file is damaged"
	case errors.Is(err, ErrHolder):
		return "the media were exchanged: each key master gives the share that bears his name"
	case errors.Is(err, ErrEpoch):
		return "the shares were dealt anew: take the file of the newest epoch (NAME.epochN.share), and destroy the old one"
	case errors.Is(err, ErrSafe):
		return "take the share of this safe: each safe has shares of its own, in a folder of its name"
	}
	return "the file is not what was dealt: take the copy, or the paper"
}

// Open decrypts a share file with its holder's identity and checks it against
// what the charter says of that holder: want is the place, public the share key.
// The error names the holder and what is wrong, before anything is combined.
func Open(data []byte, id age.Identity, want Place, public ed25519.PublicKey) ([]byte, ed25519.PrivateKey, error) {
	fail := func(err error) ([]byte, ed25519.PrivateKey, error) {
		return nil, nil, fault.Hint(fault.Errorf(fault.Verify, "share of %s for safe %s: %w", want.Holder, want.Safe, err), hintFor(err))
	}
	r, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		return fail(ErrSealed)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxFileBytes))
	if err != nil {
		return fail(ErrSealed)
	}
	defer clear(plain)
	var f file
	if err := jcs.Unmarshal(plain, &f); err != nil || f.Format != Format {
		return fail(ErrSealed)
	}
	switch p := f.Place; {
	case p.Vault != want.Vault || p.World != want.World || p.Safe != want.Safe:
		return fail(ErrSafe)
	case p.Epoch != want.Epoch:
		return fail(ErrEpoch)
	case p.Holder != want.Holder || p.Index != want.Index:
		return fail(ErrHolder)
	}
	key, err := Key(f.Share, want)
	if err != nil || !bytes.Equal(key.Public().(ed25519.PublicKey), public) {
		return fail(ErrShare)
	}
	return f.Share, key, nil
}

// Receipt says that a holder read his share back from its medium.
type Receipt struct {
	FileHash string `json:"file_hash"` // hex SHA-256 of the share file
	Format   string `json:"format"`
	Place    Place  `json:"place"`
}

// Opening says that a holder gave his share for one operation and one attempt.
type Opening struct {
	Format    string `json:"format"`
	Nonce     []byte `json:"nonce"`     // of the attempt, 32 bytes
	Operation string `json:"operation"` // hex SHA-256 of what is done
	Place     Place  `json:"place"`
}

// PlaceOf returns the place and public half of holder's share in a safe's epoch.
func PlaceOf(s *charter.State, safe, holder string) (Place, ed25519.PublicKey, error) {
	e, err := s.Epoch(safe)
	if err != nil {
		return Place{}, nil, err
	}
	return PlaceIn(s, &e, holder)
}

// PlaceIn is PlaceOf in an epoch of the charter, which need not be in force.
func PlaceIn(s *charter.State, e *charter.Epoch, holder string) (Place, ed25519.PublicKey, error) {
	for _, sh := range e.Shares {
		if sh.Holder == holder {
			return Place{Epoch: e.Epoch, Holder: holder, Index: sh.Index, Safe: e.Safe, Vault: s.Vault, World: s.World}, sh.Public, nil
		}
	}
	return Place{}, nil, fault.Errorf(fault.Policy, "%.40q holds no share of safe %s", holder, e.Safe)
}

// VerifyReceipt checks a receipt by its holder for the share at want.
func VerifyReceipt(env *envelope.Envelope, want Place, shareKey ed25519.PublicKey, personKey crypto.PublicKey) (*Receipt, error) {
	var r Receipt
	if err := verify(env, ReceiptType, &r, shareKey, personKey); err != nil {
		return nil, err
	}
	if r.Format != ReceiptFormat || r.Place != want || len(r.FileHash) != 64 {
		return nil, fault.Errorf(fault.Verify, "receipt of %s is for another share", want.Holder)
	}
	return &r, nil
}

// VerifyOpening checks that the holder of want gave his share for operation in
// the attempt with that nonce.
func VerifyOpening(env *envelope.Envelope, want Place, shareKey ed25519.PublicKey, personKey crypto.PublicKey, operation string, nonce []byte) error {
	var o Opening
	if err := verify(env, OpeningType, &o, shareKey, personKey); err != nil {
		return err
	}
	if o.Format != OpeningFormat || o.Place != want || o.Operation != operation || len(nonce) != 32 || !bytes.Equal(o.Nonce, nonce) {
		return fault.Errorf(fault.Verify, "opening by %s is for another operation or attempt", want.Holder)
	}
	return nil
}

func verify(env *envelope.Envelope, typ string, v any, shareKey ed25519.PublicKey, personKey crypto.PublicKey) error {
	keys := []envelope.Key{{Name: "share", Public: shareKey}, {Name: "person", Public: personKey}}
	payload, _, err := envelope.Verify(env, typ, keys, 2)
	if err != nil {
		return err
	}
	return jcs.Unmarshal(payload, v)
}

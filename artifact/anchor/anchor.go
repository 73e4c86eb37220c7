// Package anchor is the file of trust anchors that leaves a genesis: the one
// thing that people, factories and gateways take on trust.
//
// Everything else is checked against it. It names one world and one vault; a
// program has exactly one anchors file and refuses what belongs to another.
// Check its hash against the words on the participants' sheets before use:
// nothing in the file can prove itself.
//
// Compatibility: docs/formats/anchors.md, version 1 is read for ever.
package anchor

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"regexp"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/words"
	"keyrite/artifact/world"
)

// Format names the file.
const Format = "keyrite/anchors/v1"

var (
	// ErrNoKey says that the anchors know no such key.
	ErrNoKey = fault.New(fault.Policy, "the anchors have no such key")
	// ErrAnchors says that the file contradicts itself.
	ErrAnchors = fault.New(fault.Verify, "the anchors file contradicts itself")

	hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	idRE  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// Domains are the closed set of signing domains. A key signs in one of them
// only, and a verifier refuses it in any other.
func Domains() []string {
	return []string{"dsse", "raw-image", "cms", "fit", "tuf-root", "tuf-targets", "tuf-snapshot", "tuf-timestamp", "tuf-online", "x509", "note", "tsa"}
}

// Token names a PKCS#11 token, never by its slot.
type Token struct {
	Label  string `json:"label"`
	Serial string `json:"serial"`
}

// KeyRecord is one key made in a ceremony.
type KeyRecord struct {
	Algorithm string `json:"algorithm"` // "p256" or "ed25519"
	Domain    string `json:"domain"`    // one of Domains
	ID        string `json:"id"`        // for example "firmware"
	Public    []byte `json:"public"`    // DER SubjectPublicKeyInfo
	Record    string `json:"record"`    // id of the ceremony record
	SpecHash  string `json:"spec_hash"` // hex SHA-256 of the canonical key specification in the script
	// SuccessorOf is the id that a dormant key may take over; empty for others.
	SuccessorOf string `json:"successor_of,omitempty"`
	Token       Token  `json:"token"`
}

// Check validates the members.
func (k *KeyRecord) Check() error {
	if !idRE.MatchString(k.ID) || !hexRE.MatchString(k.SpecHash) || k.Record == "" || k.Token.Label == "" || k.Token.Serial == "" {
		return fault.Errorf(fault.Verify, "key record %.40q is incomplete", k.ID)
	}
	if k.SuccessorOf != "" && (!idRE.MatchString(k.SuccessorOf) || k.SuccessorOf == k.ID) {
		return fault.Errorf(fault.Verify, "key record %s succeeds %.40q", k.ID, k.SuccessorOf)
	}
	known := false
	for _, d := range Domains() {
		known = known || d == k.Domain
	}
	if !known || k.Algorithm != "p256" && k.Algorithm != "ed25519" {
		return fault.Errorf(fault.Verify, "key record %s: unknown domain or algorithm", k.ID)
	}
	pub, err := k.Key()
	if err != nil {
		return err
	}
	_, isEC := pub.(*ecdsa.PublicKey)
	if err := envelope.CheckKey(pub); err != nil || isEC != (k.Algorithm == "p256") {
		return fault.Errorf(fault.Verify, "key record %s: the key is not of algorithm %s", k.ID, k.Algorithm)
	}
	return nil
}

// Key returns the public key.
func (k *KeyRecord) Key() (crypto.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(k.Public)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "key record %s: %w", k.ID, err)
	}
	return pub, nil
}

// Anchors is the file.
type Anchors struct {
	Certificates map[string][]byte `json:"certificates"` // DER, by key id: birth-root, relay-ca
	Format       string            `json:"format"`
	Keys         []KeyRecord       `json:"keys"`
	RosterHash   string            `json:"roster_hash"` // hex SHA-256 of the canonical roster
	Successors   []KeyRecord       `json:"successors"`  // dormant roots
	Vault        string            `json:"vault"`       // vault id, hex
	World        world.World       `json:"world"`
}

// Parse reads an anchors file and checks that it is consistent.
func Parse(data []byte) (*Anchors, error) {
	var a Anchors
	if err := jcs.Unmarshal(data, &a); err != nil {
		return nil, err
	}
	return &a, a.Check()
}

// Check validates every member.
func (a *Anchors) Check() error {
	if a.Format != Format || !hexRE.MatchString(a.Vault) || !hexRE.MatchString(a.RosterHash) || a.Keys == nil || a.Successors == nil || a.Certificates == nil {
		return ErrAnchors
	}
	if err := a.World.Check(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, list := range [][]KeyRecord{a.Keys, a.Successors} {
		for i := range list {
			k := &list[i]
			if err := k.Check(); err != nil {
				return err
			}
			if seen[k.ID] || seen[string(k.Public)] {
				return fault.Errorf(fault.Verify, "%w: key %s stands twice", ErrAnchors, k.ID)
			}
			seen[k.ID], seen[string(k.Public)] = true, true
		}
	}
	for id := range a.Certificates {
		if _, err := a.Certificate(id); err != nil {
			return err
		}
	}
	return nil
}

// Marshal returns the anchors file.
func (a *Anchors) Marshal() ([]byte, error) { return jcs.Marshal(a) }

// Hash is the hex SHA-256 of the file; Words is the same for reading aloud.
func (a *Anchors) Hash() (string, error) {
	b, err := a.Marshal()
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// Words is the hash of the file as 32 words.
func (a *Anchors) Words() (string, error) {
	b, err := a.Marshal()
	sum := sha256.Sum256(b)
	return words.Of(sum[:]), err
}

// Key returns the active key id, provided it signs in domain.
func (a *Anchors) Key(id, domain string) (*KeyRecord, crypto.PublicKey, error) {
	for i := range a.Keys {
		if k := &a.Keys[i]; k.ID == id {
			if k.Domain != domain {
				return nil, nil, fault.Errorf(fault.Verify, "key %s signs %s, not %s", id, k.Domain, domain)
			}
			pub, err := k.Key()
			return k, pub, err
		}
	}
	return nil, nil, fault.Errorf(fault.Policy, "%w: %s", ErrNoKey, id)
}

// EnvelopeKeys returns keys for envelope.Verify; all must sign in domain dsse.
func (a *Anchors) EnvelopeKeys(ids ...string) ([]envelope.Key, error) {
	var out []envelope.Key
	for _, id := range ids {
		_, pub, err := a.Key(id, "dsse")
		if err != nil {
			return nil, err
		}
		out = append(out, envelope.Key{Name: id, Public: pub})
	}
	return out, nil
}

// Certificate returns the certificate of the key id ("birth-root", "relay-ca"),
// which must be of that very key.
func (a *Anchors) Certificate(id string) (*x509.Certificate, error) {
	rec, _, err := a.Key(id, "x509")
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(a.Certificates[id])
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "certificate of %s: %w", id, err)
	}
	if string(c.RawSubjectPublicKeyInfo) != string(rec.Public) {
		return nil, fault.Errorf(fault.Verify, "%w: certificate of %s is of another key", ErrAnchors, id)
	}
	return c, nil
}

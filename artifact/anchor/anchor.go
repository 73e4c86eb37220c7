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
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"regexp"
	"slices"

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

// DomainJWT is the domain of keys that sign tokens for other services (RFC 7515).
const DomainJWT = "jwt"

// DomainGeneral is the domain of keys that sign for processes whatever they ask for.
// No verifier of keyrite's own formats takes a signature of that domain.
const DomainGeneral = "general"

// Domains are the closed set of signing domains. A key signs in one of them
// only, and a verifier refuses it in any other.
func Domains() []string {
	return []string{"dsse", "raw-image", "cms", "fit", "tuf-root", "tuf-targets", "tuf-snapshot", "tuf-timestamp", "tuf-online", "x509", "note", "tsa", DomainJWT, DomainGeneral}
}

// Token names a PKCS#11 token, never by its slot.
type Token struct {
	Label  string `json:"label"`
	Serial string `json:"serial"`
}

// KeyRecord is one key made in a ceremony.
type KeyRecord struct {
	Algorithm string `json:"algorithm"` // one of Algorithms(Domain)
	// Attestation says what stands for the key having been born in its token: Attested,
	// Watched, or nothing but the ceremony PC.
	Attestation string `json:"attestation,omitempty"`
	Domain      string `json:"domain"`    // one of Domains
	ID          string `json:"id"`        // for example "firmware"
	Public      []byte `json:"public"`    // DER SubjectPublicKeyInfo
	Record      string `json:"record"`    // id of the ceremony record
	SpecHash    string `json:"spec_hash"` // hex SHA-256 of the canonical key specification in the script
	// SuccessorOf names the key that this one was made to follow. Until a
	// succession statement says so it is dormant: it signs nothing.
	SuccessorOf string `json:"successor_of,omitempty"`
	Token       Token  `json:"token"`
}

// What stands for the birth of a key. The proof is in its record.
const (
	Attested = "attested" // its HSM said so, under a vendor root of the charter
	Watched  = "quorum"   // a quorum of people watched, and signed
)

// Vouched says the same in one word: attested, quorum or none.
func (k *KeyRecord) Vouched() string {
	if k.Attestation == "" {
		return "none"
	}
	return k.Attestation
}

// Origin says in words what stands for the birth of the key.
func (k *KeyRecord) Origin() string {
	switch k.Attestation {
	case Attested:
		return "attested by its HSM"
	case Watched:
		return "watched by a quorum of people, not attested by an HSM"
	}
	return "neither attested nor watched, and rests on the ceremony PC alone"
}

// Role is the name under which a key is asked for: its own, or that of the key
// it follows.
func (k *KeyRecord) Role() string {
	if k.SuccessorOf != "" {
		return k.SuccessorOf
	}
	return k.ID
}

// Check validates the members.
func (k *KeyRecord) Check() error {
	if !idRE.MatchString(k.ID) || !hexRE.MatchString(k.SpecHash) || k.Record == "" || k.Token.Label == "" || k.Token.Serial == "" {
		return fault.Errorf(fault.Verify, "key record %.40q is incomplete", k.ID)
	}
	if !slices.Contains(Domains(), k.Domain) {
		return fault.Errorf(fault.Verify, "key record %s: unknown domain", k.ID)
	}
	if k.Attestation != "" && k.Attestation != Attested && k.Attestation != Watched {
		return fault.Errorf(fault.Verify, "key record %s: attestation %.40q", k.ID, k.Attestation)
	}
	if k.SuccessorOf != "" && (!idRE.MatchString(k.SuccessorOf) || k.SuccessorOf == k.ID) {
		return fault.Errorf(fault.Verify, "key record %s: successor of no other key", k.ID)
	}
	pub, err := k.Key()
	if err != nil {
		return err
	}
	if !slices.Contains(Algorithms(k.Domain), k.Algorithm) || !checkAlgorithm(k.Algorithm, pub) {
		return fault.Errorf(fault.Verify, "key record %s: the key is not of algorithm %s, or that is not one of domain %s", k.ID, k.Algorithm, k.Domain)
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
	// Former are the keys that a succession replaced. No anchors file that is
	// read aloud has any; anchors under a succession statement do.
	Former     []Former    `json:"former,omitempty"`
	Format     string      `json:"format"`
	Keys       []KeyRecord `json:"keys"`
	RosterHash string      `json:"roster_hash"` // hex SHA-256 of the canonical roster
	Successors []KeyRecord `json:"successors"`  // dormant: known, and signing nothing yet
	Vault      string      `json:"vault"`       // vault id, hex
	World      world.World `json:"world"`
}

// Former is a key that is not to be believed any more.
type Former struct {
	Key    KeyRecord `json:"key"`
	Reason string    `json:"reason"` // "compromised", "destroyed", "lost" or "retired"
}

// Reasons for which a key is replaced.
func Reasons() []string { return []string{"compromised", "destroyed", "lost", "retired"} }

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
	for _, k := range a.all() {
		if err := k.Check(); err != nil {
			return err
		}
		if seen[k.ID] || seen[string(k.Public)] {
			return fault.Errorf(fault.Verify, "%w: key %s stands twice", ErrAnchors, k.ID)
		}
		seen[k.ID], seen[string(k.Public)] = true, true
	}
	if err := a.checkRoles(); err != nil {
		return err
	}
	for id := range a.Certificates {
		if _, err := a.certificate(id); err != nil {
			return err
		}
	}
	return nil
}

// all are the keys of the three lists, in this order.
func (a *Anchors) all() []*KeyRecord {
	var out []*KeyRecord
	for _, list := range [][]KeyRecord{a.Keys, a.Successors} {
		for i := range list {
			out = append(out, &list[i])
		}
	}
	for i := range a.Former {
		out = append(out, &a.Former[i].Key)
	}
	return out
}

// checkRoles wants one active key for each role, and at most one dormant key
// for it, of the same domain and algorithm.
func (a *Anchors) checkRoles() error {
	active, dormant := map[string]*KeyRecord{}, map[string]bool{}
	for i := range a.Keys {
		k := &a.Keys[i]
		if active[k.Role()] != nil {
			return fault.Errorf(fault.Verify, "%w: two active keys %s", ErrAnchors, k.Role())
		}
		active[k.Role()] = k
	}
	for i := range a.Successors {
		k := &a.Successors[i]
		if k.SuccessorOf == "" {
			continue // files of the first months name no predecessor
		}
		of := active[k.SuccessorOf]
		if of == nil || of.Domain != k.Domain || of.Algorithm != k.Algorithm || dormant[k.SuccessorOf] || active[k.ID] != nil {
			return fault.Errorf(fault.Verify, "%w: %s is no successor of %s", ErrAnchors, k.ID, k.SuccessorOf)
		}
		dormant[k.SuccessorOf] = true
	}
	for _, f := range a.Former {
		if of := active[f.Key.Role()]; of == nil || of.Domain != f.Key.Domain || !slices.Contains(Reasons(), f.Reason) {
			return fault.Errorf(fault.Verify, "%w: former key %s", ErrAnchors, f.Key.ID)
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

// Key returns the active key id, provided it signs in domain. Under a
// succession that is the key that follows id, which has its own name too.
func (a *Anchors) Key(id, domain string) (*KeyRecord, crypto.PublicKey, error) {
	for i := range a.Keys {
		if k := &a.Keys[i]; k.Role() == id || k.ID == id {
			if k.Domain != domain {
				return nil, nil, fault.Errorf(fault.Verify, "key %s signs %s, not %s", id, k.Domain, domain)
			}
			pub, err := k.Key()
			return k, pub, err
		}
	}
	return nil, nil, fault.Errorf(fault.Policy, "%w: %s", ErrNoKey, id)
}

// Dormant returns the key that is to follow id, nil without one.
func (a *Anchors) Dormant(id string) *KeyRecord {
	for i := range a.Successors {
		if a.Successors[i].SuccessorOf == id {
			return &a.Successors[i]
		}
	}
	return nil
}

// EnvelopeKeys returns keys for envelope.Verify; all must sign in domain dsse.
func (a *Anchors) EnvelopeKeys(ids ...string) ([]envelope.Key, error) {
	var out []envelope.Key
	for _, id := range ids {
		rec, pub, err := a.Key(id, "dsse")
		if err != nil {
			return nil, err
		}
		out = append(out, envelope.Key{Name: rec.ID, Public: pub})
	}
	return out, nil
}

// Certificate returns the certificate of the active key id ("birth-root",
// "relay-ca"), which must be of that very key.
func (a *Anchors) Certificate(id string) (*x509.Certificate, error) {
	rec, _, err := a.Key(id, "x509")
	if err != nil {
		return nil, err
	}
	return a.certificate(rec.ID)
}

// Issuer returns the certificate of that key of id, the active one or a former
// one, which c names as its issuer; the active one if c names none of them. Use
// it only where somebody else vouches for c (the charter for a factory's CA, an
// acceptance for a device): a former key vouches for nothing. It checks no
// signature.
func (a *Anchors) Issuer(id string, c *x509.Certificate) (*x509.Certificate, error) {
	for i := range a.Former {
		k := &a.Former[i].Key
		if k.Role() != id || a.Certificates[k.ID] == nil {
			continue
		}
		old, err := a.certificate(k.ID)
		if err != nil {
			return nil, err
		}
		if len(old.SubjectKeyId) > 0 && bytes.Equal(old.SubjectKeyId, c.AuthorityKeyId) {
			return old, nil
		}
	}
	return a.Certificate(id)
}

// Roles returns every key of the role id: in force, dormant and former.
func (a *Anchors) Roles(id string) []*KeyRecord {
	return slices.DeleteFunc(a.all(), func(k *KeyRecord) bool { return k.Role() != id })
}

// Known returns the record of exactly the key of that id: active, dormant or
// former. To know a key is not to believe it.
func (a *Anchors) Known(id string) (*KeyRecord, bool) {
	for _, k := range a.all() {
		if k.ID == id {
			return k, true
		}
	}
	return nil, false
}

// Present returns the certificate of that key of id, the active or the dormant
// one, which c names as its issuer; the active one if c names neither. It is for
// peers that must find each other before one can tell the other of a
// succession: what a dormant key certifies is never older than its activation.
// It checks no signature.
func (a *Anchors) Present(id string, c *x509.Certificate) (*x509.Certificate, error) {
	if k := a.Dormant(id); k != nil && a.Certificates[k.ID] != nil {
		next, err := a.certificate(k.ID)
		if err != nil || len(next.SubjectKeyId) > 0 && bytes.Equal(next.SubjectKeyId, c.AuthorityKeyId) {
			return next, err
		}
	}
	return a.Certificate(id)
}

// certificate returns the certificate that stands under exactly this key id.
func (a *Anchors) certificate(id string) (*x509.Certificate, error) {
	for _, rec := range a.all() {
		if rec.ID != id {
			continue
		}
		if rec.Domain != "x509" {
			return nil, fault.Errorf(fault.Verify, "key %s signs %s, not x509", id, rec.Domain)
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
	return nil, fault.Errorf(fault.Policy, "%w: %s", ErrNoKey, id)
}

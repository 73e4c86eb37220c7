// Package updateroot checks the root metadata of the update repository (TUF
// specification 1.0.31) against the charter, for those who verify the record of the
// ceremony that signed it.
//
// Check says whether a root is the one that the charter calls for, signed by those
// who must; Next whether those who trust one root will take another. Clients of the
// repository have TUF's own code and its own rules beside these; the writer is
// signer/tuf. It must never accept a spelling that the writer does not write.
//
// Compatibility: docs/formats/tuf.md.
package updateroot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

// MaxBytes bounds a root.
const MaxBytes = 64 << 10

// Ids of the keys in the charter, each with a signing domain of the same name.
const (
	rootKey    = "tuf-root"
	targetsKey = "tuf-targets"
	onlineKey  = "tuf-online"
)

// Classes of refusal.
var (
	// ErrRoot says that a root is not that of the charter.
	ErrRoot = fault.New(fault.Verify, "update root does not hold")
	// ErrSigners says that a root lacks signatures.
	ErrSigners = fault.New(fault.Quorum, "too few signatures on the update root")
)

func bad(format string, args ...any) error { return fault.Errorf(fault.Verify, format, args...) }

// Root is root metadata that parsed.
type Root struct {
	file
	tbs  []byte                      // what was signed
	keys map[string]crypto.PublicKey // by TUF key id
}

type file struct {
	Signatures []struct {
		KeyID string `json:"keyid"`
		Sig   string `json:"sig"` // hex
	} `json:"signatures"`
	Signed signed `json:"signed"`
}

type signed struct {
	Type               string          `json:"_type"`
	ConsistentSnapshot bool            `json:"consistent_snapshot"`
	Expires            string          `json:"expires"`
	Keys               map[string]*key `json:"keys"`
	Roles              map[string]role `json:"roles"`
	SpecVersion        string          `json:"spec_version"`
	Version            int64           `json:"version"`
	World              world.World     `json:"x-keyrite-world"`
}

type key struct {
	Type  string `json:"keytype"`
	Value struct {
		Public string `json:"public"`
	} `json:"keyval"`
	Scheme string `json:"scheme"`
}

type role struct {
	KeyIDs    []string `json:"keyids"`
	Threshold int      `json:"threshold"`
}

// Parse reads a root. It must be spelt as the writer does: members sorted, none
// unknown, repeated or missing.
func Parse(data []byte) (*Root, error) {
	if len(data) > MaxBytes {
		return nil, bad("%w: %d bytes", ErrRoot, len(data))
	}
	r := &Root{keys: map[string]crypto.PublicKey{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r.file); err != nil {
		return nil, bad("%w: it cannot be read: %w", ErrRoot, err)
	}
	again, err := json.Marshal(r.file)
	if err != nil || !bytes.Equal(again, data) {
		return nil, bad("%w: it is spelt otherwise than roots are written", ErrRoot)
	}
	s := &r.Signed
	at, err := time.Parse(time.RFC3339, s.Expires)
	if err != nil || s.Type != "root" || s.Version < 1 || !s.ConsistentSnapshot || at.UTC().Format(time.RFC3339) != s.Expires {
		return nil, bad("%w: type, version or expiry", ErrRoot)
	}
	if err := s.World.Check(); err != nil {
		return nil, err
	}
	if r.tbs, err = cjson.EncodeCanonical(s); err != nil {
		return nil, bad("%w: %w", ErrRoot, err)
	}
	for id, k := range s.Keys {
		if r.keys[id], err = k.public(id); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// public returns the key that stands under id, which is its hash.
func (k *key) public(id string) (crypto.PublicKey, error) {
	if k == nil {
		return nil, bad("%w: no key %.16q", ErrRoot, id)
	}
	b, err := cjson.EncodeCanonical(k)
	if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != id {
		return nil, bad("%w: key %.16q stands under another id", ErrRoot, id)
	}
	switch k.Type + " " + k.Scheme {
	case "ed25519 ed25519":
		pub, err := hex.DecodeString(k.Value.Public)
		if err == nil && len(pub) == ed25519.PublicKeySize {
			return ed25519.PublicKey(pub), nil
		}
	case "ecdsa ecdsa-sha2-nistp256":
		if block, _ := pem.Decode([]byte(k.Value.Public)); block != nil {
			pub, err := x509.ParsePKIXPublicKey(block.Bytes)
			if p, ok := pub.(*ecdsa.PublicKey); err == nil && ok && envelope.CheckKey(p) == nil {
				return p, nil
			}
		}
	}
	return nil, bad("%w: key %.16q is none that signs here", ErrRoot, id)
}

// Version is the number of the root.
func (r *Root) Version() int64 { return r.Signed.Version }

// want are the keys that the charter calls for: token keys first, the one in force
// before its twins, then the approvers.
type want struct {
	tokens, people  []crypto.PublicKey
	targets, online crypto.PublicKey
}

func wanted(c *charter.State) (*want, error) {
	w := &want{}
	var err error
	get := func(id string) crypto.PublicKey {
		rec, e := c.Key(id, id)
		if err == nil {
			err = e
		}
		if e != nil {
			return nil
		}
		pub, e := rec.Key()
		if err == nil {
			err = e
		}
		return pub
	}
	w.tokens, w.targets, w.online = []crypto.PublicKey{get(rootKey)}, get(targetsKey), get(onlineKey)
	if err != nil {
		return nil, err
	}
	for _, twin := range c.Dormant(rootKey) {
		pub, err := twin.Key()
		if err != nil {
			return nil, err
		}
		w.tokens = append(w.tokens, pub)
	}
	for _, name := range c.People.Sets.Approvers.Members {
		m, ok := c.People.Person(name)
		if !ok {
			return nil, bad("%w: approver %.40q is not in the roster", ErrRoot, name)
		}
		w.people = append(w.people, m.Person.PublicKey())
	}
	return w, nil
}

// Check says whether the root is the one that the charter calls for: its world,
// exactly the charter's keys in their roles, signed by the threshold, by the key in
// force of the root token among them, and by a person where tokens alone could.
func (r *Root) Check(c *charter.State) error {
	if err := world.Match(c.World, r.Signed.World); err != nil {
		return err
	}
	w, err := wanted(c)
	if err != nil {
		return err
	}
	need := max(2, len(w.people))
	all := 0
	for _, x := range []struct {
		role string
		keys []crypto.PublicKey
		need int
	}{{"root", slices.Concat(w.tokens, w.people), need}, {"targets", []crypto.PublicKey{w.targets}, 1}, {"snapshot", []crypto.PublicKey{w.online}, 1}, {"timestamp", []crypto.PublicKey{w.online}, 1}} {
		got := r.Signed.Roles[x.role]
		if got.Threshold != x.need || !r.same(got.KeyIDs, x.keys) {
			return bad("%w: the keys or threshold of role %s are not those of the charter", ErrRoot, x.role)
		}
		if x.role != "timestamp" { // it shares its key with snapshot
			all += len(x.keys)
		}
	}
	if len(r.Signed.Roles) != 4 || len(r.keys) != all {
		return bad("%w: it has roles or keys that the charter does not call for", ErrRoot)
	}
	by, err := r.signers(r)
	if err != nil {
		return err
	}
	switch {
	case len(by) < need:
		return fault.Errorf(fault.Quorum, "%w: %d of the %d needed", ErrSigners, len(by), need)
	case !has(by, w.tokens[0]):
		return fault.Errorf(fault.Quorum, "%w: that of the root token's key in force is missing", ErrSigners)
	case len(w.tokens) > 1 && !slices.ContainsFunc(w.people, func(p crypto.PublicKey) bool { return has(by, p) }):
		return fault.Errorf(fault.Quorum, "%w: that of a person is missing", ErrSigners)
	}
	return nil
}

// same says whether ids stand for exactly these keys.
func (r *Root) same(ids []string, keys []crypto.PublicKey) bool {
	var got []crypto.PublicKey
	for _, id := range ids {
		if r.keys[id] == nil || has(got, r.keys[id]) {
			return false
		}
		got = append(got, r.keys[id])
	}
	return len(got) == len(keys) && !slices.ContainsFunc(keys, func(k crypto.PublicKey) bool { return !has(got, k) })
}

func has(keys []crypto.PublicKey, k crypto.PublicKey) bool {
	return slices.ContainsFunc(keys, func(x crypto.PublicKey) bool {
		e, ok := x.(interface{ Equal(x crypto.PublicKey) bool })
		return ok && e.Equal(k)
	})
}

// signers are the keys of the root role of r that signed next. Every signature must
// hold, and none stand twice; those by other keys count for nothing.
func (r *Root) signers(next *Root) ([]crypto.PublicKey, error) {
	var by []crypto.PublicKey
	seen := map[string]bool{}
	for _, s := range next.Signatures {
		if seen[s.KeyID] {
			return nil, bad("%w: a signature stands twice", ErrRoot)
		}
		seen[s.KeyID] = true
		if !slices.Contains(r.Signed.Roles["root"].KeyIDs, s.KeyID) {
			if r == next {
				return nil, bad("%w: signed by a key that is none of its own", ErrRoot)
			}
			continue
		}
		sig, err := hex.DecodeString(s.Sig)
		if err != nil || hex.EncodeToString(sig) != s.Sig {
			return nil, bad("%w: a signature is not lower-case hex", ErrRoot)
		}
		if err := envelope.CheckBytes(r.keys[s.KeyID], next.tbs, sig); err != nil {
			return nil, bad("%w: %w", ErrRoot, err)
		}
		by = append(by, r.keys[s.KeyID])
	}
	return by, nil
}

// Next says whether those who trust r, itself a root of the vault, take next: the
// version after it, signed by the threshold of r too.
func (r *Root) Next(next *Root, c *charter.State) error {
	if next.Signed.Version != r.Signed.Version+1 {
		return bad("%w: version %d does not follow %d", ErrRoot, next.Signed.Version, r.Signed.Version)
	}
	if err := world.Match(r.Signed.World, next.Signed.World); err != nil {
		return err
	}
	if err := r.ours(c); err != nil {
		return err
	}
	by, err := r.signers(next)
	if err != nil {
		return err
	}
	if need := r.Signed.Roles["root"].Threshold; len(by) < need {
		return fault.Errorf(fault.Quorum, "%w: those who trust root %d would refuse it: %d of the %d needed", ErrSigners, r.Signed.Version, len(by), need)
	}
	return nil
}

// ours says whether a root of before is one of this vault: it meets its own
// threshold, of two or more, and a root token's key of the charter signed it.
func (r *Root) ours(c *charter.State) error {
	by, err := r.signers(r)
	if err != nil {
		return err
	}
	need := r.Signed.Roles["root"].Threshold
	if need < 2 || len(by) < need {
		return fault.Errorf(fault.Quorum, "%w: root %d does not meet its own threshold", ErrSigners, r.Signed.Version)
	}
	for _, id := range slices.Sorted(maps.Keys(c.Keys)) {
		k := c.Keys[id]
		if k.Domain != rootKey || k.Role() != rootKey {
			continue
		}
		pub, err := k.Key()
		if err != nil {
			return err
		}
		if has(by, pub) {
			return nil
		}
	}
	return bad("%w: no root token of this vault signed root %d", ErrRoot, r.Signed.Version)
}

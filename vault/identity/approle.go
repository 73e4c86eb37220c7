package identity

import (
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/internal/redact"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Secret ids of roles.
const (
	// SecretPrefix marks a secret id, for scanners of leaked secrets.
	SecretPrefix = "krs."
	// bucketSecrets has them, ROLE/ACCESSOR: docs/formats/store.md.
	bucketSecrets = "identity/secret-id"
	// secretFormat names one in the store.
	secretFormat = "keyrite/secret-id/v1"
	// maxSecrets is how many one role may have out.
	maxSecrets = 1_000
	// maxSecretUses bounds the logins with one.
	maxSecretUses = 1_000
	// maxSecretTTL bounds its life.
	maxSecretTTL = 90 * 24 * time.Hour
	// defaultSecretTTL is its life where the request says none.
	defaultSecretTTL = 24 * time.Hour
)

// secretID is a secret id as the store has it: never itself. Times are in seconds.
type secretID struct {
	By      string `json:"by"` // identity that asked for it
	Expires int64  `json:"expires"`
	Format  string `json:"format"`
	Hash    string `json:"hash"` // hex SHA-256 of it
	Issued  int64  `json:"issued"`
	Uses    int    `json:"uses"` // left
}

// accessorOf names a secret id without being it: half of its hash.
func accessorOf(h hash) string { return hex.EncodeToString(h[:16]) }

func secretKey(role, accessor string) string { return role + "/" + accessor }

func readSecret(s getter, role, accessor string) (*secretID, error) {
	raw, err := s.Get(bucketSecrets, secretKey(role, accessor))
	if err != nil {
		return nil, err
	}
	var out secretID
	if err := jcs.Unmarshal(raw, &out); err != nil {
		return nil, err
	}
	if out.Format != secretFormat {
		return nil, fault.Errorf(fault.Verify, "a secret id of format %.40q", out.Format)
	}
	return &out, nil
}

// loginAppRole takes a secret id of a role, from its networks only.
func (r *Registry) loginAppRole(state *charter.State, p engine.Params, peer *Peer) (*proof, error) {
	if err := p.Only("role_id", "secret_id"); err != nil {
		return nil, err
	}
	role, err := p.String("role_id")
	if err != nil {
		return nil, err
	}
	text, err := p.String("secret_id")
	if err != nil {
		return nil, err
	}
	now := r.clock()
	x, h, err := r.tryRole(state, role, text, peer, now)
	if err != nil {
		return nil, err
	}
	return &proof{means: MeansAppRole, identity: *x, spend: func(tx *seal.Tx) error {
		if err := spendSecret(tx, role, h, now.Unix()); err != nil {
			return concerning(err, "secret id", role)
		}
		r.suspects.right(byRole(role), byAddress(peer.Remote))
		return nil
	}}, nil
}

// tryRole judges a role and its secret id, and counts what is wrong.
func (r *Registry) tryRole(state *charter.State, role, text string, peer *Peer, now time.Time) (*charter.Identity, hash, error) {
	from := byAddress(peer.Remote)
	x, ok := state.Access.Identities[role]
	if !ok || x.AppRole == nil || !inNetworks(x.AppRole, peer.Remote) {
		r.suspects.wrong(now, from, maxAddrWait)
		if ok && x.AppRole != nil {
			return nil, hash{}, refuse("role %s from %s, which is outside its networks", role, peer.Remote).about(role, "")
		}
		return nil, hash{}, refuse("role %.40q, which is none", role)
	}
	if d := r.suspects.wait(now, from, byRole(role)); d > 0 {
		return nil, hash{}, refuse("role %s after too many wrong secret ids, for %v more", role, d.Round(time.Second)).about(role, "")
	}
	h, err := hashSecret(SecretPrefix, redact.New([]byte(text)))
	if err == nil {
		err = r.view(func(v *seal.View) error {
			_, err := goodSecret(v, role, h, now.Unix())
			return err
		})
	}
	if _, wrong := errors.AsType[*Refusal](err); wrong {
		r.suspects.wrong(now, from, maxAddrWait)
		r.suspects.wrong(now, byRole(role), maxRoleWait)
	}
	if err != nil {
		return nil, hash{}, concerning(err, "secret id", role)
	}
	return &x, h, nil
}

// goodSecret finds a secret id that may be used now.
func goodSecret(s getter, role string, h hash, now int64) (*secretID, error) {
	out, err := readSecret(s, role, accessorOf(h))
	if errors.Is(err, seal.ErrNotFound) {
		return nil, refuse("one that was never given, was used up or taken back")
	}
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(out.Hash), []byte(hex.EncodeToString(h[:]))) != 1 {
		return nil, refuse("one that was never given")
	}
	if out.Uses < 1 || now >= out.Expires {
		return nil, refuse("one whose time or uses are over")
	}
	return out, nil
}

// spendSecret takes one use.
func spendSecret(tx *seal.Tx, role string, h hash, now int64) error {
	s, err := goodSecret(tx, role, h, now)
	if err != nil {
		return err
	}
	key := secretKey(role, accessorOf(h))
	if s.Uses--; s.Uses == 0 {
		return tx.Delete(bucketSecrets, key)
	}
	return putSecret(tx, key, s)
}

func putSecret(tx *seal.Tx, key string, s *secretID) error {
	s.Format = secretFormat
	raw, err := jcs.Marshal(s)
	if err != nil {
		return err
	}
	return tx.Put(bucketSecrets, key, raw)
}

// roleOf splits the key of a secret id.
func roleOf(key string) (role, accessor string) {
	role, accessor, _ = strings.Cut(key, "/")
	return role, accessor
}

package update

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
)

// Roles of the anchors' keys in TUF; each signs in the domain of its own name.
const (
	keyTUFRoot    = "tuf-root"
	keyTUFTargets = "tuf-targets"
	keyTUFOnline  = "tuf-online"
)

// CheckRoot says whether data is a first TUF root of the world of a: signed by
// the anchors' tuf-root key, with targets, snapshot and timestamp given to the
// anchors' keys alone.
func CheckRoot(data []byte, a *anchor.Anchors) error {
	if len(data) > maxRootBytes {
		return fault.Errorf(fault.Verify, "TUF root of %d bytes: %w", len(data), ErrTUF)
	}
	root, err := metadata.Root().FromBytes(data)
	if err != nil {
		return fault.Errorf(fault.Verify, "TUF root: %w: %w", ErrTUF, err)
	}
	if err := root.VerifyDelegate(metadata.ROOT, root); err != nil {
		return fault.Errorf(fault.Verify, "TUF root: %w: %w", ErrTUF, err)
	}
	for role, id := range map[string]string{metadata.TARGETS: keyTUFTargets, metadata.SNAPSHOT: keyTUFOnline, metadata.TIMESTAMP: keyTUFOnline} {
		keys, err := roleKeys(root, role)
		if err != nil {
			return err
		}
		if len(keys) != 1 || !isAnchor(a, id, slices.Collect(maps.Values(keys))[0]) {
			return fault.Errorf(fault.Verify, "TUF root: %w: role %s is not the anchors' key %s alone", ErrTUF, role, id)
		}
	}
	return checkRootSigner(root, a)
}

func roleKeys(root *metadata.Metadata[metadata.RootType], role string) (map[string]crypto.PublicKey, error) {
	r, ok := root.Signed.Roles[role]
	if !ok {
		return nil, fault.Errorf(fault.Verify, "TUF root: %w: no role %s", ErrTUF, role)
	}
	out := map[string]crypto.PublicKey{}
	for _, id := range r.KeyIDs {
		k, ok := root.Signed.Keys[id]
		if !ok || k == nil {
			return nil, fault.Errorf(fault.Verify, "TUF root: %w: key of role %s is missing", ErrTUF, role)
		}
		pub, err := k.ToPublicKey()
		if err != nil {
			return nil, fault.Errorf(fault.Verify, "TUF root: %w: %w", ErrTUF, err)
		}
		out[id] = pub
	}
	return out, nil
}

func isAnchor(a *anchor.Anchors, id string, pub crypto.PublicKey) bool {
	_, want, err := a.Key(id, id)
	if err != nil {
		return false
	}
	k, ok := want.(*ecdsa.PublicKey)
	return ok && k.Equal(pub)
}

// checkRootSigner wants the anchors' tuf-root key among the signers, and beside two
// root tokens a person: TUF's own threshold could be met without.
func checkRootSigner(root *metadata.Metadata[metadata.RootType], a *anchor.Anchors) error {
	keys, err := roleKeys(root, metadata.ROOT)
	if err != nil {
		return err
	}
	var inForce, people []string
	tokens := 0
	for id, pub := range keys {
		switch {
		case isAnchor(a, keyTUFRoot, pub):
			inForce = append(inForce, id)
			tokens++
		case isTokenKey(a, pub):
			tokens++
		default:
			people = append(people, id)
		}
	}
	if !signedByOne(root, inForce) {
		return fault.Errorf(fault.Verify, "TUF root: %w: it is not signed by the anchors' key %s", ErrTUF, keyTUFRoot)
	}
	if tokens > 1 && !signedByOne(root, people) {
		return fault.Errorf(fault.Verify, "TUF root: %w: it is signed by tokens only, by no person", ErrTUF)
	}
	return nil
}

// signedByOne says whether one of the root role's keys ids signed root.
func signedByOne(root *metadata.Metadata[metadata.RootType], ids []string) bool {
	only := *root
	only.Signed.Roles = map[string]*metadata.Role{metadata.ROOT: {KeyIDs: ids, Threshold: 1}}
	return len(ids) > 0 && only.VerifyDelegate(metadata.ROOT, root) == nil
}

// isTokenKey says whether pub is a tuf-root key of the anchors, in force or not.
func isTokenKey(a *anchor.Anchors, pub crypto.PublicKey) bool {
	der, err := x509.MarshalPKIXPublicKey(pub)
	return err != nil || slices.ContainsFunc(a.Roles(keyTUFRoot), func(k *anchor.KeyRecord) bool { return bytes.Equal(k.Public, der) })
}

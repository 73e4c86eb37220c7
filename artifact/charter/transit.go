package charter

import (
	"slices"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
)

// TypeTransitKey is the statement type of a key of a transit engine.
const TypeTransitKey = "transit-key"

// TransitKey is a key under whose name clients ask a transit engine for work. It
// is either made by the vault and kept in its store, or a key of the charter that
// lives in a token. A later statement of the same mount and name replaces a
// software key's.
type TransitKey struct {
	Mount    string       `json:"mount"`
	Name     string       `json:"name"`
	Software *SoftwareKey `json:"software,omitempty"`
	TokenKey string       `json:"token_key,omitempty"` // key id; its successors take its place
}

// SoftwareKey says which versions of a key there are. Versions begin with 1 and
// are raised one at a time, which is a rotation; the numbers of a later statement
// never sink, so nothing that was shut out comes back.
type SoftwareKey struct {
	MinDecryption int    `json:"min_decryption_version"` // oldest that decrypts and verifies
	MinEncryption int    `json:"min_encryption_version"` // oldest that encrypts and signs
	Type          string `json:"type"`                   // one of TransitTypes
	Versions      int    `json:"versions"`
}

// TransitTypes are the types of keys that the vault makes, in the words that
// clients of HashiCorp Vault know.
func TransitTypes() []string {
	return []string{"aes256-gcm96", "ecdsa-p256", "ecdsa-p384", "ed25519", "hmac", "rsa-3072"}
}

// MaxTransitVersions bounds the versions of one key.
const MaxTransitVersions = 10_000

func (s *State) addTransitKey(k *TransitKey) error {
	id := At(k.Mount, k.Name)
	m, ok := s.Access.Mounts[k.Mount]
	if !ok || m.Engine != "transit" || !idRE.MatchString(k.Name) || s.Access.ended[TypeTransitKey+"/"+id] {
		return badAccess(TypeTransitKey, id, "there is no transit engine at that place, or the name is no id or was ended")
	}
	had, again := s.Transit[id]
	var err error
	switch {
	case (k.Software == nil) == (k.TokenKey == ""):
		err = badAccess(TypeTransitKey, id, "it is one of the vault's own, or one in a token")
	case again && (had.Software == nil || k.Software == nil):
		err = badAccess(TypeTransitKey, id, "the name is taken; a key in a token is replaced by its successor")
	case k.Software != nil:
		err = k.Software.check(id, had.Software)
	default:
		err = s.checkTokenKey(k)
	}
	if err != nil {
		return err
	}
	s.Transit[id] = *k
	return nil
}

// check wants what follows had, which is nil for a new key.
func (k *SoftwareKey) check(id string, had *SoftwareKey) error {
	switch {
	case !slices.Contains(TransitTypes(), k.Type):
		return badAccess(TypeTransitKey, id, "no such type")
	case k.MinDecryption < 1 || k.MinEncryption < k.MinDecryption || k.Versions < k.MinEncryption || k.Versions > MaxTransitVersions:
		return badAccess(TypeTransitKey, id, "1 <= min_decryption_version <= min_encryption_version <= versions must hold")
	case had == nil && k.Versions != 1:
		return badAccess(TypeTransitKey, id, "versions begin with 1")
	case had == nil:
		return nil
	case k.Type != had.Type:
		return badAccess(TypeTransitKey, id, "a key keeps its type")
	case k.Versions < had.Versions || k.Versions > had.Versions+1:
		return badAccess(TypeTransitKey, id, "versions are raised one at a time")
	case k.MinDecryption < had.MinDecryption || k.MinEncryption < had.MinEncryption:
		return badAccess(TypeTransitKey, id, "what was shut out comes back")
	case *k == *had:
		return badAccess(TypeTransitKey, id, "it changes nothing")
	}
	return nil
}

// checkTokenKey wants a key that is in force under the id by which it was
// admitted, and stands under no other name: one name, one policy.
func (s *State) checkTokenKey(k *TransitKey) error {
	id := At(k.Mount, k.Name)
	rec, ok := s.Keys[k.TokenKey]
	if !ok || rec.SuccessorOf != "" {
		return badAccess(TypeTransitKey, id, "no key in force is called "+k.TokenKey)
	}
	if _, err := s.Key(k.TokenKey, rec.Domain); err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrStatement, err)
	}
	for _, other := range s.Transit {
		if other.TokenKey == k.TokenKey {
			return badAccess(TypeTransitKey, id, "the key has the name "+At(other.Mount, other.Name)+" already")
		}
	}
	return nil
}

// endTransitKey ends a key of a transit engine. A key that the vault made is
// destroyed with that, and what it encrypted is lost.
func (s *State) endTransitKey(id string) bool {
	_, there := s.Transit[id]
	delete(s.Transit, id)
	return there
}

// TransitEnded says whether a key of that id was ended.
func (s *State) TransitEnded(id string) bool { return s.Access.ended[TypeTransitKey+"/"+id] }

// TransitKeys are the names of a mount's keys, in order.
func (s *State) TransitKeys(mount string) []string { return namesAt(s.Transit, mount) }

// Line returns the keys that stood for id, the first one first and the one in
// force last. It says nothing of whether that one is retired.
func (s *State) Line(id string) []anchor.KeyRecord {
	first, ok := s.Keys[id]
	if !ok || first.SuccessorOf != "" {
		return nil
	}
	out := []anchor.KeyRecord{first}
	for _, next := range s.lines[id] {
		out = append(out, s.Keys[next])
	}
	return out
}

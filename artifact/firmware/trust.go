package firmware

import (
	"crypto"
	"crypto/ed25519"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

// productPrefix and a product are the id of the key of that product alone.
const productPrefix = KeyID + "-"

// KeyIDOf is the id of a key that signs releases of one product only, where there
// is one: "firmware-gw200".
func KeyIDOf(product string) string { return productPrefix + product }

// Trust is what a verifier holds: one world, one vault, the firmware keys, and
// the release log's key.
type Trust struct {
	World    world.World
	Vault    string           // hex vault id
	Firmware crypto.PublicKey // ECDSA P-256; of any product
	// Products are the keys that sign for one product only, by product.
	Products map[string]crypto.PublicKey
	// Log is needed for .krf files and log proofs only.
	Log ed25519.PublicKey
	// Gone and Dormant make a refusal clear: the firmware keys that gave way to
	// these, and those that may follow them, each under its role's id or its own.
	// None is believed.
	Gone    []envelope.Key
	Dormant []envelope.Key

	before []*Trust
}

// TrustOf takes the keys from an anchors file: those with the role "firmware" or
// "firmware-PRODUCT", and the log's.
func TrustOf(a *anchor.Anchors) (*Trust, error) {
	_, fw, err := a.Key(KeyID, domainDSSE)
	if err != nil {
		return nil, err
	}
	_, l, err := a.Key(LogKeyID, domainNote)
	if err != nil {
		return nil, err
	}
	pub, ok := l.(ed25519.PublicKey)
	if !ok {
		return nil, fault.New(fault.Verify, "the log key of the anchors is not Ed25519")
	}
	t := &Trust{World: a.World, Vault: a.Vault, Firmware: fw, Log: pub}
	for i := range a.Keys {
		product, ok := strings.CutPrefix(a.Keys[i].Role(), productPrefix)
		if !ok || a.Keys[i].Domain != domainDSSE {
			continue
		}
		if t.Products == nil {
			t.Products = map[string]crypto.PublicKey{}
		}
		if t.Products[product], err = a.Keys[i].Key(); err != nil {
			return nil, err
		}
	}
	return t, t.mentions(a)
}

// mentions adds the keys that are not in force.
func (t *Trust) mentions(a *anchor.Anchors) error {
	for i := range a.Former {
		k := &a.Former[i].Key
		pub, err := t.mention(&t.Gone, k)
		if err != nil {
			return err
		}
		if pub == nil {
			continue
		}
		before := &Trust{World: t.World, Vault: t.Vault, Log: t.Log}
		if product, ok := strings.CutPrefix(k.Role(), productPrefix); ok {
			before.Products = map[string]crypto.PublicKey{product: pub}
		} else {
			before.Firmware = pub
		}
		t.before = append(t.before, before)
	}
	for i := range a.Successors {
		if _, err := t.mention(&t.Dormant, &a.Successors[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Trust) mention(list *[]envelope.Key, k *anchor.KeyRecord) (crypto.PublicKey, error) {
	if k.Domain != domainDSSE || k.Role() != KeyID && !strings.HasPrefix(k.Role(), productPrefix) {
		return nil, nil
	}
	pub, err := k.Key()
	*list = append(*list, envelope.Key{Name: k.ID, Public: pub})
	return pub, err
}

// Before is what was believed before each key that gave way did: that key, for
// what it signed, and no other. Only a device uses it, for a release that it has
// installed already.
func (t *Trust) Before() []*Trust { return slices.Clone(t.before) }

// keys are those that are believed, each under the id of its role.
func (t *Trust) keys() []envelope.Key {
	var out []envelope.Key
	if t.Firmware != nil {
		out = append(out, envelope.Key{Name: KeyID, Public: t.Firmware})
	}
	for _, p := range slices.Sorted(maps.Keys(t.Products)) {
		out = append(out, envelope.Key{Name: KeyIDOf(p), Public: t.Products[p]})
	}
	return out
}

// Key is the key that is believed in a role, nil if there is none.
func (t *Trust) Key(role string) crypto.PublicKey {
	for _, k := range t.keys() {
		if k.Name == role {
			return k.Public
		}
	}
	return nil
}

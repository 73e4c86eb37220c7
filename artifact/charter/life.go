package charter

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
)

// Reasons why a key or safe is retired.
const (
	ReasonRetired     = "retired"     // no longer needed
	ReasonCompromised = "compromised" // somebody else may have used it
	ReasonLost        = "lost"        // its token is gone or broken
	ReasonDestroyed   = "destroyed"   // destroyed in a ceremony
)

func reasons() []string {
	return []string{ReasonRetired, ReasonCompromised, ReasonLost, ReasonDestroyed}
}

// KeyRetired ends a key: nothing signed with it counts from now on.
type KeyRetired struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
	Record string `json:"record"` // origin of the ceremony's record
}

// Successor lets a dormant key take over the id of a retired one.
type Successor struct {
	ID        string `json:"id"`
	Record    string `json:"record"`
	Successor string `json:"successor"` // id of the dormant key
}

// Receiver names the key for which one ceremony wraps a key on its way to a safe,
// before anything is wrapped. Its private half lies in the safe's token and does
// nothing but unwrap, in that ceremony only.
type Receiver struct {
	Key    []byte `json:"key"` // DER SubjectPublicKeyInfo, RSA-3072
	Record string `json:"record"`
	Safe   string `json:"safe"`
}

// receiverBits is the length of a receiver's modulus, in bits.
const receiverBits = 3072

// Check validates the members.
func (r *Receiver) Check() error {
	pub, err := x509.ParsePKIXPublicKey(r.Key)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: receiver of safe %.40q: %w", ErrStatement, r.Safe, err)
	}
	k, ok := pub.(*rsa.PublicKey)
	if !ok || k.N.BitLen() != receiverBits || k.E != 65537 || r.Record == "" || !idRE.MatchString(r.Safe) {
		return fault.Errorf(fault.Verify, "%w: receiver of safe %.40q", ErrStatement, r.Safe)
	}
	return nil
}

// Floor carries the security version of a product over to a signer that begins anew:
// nothing below it is signed any more.
type Floor struct {
	Product         string `json:"product"`
	Record          string `json:"record"`           // origin of the ceremony's record
	SecurityVersion int64  `json:"security_version"` // 1 to MaxSecurityVersion
}

// MaxSecurityVersion bounds security versions: rollback counters of boot chains have
// 32 bits.
const MaxSecurityVersion = 1<<32 - 1

// raise takes a floor; it never sinks.
func (s *State) raise(f *Floor) error {
	if !idRE.MatchString(f.Product) || f.Record == "" || f.SecurityVersion < 1 || f.SecurityVersion > MaxSecurityVersion || f.SecurityVersion < s.Floors[f.Product].SecurityVersion {
		return fault.Errorf(fault.Verify, "%w: floor %d of product %.40q", ErrStatement, f.SecurityVersion, f.Product)
	}
	s.Floors[f.Product] = *f
	return nil
}

// addReceiver takes the receiver of a safe; each ceremony makes one of its own.
func (s *State) addReceiver(r *Receiver) error {
	if err := r.Check(); err != nil {
		return err
	}
	before, again := s.Receivers[r.Safe]
	if _, dealt := s.Epochs[r.Safe]; !dealt || again && (bytes.Equal(before.Key, r.Key) || before.Record == r.Record) {
		return fault.Errorf(fault.Verify, "%w: receiver of safe %.40q", ErrStatement, r.Safe)
	}
	s.Receivers[r.Safe] = *r
	return nil
}

// KeyMoved says that a key lives in the token of another safe now.
type KeyMoved struct {
	ID     string `json:"id"`
	Record string `json:"record"`
	Safe   string `json:"safe"` // where it is from now on
}

// SafeRetired ends a safe: its shares open nothing, its token is not ours.
type SafeRetired struct {
	Reason string `json:"reason"`
	Record string `json:"record"`
	Safe   string `json:"safe"`
}

// admit takes a new key. A dormant one names the key that it may succeed, of the
// same domain and algorithm.
func (s *State) admit(k *KeyAdmitted) error {
	if err := k.Check(); err != nil {
		return err
	}
	for _, have := range s.Keys {
		if bytes.Equal(have.Public, k.Public) {
			return fault.Errorf(fault.Verify, "%w: key %s is %s again", ErrStatement, k.ID, have.ID)
		}
	}
	if k.SuccessorOf != "" {
		of, ok := s.Keys[k.SuccessorOf]
		if !ok || of.SuccessorOf != "" || of.Domain != k.Domain || of.Algorithm != k.Algorithm {
			return fault.Errorf(fault.Verify, "%w: key %s cannot succeed %.40q", ErrStatement, k.ID, k.SuccessorOf)
		}
	}
	return put(s.Keys, k.ID, *k)
}

// retireKey ends a key. What is retired or lost may later turn out compromised,
// and what is retired may be destroyed; nothing comes back.
func (s *State) retireKey(r *KeyRetired) error {
	_, known := s.Keys[r.ID]
	before, again := s.Retired[r.ID]
	further := again && (r.Reason == ReasonCompromised || r.Reason == ReasonDestroyed && before.Reason != ReasonLost)
	if !known || !slices.Contains(reasons(), r.Reason) || r.Record == "" || again && (!further || before.Reason == r.Reason || before.Reason == ReasonDestroyed) {
		return fault.Errorf(fault.Verify, "%w: retiring key %.40q", ErrStatement, r.ID)
	}
	s.Retired[r.ID] = *r
	return nil
}

// succeed gives an id to its dormant key, after the one in force was retired.
func (s *State) succeed(x *Successor) error {
	next, ok := s.Keys[x.Successor]
	_, retired := s.Retired[s.active(x.ID)]
	_, ended := s.Retired[x.Successor]
	if !ok || next.SuccessorOf != x.ID || x.ID == "" || x.Record == "" || !retired || ended || s.active(x.ID) == x.Successor {
		return fault.Errorf(fault.Verify, "%w: %.40q does not succeed %.40q", ErrStatement, x.Successor, x.ID)
	}
	s.successor[x.ID] = x.Successor
	s.lines[x.ID] = append(s.lines[x.ID], x.Successor)
	return nil
}

// moveKey says that a key lives in another safe's token, to which the same
// ceremony has named a receiver.
func (s *State) moveKey(m *KeyMoved) error {
	k, ok := s.Keys[m.ID]
	_, retired := s.Retired[m.ID]
	e, dealt := s.Epochs[m.Safe]
	if !ok || retired || !dealt || m.Record == "" || k.Token == e.Token || s.Receivers[m.Safe].Record != m.Record {
		return fault.Errorf(fault.Verify, "%w: key %.40q cannot move to safe %.40q", ErrStatement, m.ID, m.Safe)
	}
	s.move(&k, e.Token)
	return nil
}

// move puts a key into another token.
func (s *State) move(k *anchor.KeyRecord, to anchor.Token) {
	s.left[k.ID] = append(s.left[k.ID], k.Token)
	k.Token = to
	s.Keys[k.ID] = *k
}

// retireSafe ends a safe whose keys are all retired. One safe must remain.
func (s *State) retireSafe(x *SafeRetired) error {
	_, ok := s.People.Safe(x.Safe)
	if !ok || len(s.People.Safes) == 1 || !slices.Contains(reasons(), x.Reason) || x.Record == "" {
		return fault.Errorf(fault.Verify, "%w: retiring safe %.40q", ErrStatement, x.Safe)
	}
	for id, k := range s.Keys {
		if _, retired := s.Retired[id]; !retired && k.Token == s.Epochs[x.Safe].Token {
			return fault.Errorf(fault.Verify, "%w: safe %s holds the key %s, which is in force", ErrStatement, x.Safe, id)
		}
	}
	s.People.Safes = slices.DeleteFunc(slices.Clone(s.People.Safes), func(y Safe) bool { return y.Name == x.Safe })
	s.gone = append(s.gone, x.Safe)
	delete(s.Epochs, x.Safe)
	return nil
}

// Dormant returns the keys that may still take over id, by id.
func (s *State) Dormant(id string) []anchor.KeyRecord {
	var out []anchor.KeyRecord
	for _, k := range s.Keys {
		if _, retired := s.Retired[k.ID]; k.SuccessorOf == id && !retired && s.active(id) != k.ID {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b anchor.KeyRecord) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// SafeOf returns the safe whose token holds a key.
func (s *State) SafeOf(k *anchor.KeyRecord) (string, bool) {
	for name, e := range s.Epochs {
		if e.Token == k.Token {
			return name, true
		}
	}
	return "", false
}

// Followed are the retired safes that a safe took over from, the last retired first: a
// key that was in force in the token of the one moved to the token of the other, or gave
// way to a key in it.
func (s *State) Followed(safe string) []string {
	e, dealt := s.Epochs[safe]
	if !dealt {
		return nil
	}
	var from []anchor.Token
	for id := range s.Keys {
		if s.Keys[s.active(id)].Token != e.Token {
			continue
		}
		line := append([]string{id}, s.lines[id]...)
		for i, k := range line {
			from = append(from, s.left[k]...)
			if i < len(line)-1 {
				from = append(from, s.Keys[k].Token)
			}
		}
	}
	var out []string
	for _, name := range slices.Backward(s.gone) {
		if d := s.dealt[name]; len(d) > 0 && slices.Contains(from, d[len(d)-1].Token) {
			out = append(out, name)
		}
	}
	return out
}

// active is the id of the key record that stands for id: its own, or that of the
// dormant key that took it over.
func (s *State) active(id string) string {
	if next, ok := s.successor[id]; ok {
		return next
	}
	return id
}

// Key returns the key in force under id, provided it signs in domain: the one
// admitted under that id, or the dormant one that took it over. A retired key,
// and a dormant one under its own id, are refused.
func (s *State) Key(id, domain string) (*anchor.KeyRecord, error) {
	k, ok := s.Keys[s.active(id)]
	if !ok {
		return nil, fault.Errorf(fault.Policy, "%w: key %.40q", ErrUnknown, id)
	}
	if r, retired := s.Retired[k.ID]; retired {
		return nil, fault.Errorf(fault.Policy, "%w: key %s is %s (%s)", ErrUnknown, id, r.Reason, r.Record)
	}
	if k.ID == id && k.SuccessorOf != "" {
		return nil, fault.Errorf(fault.Policy, "%w: key %s is dormant, it stands for %s once that is retired", ErrUnknown, id, k.SuccessorOf)
	}
	if k.Domain != domain {
		return nil, fault.Errorf(fault.Policy, "key %s signs %s, not %s", id, k.Domain, domain)
	}
	return &k, nil
}

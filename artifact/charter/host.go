package charter

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"slices"
	"strings"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
)

// TypeHost is a host on which the vault may run; it ends by TypeAccessEnded.
const TypeHost = "host"

// Host is a machine that may ask key masters for their shares. Its key signs these
// requests and nothing else; key masters' programs refuse any other.
type Host struct {
	ID  string `json:"id"`
	Key []byte `json:"key"` // DER SubjectPublicKeyInfo, P-256
}

// addHost takes a host. Its key is on P-256, which a TPM can hold, and is nobody
// else's: a signature says which machine asks.
func (s *State) addHost(h *Host) error {
	_, taken := s.Access.Hosts[h.ID]
	if err := s.Access.fresh(TypeHost, h.ID, taken); err != nil {
		return err
	}
	pub, err := x509.ParsePKIXPublicKey(h.Key)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: key of host %.40q: %w", ErrStatement, h.ID, err)
	}
	if k, ok := pub.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return badAccess(TypeHost, h.ID, "its key is not on P-256")
	}
	if s.Access.hostKeys[string(h.Key)] || s.known(h.Key) {
		return badAccess(TypeHost, h.ID, "its key is or was somebody else's")
	}
	s.Access.Hosts[h.ID] = *h
	s.Access.hostKeys[string(h.Key)] = true
	return nil
}

// known says whether the charter knows a key as somebody's who is no host.
func (s *State) known(spki []byte) bool {
	for _, k := range s.Keys {
		if bytes.Equal(k.Public, spki) {
			return true
		}
	}
	for _, p := range s.Pipelines {
		if bytes.Equal(p.Key, spki) {
			return true
		}
	}
	for _, x := range s.Stations {
		if bytes.Equal(x.ReportKey, spki) {
			return true
		}
	}
	for _, m := range s.People.Roster {
		if der, err := x509.MarshalPKIXPublicKey(m.Person.PublicKey()); err == nil && bytes.Equal(der, spki) {
			return true
		}
	}
	return false
}

// HostKeys are the keys of the hosts in force, by id, for envelope.Verify.
func (s *State) HostKeys() ([]envelope.Key, error) {
	var out []envelope.Key
	for _, h := range s.Access.Hosts {
		pub, err := x509.ParsePKIXPublicKey(h.Key)
		if err != nil {
			return nil, fault.Errorf(fault.Unexpected, "key of host %s: %w", h.ID, err)
		}
		out = append(out, envelope.Key{Name: h.ID, Public: pub})
	}
	slices.SortFunc(out, func(a, b envelope.Key) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

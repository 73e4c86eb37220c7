package charter

import (
	"bytes"
	"maps"
	"slices"

	"keyrite/artifact/attestation"
	"keyrite/artifact/fault"
)

// TypeVendorRoot is the statement that accepts attestations of a maker's devices;
// it ends by TypeAccessEnded. Without one, nothing is attested.
const TypeVendorRoot = "vendor-root"

// VendorRoot is the certificate of a maker of HSMs, or of one who vouches for
// attestation keys of TPMs.
type VendorRoot = attestation.Root

// addVendorRoot takes a root. A certificate stands under one id and for one kind.
func (s *State) addVendorRoot(r *VendorRoot) error {
	_, taken := s.VendorRoots[r.ID]
	if err := s.Access.fresh(TypeVendorRoot, r.ID, taken); err != nil {
		return err
	}
	if err := r.Check(); err != nil {
		return fault.Errorf(fault.Verify, "%w: vendor root %.40q: %w", ErrStatement, r.ID, err)
	}
	for _, o := range s.VendorRoots {
		if bytes.Equal(o.Certificate, r.Certificate) {
			return badAccess(TypeVendorRoot, r.ID, "its certificate is that of "+o.ID)
		}
	}
	s.VendorRoots[r.ID] = *r
	return nil
}

// AttestationRoots are the vendor roots in force, by id.
func (s *State) AttestationRoots() []attestation.Root {
	var out []attestation.Root
	for _, id := range slices.Sorted(maps.Keys(s.VendorRoots)) {
		out = append(out, s.VendorRoots[id])
	}
	return out
}

// CheckVendorRoots says whether a young charter can take all of these.
func CheckVendorRoots(list []VendorRoot) error {
	s := &State{Access: newAccess(), VendorRoots: map[string]VendorRoot{}}
	for i := range list {
		if err := s.addVendorRoot(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

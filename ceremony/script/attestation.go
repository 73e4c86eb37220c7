package script

import "slices"

// What must stand for the birth of a key.
const (
	// AttestationRequired: the HSM attests it, or the ceremony is void before the
	// first key.
	AttestationRequired = "required"
	// AttestationQuorum: where no HSM attests it, those who watched sign for it.
	AttestationQuorum = "quorum"
	// AttestationNone: nothing; the record says so. No word means the same.
	AttestationNone = "none"
)

func attestations() []string {
	return []string{AttestationRequired, AttestationQuorum, AttestationNone}
}

// lintAttestation wants a word of the language. No device attests that a key which
// may leave it stays.
func (s *Script) lintAttestation(k *Key, path string) error {
	where := "key " + k.ID
	if k.Attestation != "" && !slices.Contains(attestations(), k.Attestation) {
		err := s.bad(join(path, "attestation"), where, "attestation %.40q is none of required, quorum and none", k.Attestation)
		err.Hint = meant(k.Attestation, attestations())
		return err
	}
	if k.Movable && k.Attestation == AttestationRequired {
		return s.bad(join(path, "attestation"), where, "a movable key may leave its token, and no HSM attests otherwise: quorum or none")
	}
	return nil
}

// Watched says whether some key's birth is signed for by those who watched it.
func (s *Script) Watched() bool {
	return slices.ContainsFunc(s.Keys, func(k Key) bool { return k.Attestation == AttestationQuorum })
}

// lintWatched wants the step in which they sign where there is something to sign,
// and nowhere else.
func (s *Script) lintWatched() *Error {
	switch signs := s.uses("births.sign"); {
	case s.Watched() && !signs:
		i := slices.IndexFunc(s.Keys, func(k Key) bool { return k.Attestation == AttestationQuorum })
		return s.bad("keys."+itoa(i), "key "+s.Keys[i].ID, "no step has those who watched its birth sign for it: births.sign")
	case signs && !s.Watched():
		return s.bad("keys", "keys", "births.sign has nothing to sign: no key has attestation: quorum")
	}
	return nil
}

// explainAttestation says what will stand for the birth of a key.
func explainAttestation(k *Key) string {
	switch k.Attestation {
	case AttestationRequired:
		return "; its HSM must attest that it was born there"
	case AttestationQuorum:
		return "; where no HSM attests its birth, those who watched sign for it"
	}
	return "; that it was born in the token rests on this computer alone"
}

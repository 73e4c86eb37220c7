package charter

import (
	"slices"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// Proposable are the types of statement that approvers may append outside a
// ceremony. All others follow from something that a ceremony did, and its record
// is their proof.
func Proposable() []string {
	return []string{
		TypeAccessEnded,
		TypeAuditLog,
		TypeAuditSink,
		TypeBreakGlass,
		TypeBreakGlassEnded,
		TypeBreakGlassPulled,
		TypeCertificateRevoked,
		TypeDelegation,
		TypeFactory,
		TypeHost,
		TypeIdentity,
		TypeKVConfig,
		TypeMount,
		TypePasswordPolicy,
		TypePKIRole,
		TypePipeline,
		TypePolicy,
		TypeRelay,
		TypeReleaseApproved,
		TypeReminder,
		TypeStation,
		TypeTokenRole,
		TypeTransitKey,
		TypeUnattended,
		TypeVendorRoot,
	}
}

// Consider says what the payload of a proposed statement would decide and who decides
// on it, without any signature: that it continues this log, is of a proposable type,
// and holds. It changes the state as the statement would, so the state must not be
// used for anything else afterwards.
func (s *State) Consider(payload []byte) (*Statement, Set, error) {
	var st Statement
	if err := jcs.Unmarshal(payload, &st); err != nil {
		return nil, Set{}, err
	}
	if s.Size() == 0 || !slices.Contains(Proposable(), st.Type) {
		return nil, Set{}, fault.Hint(fault.Errorf(fault.Policy, "a statement of type %.40q is not made by proposal", st.Type),
			"people, keys, epochs and what follows from them are decided in a ceremony: see 'keyrite ceremony new'")
	}
	if _, err := s.checkPlace(&st); err != nil {
		return nil, Set{}, err
	}
	set, err := s.Deciding(&st)
	if err != nil {
		return nil, Set{}, err
	}
	return &st, set, deciders()[st.Type](s, &st)
}

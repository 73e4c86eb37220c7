package charterstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// bodies read the body of each type that is made by proposal.
func bodies() map[string]func([]byte) (any, error) {
	return map[string]func([]byte) (any, error){
		charter.TypeAccessEnded:        strict[charter.AccessEnded],
		charter.TypeAuditLog:           strict[charter.AuditLog],
		charter.TypeAuditSink:          strict[charter.AuditSink],
		charter.TypeReminder:           strict[charter.Reminder],
		charter.TypeBreakGlass:         strict[charter.BreakGlass],
		charter.TypeBreakGlassEnded:    strict[charter.BreakGlassEnded],
		charter.TypeBreakGlassPulled:   strict[charter.BreakGlassPulled],
		charter.TypeCertificateRevoked: strict[charter.CertificateRevoked],
		charter.TypeDelegation:         strict[charter.Delegation],
		charter.TypeFactory:            strict[charter.Factory],
		charter.TypeHost:               strict[charter.Host],
		charter.TypeIdentity:           strict[charter.Identity],
		charter.TypeKVConfig:           strict[charter.KVConfig],
		charter.TypeMount:              strict[charter.Mount],
		charter.TypePasswordPolicy:     strict[charter.PasswordPolicy],
		charter.TypePKIRole:            strict[charter.PKIRole],
		charter.TypePipeline:           strict[charter.Pipeline],
		charter.TypePolicy:             strict[charter.Policy],
		charter.TypeRelay:              strict[charter.Relay],
		charter.TypeReleaseApproved:    strict[charter.ReleaseApproved],
		charter.TypeStation:            strict[charter.Station],
		charter.TypeTokenRole:          strict[charter.TokenRole],
		charter.TypeTransitKey:         strict[charter.TransitKey],
		charter.TypeUnattended:         strict[charter.Unattended],
		charter.TypeVendorRoot:         strict[charter.VendorRoot],
	}
}

// Body reads the body of a statement of a type as a person or a program wrote it, in
// whatever layout; unknown members are refused. What New proposes is its canonical
// form, which is shown. A type that is not made by proposal is of class policy.
func Body(typ string, data []byte) (any, error) {
	read, ok := bodies()[typ]
	if !ok {
		return nil, fault.Hint(fault.Errorf(fault.Policy, "a statement of type %.40q is not made by proposal", typ),
			"people, keys, epochs and what follows from them are decided in a ceremony: see 'keyrite ceremony new'")
	}
	return read(data)
}

func strict[T any](data []byte) (any, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return nil, fault.Errorf(fault.Usage, "the body: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Usage, "the body has something after its one value")
	}
	return v, nil
}

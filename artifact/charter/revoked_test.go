package charter_test

import (
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// A certificate is revoked by its hash, once, of a process that is known by one.
func TestCertificatesAreRevoked(t *testing.T) {
	v := withAccess(t)
	v.decide(charter.TypeIdentity, charter.Identity{ID: "scada", Policies: []string{"reader"}, TTL: 60, Certificate: &charter.Certificate{CA: v.SelfSigned("relay-ca"), URI: "spiffe://example.com/scada"}})
	sum := strings.Repeat("0a", 32)
	for name, r := range map[string]charter.CertificateRevoked{
		"of nobody":         {Identity: "nobody", SHA256: sum},
		"of no one":         {SHA256: sum},
		"of a Unix user":    {Identity: "mes", SHA256: sum},
		"without hash":      {Identity: "scada"},
		"a short hash":      {Identity: "scada", SHA256: sum[2:]},
		"a hash in capital": {Identity: "scada", SHA256: strings.ToUpper(sum)},
	} {
		if err := v.propose(charter.TypeCertificateRevoked, r); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := v.refold(); s.Access.IsRevoked(sum) || s.Access.IsRevoked("") {
		t.Error("revoked before anybody did")
	}
	v.decide(charter.TypeCertificateRevoked, charter.CertificateRevoked{Identity: "scada", SHA256: sum})
	if s := v.refold(); !s.Access.IsRevoked(sum) || s.Access.IsRevoked("") {
		t.Error("it is not revoked, or another is")
	}
	if err := v.propose(charter.TypeCertificateRevoked, charter.CertificateRevoked{Identity: "scada", SHA256: sum}); err == nil {
		t.Error("twice")
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "scada", Type: charter.TypeIdentity})
	if !v.refold().Access.IsRevoked(sum) {
		t.Error("its identity's end brings it back")
	}
}

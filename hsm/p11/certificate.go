package p11

import (
	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
)

// certificates reads the certificate objects that the session sees. Modules offer
// attestations that way: some make one for each key as the session begins, others
// keep what their maker's tool put there. It reads the value of nothing else.
func (s *session) certificates() (*frame.Certificates, error) {
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	out := &frame.Certificates{Certificates: [][]byte{}}
	for _, o := range all {
		class, err := s.read(o, []string{"CKA_CLASS"})
		if err != nil {
			return nil, err
		}
		if class[0].Value != "CKO_CERTIFICATE" {
			continue
		}
		if len(out.Certificates) == frame.MaxCertificates {
			return nil, faultf("certificates", frame.KindRefused, "the token has more than %d certificates", frame.MaxCertificates)
		}
		got, err := s.attributes(o, pkcs11.CKA_VALUE)
		if err != nil {
			return nil, asFault("certificates", "C_GetAttributeValue", err)
		}
		if n := len(got[0].Value); n == 0 || n > frame.MaxCertificateBytes {
			continue // an empty place, or nothing that an attestation is made of
		}
		out.Certificates = append(out.Certificates, got[0].Value)
	}
	return out, nil
}

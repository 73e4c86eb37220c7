package charter

import "keyrite/artifact/fault"

// TypeCertificateRevoked is a client certificate that counts no more, while its process
// goes on with another.
const TypeCertificateRevoked = "certificate-revoked"

// CertificateRevoked ends one certificate of an identity, for ever.
type CertificateRevoked struct {
	Identity string `json:"identity"` // one that is known by certificate
	SHA256   string `json:"sha256"`   // of the certificate (DER), hex
}

// IsRevoked says whether a client certificate was ended: by the hex SHA-256 of its DER.
func (a *Access) IsRevoked(sha256 string) bool { return a.revoked[sha256] }

func (s *State) revokeCertificate(r *CertificateRevoked) error {
	x, ok := s.Access.Identities[r.Identity]
	if !ok || x.Certificate == nil {
		return fault.Errorf(fault.Verify, "%w: certificate of %.40q, which is not known by one", ErrStatement, r.Identity)
	}
	if !hexRE.MatchString(r.SHA256) || s.Access.revoked[r.SHA256] {
		return fault.Errorf(fault.Verify, "%w: certificate %.70q is no SHA-256 in hex, or was revoked before", ErrStatement, r.SHA256)
	}
	s.Access.revoked[r.SHA256] = true
	return nil
}

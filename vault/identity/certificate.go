package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"keyrite/artifact/charter"
	"keyrite/vault/engine"
)

// maxProven bounds how many certificates are remembered as judged.
const maxProven = 4096

// provenPeer is a certificate that was judged, so that a connection with many
// requests pays for it once.
type provenPeer struct {
	identity string
	until    time.Time
}

// thumbprint is the hash of a certificate.
func thumbprint(c *x509.Certificate) hash { return sha256.Sum256(c.Raw) }

// loginCertificate takes the client certificate of the connection. "name", which some
// clients send, must be the identity.
func (r *Registry) loginCertificate(state *charter.State, p engine.Params, peer *Peer) (*proof, error) {
	if err := p.Only("name"); err != nil {
		return nil, err
	}
	if len(peer.Certificates) == 0 {
		return nil, refuse("no client certificate was shown")
	}
	x, until, err := r.certified(state, peer)
	if err != nil {
		return nil, err
	}
	if err := called(p, "name", x); err != nil {
		return nil, err
	}
	return &proof{means: MeansCertificate, identity: *x, until: until}, nil
}

// certified is the identity that the client certificate proves, and until when. Only
// the leaf is looked at: the one issuer is in the charter.
func (r *Registry) certified(state *charter.State, peer *Peer) (*charter.Identity, time.Time, error) {
	now := r.clock().Round(0) // the clock on the wall
	leaf := peer.Certificates[0]
	thumb := thumbprint(leaf)
	if x, until, ok := r.remembered(state, thumb, now); ok {
		return x, until, nil
	}
	x, err := findCertificate(state, leaf)
	if err != nil {
		return nil, time.Time{}, err
	}
	until, err := judge(x.Certificate, leaf, now)
	if err == nil && state.Access.IsRevoked(hex.EncodeToString(thumb[:])) {
		err = refuse("it was revoked").cause
	}
	if err != nil {
		return nil, time.Time{}, refuse("client certificate for %s: %w", x.ID, err).about(x.ID, "")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.provenAt == state.Size() && len(r.proven) < maxProven {
		r.proven[thumb] = provenPeer{x.ID, until}
	}
	return x, until, nil
}

// remembered is a certificate that was judged under this charter and still holds.
func (r *Registry) remembered(state *charter.State, thumb hash, now time.Time) (*charter.Identity, time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.provenAt != state.Size() || len(r.proven) == maxProven {
		clear(r.proven)
		r.provenAt = state.Size()
	}
	p, ok := r.proven[thumb]
	if !ok || now.After(p.until) {
		return nil, time.Time{}, false
	}
	x, ok := state.Access.Identities[p.identity]
	return &x, p.until, ok
}

// findCertificate is the identity whose URI the certificate has. Nothing else in it is
// looked at, the common name least of all.
func findCertificate(state *charter.State, leaf *x509.Certificate) (*charter.Identity, error) {
	uri, err := onlyURI(leaf)
	if err != nil {
		return nil, err
	}
	for _, x := range state.Access.Identities {
		if x.Certificate != nil && x.Certificate.URI == uri {
			return &x, nil
		}
	}
	return nil, refuse("client certificate for %.200q, which is no identity", uri)
}

// oidSubjectAltName: RFC 5280, section 4.2.1.6.
func oidSubjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// tagURI is [6] IMPLICIT IA5String, a URI among the GeneralNames: RFC 5280, section
// 4.2.1.6.
const tagURI = cryptoasn1.Tag(6 | 0x80)

// onlyURI is the one URI among the alternative names, as its bytes stand there: what a
// URL parser makes of it might be equal where they are not.
func onlyURI(leaf *x509.Certificate) (string, error) {
	var uris []string
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(oidSubjectAltName()) {
			continue
		}
		der := cryptobyte.String(e.Value)
		var names cryptobyte.String
		if !der.ReadASN1(&names, cryptoasn1.SEQUENCE) || !der.Empty() {
			return "", refuse("client certificate with alternative names that cannot be read")
		}
		for !names.Empty() {
			var v cryptobyte.String
			var tag cryptoasn1.Tag
			if !names.ReadAnyASN1(&v, &tag) {
				return "", refuse("client certificate with alternative names that cannot be read")
			}
			if tag == tagURI {
				uris = append(uris, string(v))
			}
		}
	}
	if len(uris) != 1 {
		return "", refuse("client certificate with %d URIs among its alternative names, not one; subject %.120q", len(uris), leaf.Subject.String())
	}
	return uris[0], nil
}

// judge checks the certificate of an identity: issued by exactly the CA of the
// charter, for clients, now, and for signing with a key that is not weak. It returns
// until when that holds.
func judge(want *charter.Certificate, leaf *x509.Certificate, now time.Time) (time.Time, error) {
	if now.IsZero() { // which the verifier would take for now
		return time.Time{}, refuse("there is no time").cause
	}
	ca, err := x509.ParseCertificate(want.CA)
	if err != nil {
		return time.Time{}, refuse("its CA in the charter: %w", err)
	}
	if err := checkLeaf(ca, leaf); err != nil {
		return time.Time{}, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return time.Time{}, refusedBy(err)
	}
	if len(chains) != 1 || len(chains[0]) != 2 || !chains[0][1].Equal(ca) {
		return time.Time{}, refuse("it does not follow from its CA in one step").cause
	}
	if ca.NotAfter.Before(leaf.NotAfter) {
		return ca.NotAfter, nil
	}
	return leaf.NotAfter, nil
}

// refusedBy is what the verifier says, cut: it may quote what the peer wrote.
func refusedBy(err error) error { return refuse("%.300q", err.Error()).cause }

// checkLeaf checks what the general verifier lets pass: no purpose at all, any
// purpose, a CA as a client, keys that do not sign, weak keys.
func checkLeaf(ca, leaf *x509.Certificate) error {
	switch {
	case !bytes.Equal(leaf.RawIssuer, ca.RawSubject):
		return refuse("its issuer is %.120q", leaf.Issuer.String()).cause
	case len(ca.SubjectKeyId) > 0 && len(leaf.AuthorityKeyId) > 0 && !bytes.Equal(leaf.AuthorityKeyId, ca.SubjectKeyId):
		return refuse("it names another key of its issuer").cause
	case leaf.IsCA || leaf.Version != 3:
		return refuse("it is one of a CA, or not of version 3").cause
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return refuse("it is not for clients (extended key usage clientAuth)").cause
	case slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return refuse("it is for any purpose").cause
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refuse("its key is not for signatures (key usage digitalSignature)").cause
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return refuse("its key is for certificates or lists").cause
	}
	return checkStrength(leaf)
}

func checkStrength(leaf *x509.Certificate) error {
	switch k := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize >= 256 {
			return nil
		}
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return refuse("its key is weak, or of a kind not used here").cause
}

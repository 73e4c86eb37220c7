package secureelement

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
	"keyrite/internal/tpm"
)

// CreateKey makes the device key inside the element and returns its signer. It
// happens once in a device's life: with a key present it is ErrKeyExists.
func (e *Element) CreateKey() (crypto.Signer, error) {
	defer e.enter()()
	if _, err := e.key(); !errors.Is(err, ErrUnborn) {
		if err == nil {
			err = ErrKeyExists
		}
		return nil, err
	}
	if locked, err := e.locked(); err != nil || locked {
		return nil, errors.Join(err, ErrLocked)
	}
	if err := e.makeKey(); err != nil {
		return nil, err
	}
	return e.key()
}

// makeKey has the storage root and the new key loaded at once, two transient
// objects of the three that every TPM has room for.
func (e *Element) makeKey() (err error) {
	root, err := tpm2.CreatePrimary{PrimaryHandle: ownerAuth(), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(e.t)
	if err != nil {
		return wrap("make the storage root", err)
	}
	defer func() { err = errors.Join(err, e.flush(root.ObjectHandle)) }()
	parent := tpm2.NamedHandle{Handle: root.ObjectHandle, Name: root.Name}
	made, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(tpm.SigningKey())}.Execute(e.t)
	if err != nil {
		return wrap("make the device key", err)
	}
	loaded, err := tpm2.Load{ParentHandle: parent, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(e.t)
	if err != nil {
		return wrap("load the device key", err)
	}
	defer func() { err = errors.Join(err, e.flush(loaded.ObjectHandle)) }()
	_, err = tpm2.EvictControl{
		Auth: ownerAuth(), ObjectHandle: &tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, PersistentHandle: deviceKey,
	}.Execute(e.t)
	return wrap("keep the device key", err)
}

func (e *Element) flush(h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(e.t)
	return wrap("flush an object", err)
}

// Key returns the signer of the device key. It signs SHA-256 digests only.
func (e *Element) Key() (crypto.Signer, error) {
	defer e.enter()()
	return e.key()
}

func (e *Element) key() (crypto.Signer, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: deviceKey}.Execute(e.t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, fault.Errorf(fault.Token, "device key: %w", ErrUnborn)
	}
	if err != nil {
		return nil, wrap("read the device key's public area", err)
	}
	pub, err := r.OutPublic.Contents()
	if err != nil {
		return nil, fault.Errorf(fault.Token, "read the device key's public area: %w", err)
	}
	if want := tpm.SigningKey(); pub.Type != want.Type || pub.ObjectAttributes != want.ObjectAttributes {
		return nil, fault.Errorf(fault.Verify, "device key: %w", ErrContent)
	}
	k, err := tpm2.Pub(*pub)
	if err != nil {
		return nil, fault.Errorf(fault.Token, "device key: %w", err)
	}
	ec, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, fault.Errorf(fault.Verify, "device key: %w", ErrContent)
	}
	return &signer{e: e, name: r.Name, pub: ec}, nil
}

type signer struct {
	e    *Element
	name tpm2.TPM2BName
	pub  *ecdsa.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.pub }

// Sign signs a SHA-256 digest. The signature is checked before it is given out:
// a disturbed TPM must not leak a faulty one.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fault.New(fault.Unexpected, "the device key signs SHA-256 digests only")
	}
	defer s.e.enter()()
	cmd := tpm.Signing(digest)
	cmd.KeyHandle = tpm2.NamedHandle{Handle: deviceKey, Name: s.name}
	r, err := cmd.Execute(s.e.t)
	if err != nil {
		return nil, wrap("sign with the device key", err)
	}
	der, err := tpm.Signature(r, s.pub, digest)
	return der, wrap("sign with the device key", err)
}

// TLSCertificate returns the birth certificate with its key for use in TLS 1.3,
// the one signature scheme that the key can do announced.
func (e *Element) TLSCertificate() (tls.Certificate, error) {
	chain, err := e.Certificate()
	if err != nil {
		return tls.Certificate{}, err
	}
	k, err := e.Key()
	if err != nil {
		return tls.Certificate{}, err
	}
	c := tls.Certificate{PrivateKey: k, Leaf: chain[0], SupportedSignatureAlgorithms: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
	for _, x := range chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c, nil
}

// checkLeaf says whether cert is for the device key.
func checkLeaf(cert *x509.Certificate, k crypto.Signer) error {
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(k.Public()) {
		return fault.New(fault.Verify, "the birth certificate is not of the key in this secure element")
	}
	return nil
}

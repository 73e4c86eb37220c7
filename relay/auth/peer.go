// Package auth finds out who is at the other end: a device by its birth
// certificate, a user by client key, password and login token.
//
// relay/access uses all of it, cmd/keyrite-relay gives Devices.Check to the VPN
// role too. It says who somebody is and never what he may. It must never take
// an identity from anything a peer says beside its verified key: not a name in
// a certificate of its own, not a header.
package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

var (
	// ErrPeer says that a certificate names nobody we know.
	ErrPeer = fault.New(fault.Peer, "the certificate is not a birth certificate of this world")
	// ErrClientKey says that a certificate is not that of a client key.
	ErrClientKey = fault.New(fault.Peer, "the certificate is not a self-signed certificate of a P-256 or Ed25519 client key")
)

// Devices verifies birth certificates against the birth roots of the anchors and
// the factories of the charter.
type Devices struct {
	world     world.World
	factories []factory
}

type factory struct {
	ca    *x509.Certificate
	root  *x509.Certificate // that certified it, also a former one: the charter names this very CA
	grant birthcert.Grant
}

// NewDevices checks roots and every factory CA once.
func NewDevices(a *anchor.Anchors, factories map[string]charter.Factory) (*Devices, error) {
	d := &Devices{world: a.World}
	for _, f := range factories {
		ca, err := birthcert.Parse(f.CA)
		if err != nil {
			return nil, err
		}
		root, err := a.Issuer("birth-root", ca)
		if err != nil {
			return nil, err
		}
		if err := birthcert.CheckRoot(root, a.World); err != nil {
			return nil, err
		}
		g := birthcert.Grant{Factory: f.ID, Product: f.Product, SerialFrom: f.SerialFrom, SerialTo: f.SerialTo}
		if err := birthcert.CheckFactoryCA(ca, root, g); err != nil {
			return nil, err
		}
		d.factories = append(d.factories, factory{ca, root, g})
	}
	return d, nil
}

// Verify returns whose birth certificate c is; every refusal is class peer.
func (d *Devices) Verify(c *x509.Certificate) (*birthcert.Identity, error) {
	var last error
	for _, f := range d.factories {
		if !bytes.Equal(c.RawIssuer, f.ca.RawSubject) {
			continue
		}
		id, err := birthcert.VerifyDevice(c, f.ca, f.root, f.grant)
		if err == nil && id.World == d.world {
			return id, nil
		}
		last = err
	}
	if last == nil {
		last = birthcert.ErrSignature
	}
	return nil, fault.Errorf(fault.Peer, "%w: %w", ErrPeer, last)
}

// selfSigned says whether c claims to be its own issuer, as client keys'
// certificates do and birth certificates never.
func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// Check is for tls.Config.VerifyConnection, which runs on resumed sessions too:
// a certificate must be that of a client key or a birth certificate.
func (d *Devices) Check(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return ErrPeer
	}
	c := cs.PeerCertificates[0]
	if selfSigned(c) {
		_, err := ClientKey(&cs)
		return err
	}
	_, err := d.Verify(c)
	return err
}

// Device returns the device at the other end of a connection.
func (d *Devices) Device(cs *tls.ConnectionState) (*birthcert.Identity, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return nil, ErrPeer
	}
	return d.Verify(cs.PeerCertificates[0])
}

// ClientKey returns the thumbprint of the client key at the other end. Nothing
// else in its certificate is read.
func ClientKey(cs *tls.ConnectionState) (string, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return "", ErrClientKey
	}
	c := cs.PeerCertificates[0]
	if !selfSigned(c) {
		return "", ErrClientKey
	}
	if err := envelope.CheckKey(c.PublicKey); err != nil {
		return "", fault.Errorf(fault.Peer, "%w: %w", ErrClientKey, err)
	}
	return Thumbprint(c), nil
}

// Thumbprint is the lower-case hex SHA-256 of a certificate's public key.
func Thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

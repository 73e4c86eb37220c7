package secureelement

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"regexp"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// BirthFormat names the birth record in the element.
const BirthFormat = "keyrite/element/v1"

// MaxChainBytes bounds the birth certificate and its chain, concatenated DER:
// MAX_NV_INDEX_SIZE of common TPMs is 2048.
const MaxChainBytes = 2048

var hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Birth is what a station writes into a new element besides the certificate.
type Birth struct {
	Anchors     string      // hex SHA-256 of the anchors file; the gateway takes no other
	FirmwareKey []byte      // DER SubjectPublicKeyInfo, P-256
	Vault       string      // vault id
	World       world.World // the only world whose files the gateway takes
}

type birthRecord struct {
	Anchors      string `json:"anchors"`
	Format       string `json:"format"`
	PolicyBase   int64  `json:"policy_base"`   // value of the policy counter that means version 0
	SecurityBase int64  `json:"security_base"` // same for the security version
	// SuccessionBase is the same for successions; 0 in elements born before there were any.
	SuccessionBase int64       `json:"succession_base,omitempty"`
	Vault          string      `json:"vault"`
	World          world.World `json:"world"`
}

func (b *Birth) check() error {
	if !hexRE.MatchString(b.Anchors) || !hexRE.MatchString(b.Vault) {
		return fault.New(fault.Usage, "birth: anchors hash and vault id are 64 hex digits")
	}
	if _, err := parseFirmwareKey(b.FirmwareKey); err != nil {
		return err
	}
	return b.World.Check()
}

func parseFirmwareKey(der []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "firmware key: %w", err)
	}
	ec, ok := k.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fault.New(fault.Verify, "firmware key: not a P-256 key")
	}
	return ec, nil
}

// Provision lays the element out: firmware key, counters, time floor, slots for
// the account's policy key, birth record. It can be repeated with the same
// values after a birth that was cut short; other values are refused.
func (e *Element) Provision(b Birth) error {
	if err := b.check(); err != nil {
		return err
	}
	defer e.enter()()
	if locked, err := e.locked(); err != nil || locked {
		return errors.Join(err, ErrLocked)
	}
	if err := e.untouched(); err != nil {
		return err
	}
	if _, err := e.key(); err != nil {
		return err
	}
	if err := e.writeLocked(nvFirmwareKey, b.FirmwareKey); err != nil {
		return err
	}
	rec := birthRecord{Anchors: b.Anchors, Format: BirthFormat, Vault: b.Vault, World: b.World}
	var err error
	if rec.SecurityBase, err = e.newCounter(nvSecurity); err != nil {
		return err
	}
	if rec.PolicyBase, err = e.newCounter(nvPolicy); err != nil {
		return err
	}
	if rec.SuccessionBase, err = e.newCounter(nvSuccession); err != nil {
		return err
	}
	if err := e.define(timeFloorIndex()); err != nil {
		return err
	}
	for i := range AccountSlots {
		pub, err := slotPublic(i)
		if err != nil {
			return err
		}
		if err := e.define(*pub); err != nil {
			return err
		}
	}
	data, err := jcs.Marshal(rec)
	if err != nil {
		return err
	}
	return e.writeLocked(nvBirth, data)
}

// untouched refuses an element whose lockout authorisation somebody else holds:
// he could clear it at any time. Lock sets that authorisation too, and a birth
// may be cut short after it, but never before the birth record is there.
func (e *Element) untouched() error {
	p, err := e.permanent()
	if err != nil || p&lockoutAuthSet == 0 {
		return err
	}
	_, err = e.readLocked(nvBirth)
	if errors.Is(err, ErrUnborn) {
		return ErrForeign
	}
	return err
}

// StoreCertificate keeps the birth certificate, first, and the certificates
// that lead from it to the birth root, without the root. It is written once.
func (e *Element) StoreCertificate(chain ...[]byte) error {
	all := bytes.Join(chain, nil)
	certs, err := x509.ParseCertificates(all)
	if err != nil || len(certs) != len(chain) || len(certs) == 0 {
		return fault.Errorf(fault.Verify, "birth certificate: not a certificate chain in DER: %w", err)
	}
	if len(all) > MaxChainBytes {
		return fault.Errorf(fault.Usage, "birth certificate and chain are %d bytes; the element holds %d", len(all), MaxChainBytes)
	}
	defer e.enter()()
	k, err := e.key()
	if err != nil {
		return err
	}
	if err := checkLeaf(certs[0], k); err != nil {
		return err
	}
	return e.writeLocked(nvCertificate, all)
}

// Certificate returns the birth certificate and its chain, having checked that
// it is for the device key. It does not check the chain: whoever is shown the
// certificate does that, against the anchors.
func (e *Element) Certificate() ([]*x509.Certificate, error) {
	defer e.enter()()
	return e.certificate()
}

func (e *Element) certificate() ([]*x509.Certificate, error) {
	der, err := e.readLocked(nvCertificate)
	if err != nil {
		return nil, err
	}
	certs, err := x509.ParseCertificates(der)
	if err != nil || len(certs) == 0 {
		return nil, fault.Errorf(fault.Verify, "birth certificate: %w", ErrContent)
	}
	k, err := e.key()
	if err != nil {
		return nil, err
	}
	return certs, checkLeaf(certs[0], k)
}

// Lock ends the birth: it checks that everything is in place and locked, then
// gives lockout, platform and owner random authorisations that nobody keeps, and
// takes away policies by which somebody who had the element earlier could use
// them without. On a locked element it does nothing.
func (e *Element) Lock() error {
	defer e.enter()()
	p, err := e.permanent()
	if err != nil || p&ownerAuthSet != 0 {
		return err
	}
	if _, err := e.certificate(); err != nil {
		return err
	}
	if _, _, err := e.birth(); err != nil {
		return err
	}
	if err := e.noPolicy(tpm2.TPMRHOwner); err != nil {
		return err
	}
	if p&lockoutAuthSet == 0 {
		if err := e.closeHierarchy(tpm2.TPMRHLockout); err != nil {
			return err
		}
	}
	if err := e.closePlatform(); err != nil {
		return err
	}
	// The owner comes last: its authorisation being set is what "locked" means.
	if err := e.setAuth(tpm2.TPMRHOwner); err != nil {
		return err
	}
	if locked, err := e.locked(); err != nil || !locked {
		return errors.Join(err, fault.New(fault.Token, "the element says that the owner hierarchy is still open"))
	}
	return nil
}

// Birth returns what was written at birth. On an element that is not locked it
// is ErrUnborn, for whoever holds the box could still write it anew.
func (e *Element) Birth() (*Birth, error) {
	defer e.enter()()
	b, _, err := e.lockedBirth()
	return b, err
}

func (e *Element) lockedBirth() (*Birth, *birthRecord, error) {
	locked, err := e.locked()
	if err != nil {
		return nil, nil, err
	}
	if !locked {
		return nil, nil, fault.Errorf(fault.Token, "%w: it is not locked", ErrUnborn)
	}
	return e.birth()
}

func (e *Element) birth() (*Birth, *birthRecord, error) {
	data, err := e.readLocked(nvBirth)
	if err != nil {
		return nil, nil, err
	}
	var rec birthRecord
	if err := jcs.Unmarshal(data, &rec); err != nil || rec.Format != BirthFormat {
		return nil, nil, fault.Errorf(fault.Verify, "birth record: %w", ErrContent)
	}
	spki, err := e.readLocked(nvFirmwareKey)
	if err != nil {
		return nil, nil, err
	}
	b := &Birth{Anchors: rec.Anchors, FirmwareKey: spki, Vault: rec.Vault, World: rec.World}
	if err := b.check(); err != nil {
		return nil, nil, fault.Errorf(fault.Verify, "birth record: %w", err)
	}
	return b, &rec, nil
}

// FirmwareKey returns the key that releases are signed with.
func (e *Element) FirmwareKey() (*ecdsa.PublicKey, error) {
	b, err := e.Birth()
	if err != nil {
		return nil, err
	}
	return parseFirmwareKey(b.FirmwareKey)
}

package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// How long a list holds, and when a new one is made although nothing was revoked.
const (
	crlValidity = 72 * time.Hour
	crlRenewal  = 24 * time.Hour
)

// keptCRL is the newest list as the store has it.
type keptCRL struct {
	From       string `json:"from"` // thisUpdate, RFC 3339, UTC
	Generation int64  `json:"generation"`
	List       []byte `json:"list"` // DER
	Number     int64  `json:"number"`
}

// crl is a request for the list.
type crl struct {
	e       *Engine
	now     time.Time
	asPEM   bool
	der     []byte
	number  int64
	gen     int64
	entries int
}

// kept is the newest list; the zero one if there is none.
func (e *Engine) kept(s lister) (keptCRL, error) {
	var k keptCRL
	raw, err := s.Get(e.lists(), "list")
	if errors.Is(err, seal.ErrNotFound) {
		return k, nil
	}
	if err != nil {
		return k, err
	}
	return k, jcs.Unmarshal(raw, &k)
}

// fresh says whether a kept list may be given out: nothing was revoked since, and it is
// not old.
func (k *keptCRL) fresh(generation int64, now time.Time) bool {
	from, err := charter.ParseTime(k.From)
	return err == nil && len(k.List) > 0 && k.Generation == generation && !now.Before(from) && now.Before(from.Add(crlRenewal))
}

// planCRL gives the list of what was revoked. Where the newest one is out of date the
// CA signs another.
func (e *Engine) planCRL(r *engine.Request, asPEM bool) (*engine.Plan, error) {
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	x := &crl{e: e, now: r.Now.UTC().Truncate(time.Second), asPEM: asPEM}
	plan := &engine.Plan{Needs: access.Read, Apply: x.apply}
	fresh := false
	err := e.host.View(func(v *seal.View) error {
		k, err := e.kept(v)
		if err != nil {
			return err
		}
		g, err := e.generation(v)
		fresh = err == nil && k.fresh(g, x.now)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !fresh {
		plan.Intent, plan.Work, plan.Shown = true, x.work, map[string]any{"sign": "list"}
	}
	return plan, nil
}

// work has the CA sign the list of now.
func (x *crl) work(ctx context.Context) error {
	var all []revocation
	err := x.e.host.View(func(v *seal.View) error {
		k, err := x.e.kept(v)
		if err != nil {
			return err
		}
		x.number = k.Number + 1
		if x.gen, err = x.e.generation(v); err != nil {
			return err
		}
		all, err = x.e.revocations(v, x.now)
		return err
	})
	if err != nil {
		return err
	}
	signer, issuer, err := x.e.signer(ctx)
	if err != nil {
		return err
	}
	x.entries = len(all)
	x.der, err = x.e.signList(&listToSign{x.number, x.now, all, issuer}, signer)
	return err
}

// listToSign is what a list will say.
type listToSign struct {
	number int64
	from   time.Time
	all    []revocation
	issuer *x509.Certificate
}

func (l *listToSign) template() (*x509.RevocationList, error) {
	t := &x509.RevocationList{Number: big.NewInt(l.number), ThisUpdate: l.from, NextUpdate: l.from.Add(crlValidity)}
	slices.SortFunc(l.all, func(a, b revocation) int { return strings.Compare(a.serial, b.serial) })
	for _, v := range l.all {
		n, err := hex.DecodeString(v.serial)
		if err != nil {
			return nil, fault.Errorf(fault.Verify, "number %.40q in the store: %w", v.serial, seal.ErrAltered)
		}
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(n), RevocationTime: v.at})
	}
	return t, nil
}

// signList examines a list that a throw-away key made, and has the CA sign the same.
func (e *Engine) signList(l *listToSign, signer crypto.Signer) ([]byte, error) {
	t, err := l.template()
	if err != nil {
		return nil, err
	}
	proof, err := e.throwAway(signer.Public())
	if err != nil {
		return nil, err
	}
	draft, err := x509.CreateRevocationList(rand.Reader, t, l.issuer, proof)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "%w: %w", ErrLint, err)
	}
	want, err := l.examine(draft)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, l.issuer, signer)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "sign the list: %w", err)
	}
	got, err := x509.ParseRevocationList(der)
	if err != nil || !bytes.Equal(got.RawTBSRevocationList, want) {
		return nil, fault.Errorf(fault.Unexpected, "%w: the signed bytes are not the examined ones", ErrLint)
	}
	if err := got.CheckSignatureFrom(l.issuer); err != nil {
		return nil, fault.Errorf(fault.Token, "the token gave a signature that does not hold: %w", err)
	}
	return der, nil
}

// examine reads the list again and compares it with what it is to say.
func (l *listToSign) examine(der []byte) ([]byte, error) {
	c, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "%w: %w", ErrLint, err)
	}
	ok := c.Number != nil && c.Number.IsInt64() && c.Number.Int64() == l.number && l.number > 0 &&
		c.ThisUpdate.Equal(l.from) && c.NextUpdate.After(c.ThisUpdate) && bytes.Equal(c.RawIssuer, l.issuer.RawSubject) &&
		bytes.Equal(c.AuthorityKeyId, l.issuer.SubjectKeyId) && len(c.RevokedCertificateEntries) == len(l.all)
	for i := range c.RevokedCertificateEntries {
		ok = ok && hex.EncodeToString(c.RevokedCertificateEntries[i].SerialNumber.FillBytes(make([]byte, 16))) == l.all[i].serial
	}
	if !ok {
		return nil, fault.Errorf(fault.Unexpected, "%w: a list", ErrLint)
	}
	return c.RawTBSRevocationList, nil
}

// apply keeps the list, unless somebody revoked something while it was signed, or
// another request was quicker.
func (x *crl) apply(tx *seal.Tx) (*engine.Answer, error) {
	k, err := x.e.kept(tx)
	if err != nil {
		return nil, err
	}
	g, err := x.e.generation(tx)
	if err != nil {
		return nil, err
	}
	a := &engine.Answer{}
	switch {
	case k.fresh(g, x.now):
		// What it says is newer than, or the same as, what was signed here.
	case x.der == nil || x.gen != g || x.number != k.Number+1:
		return nil, fault.Hint(engine.ErrConflict, "a certificate was revoked at this very moment: ask again")
	default:
		k = keptCRL{From: charter.FormatTime(x.now), Generation: g, List: x.der, Number: x.number}
		raw, err := jcs.Marshal(k)
		if err != nil {
			return nil, err
		}
		if err := tx.Put(x.e.lists(), "list", raw); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(x.der)
		a.Result = map[string]any{"crl_number": x.number, "crl_sha256": hex.EncodeToString(sum[:]), "entries": x.entries}
	}
	a.Raw, a.ContentType = k.List, typeCRL
	if x.asPEM {
		a.Raw, a.ContentType = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: k.List}), typePEM
	}
	return a, nil
}

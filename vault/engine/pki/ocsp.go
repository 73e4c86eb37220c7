package pki

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha1" //nolint:gosec // requests name the issuer by it (RFC 6960, appendix B.1); nothing is signed with it
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// How long an answer holds, and how long one is given again.
const (
	ocspValidity = time.Hour
	ocspRenewal  = 30 * time.Minute
	// maxOCSPBytes bounds a request.
	maxOCSPBytes = 4 << 10
	// maxAnswers bounds what is kept in memory.
	maxAnswers = 4096
)

// asked is what a question is about. Each way of asking has an answer of its own, so
// that who asks in another way does not have the token sign each time.
type asked struct {
	serial string
	hash   crypto.Hash // by which the issuer is named
}

// ocspKept is an answer that was signed.
type ocspKept struct {
	der  []byte
	from time.Time
}

// question is a request for an answer about one certificate.
type question struct {
	e      *Engine
	q      *ocsp.Request
	serial string // hex
	now    time.Time
	der    []byte
}

// planOCSP answers whether a certificate holds: GET with the request as base64 in the
// path, or POST with it as parameter "request". Whatever is no question about one
// certificate of this CA is answered as RFC 6960 says, unsigned.
func (e *Engine) planOCSP(r *engine.Request) (*engine.Plan, error) {
	der, err := readOCSP(r)
	if err != nil {
		return nil, err
	}
	q, err := parseOCSP(der)
	if err != nil {
		return answered(ocsp.MalformedRequestErrorResponse), nil
	}
	x := &question{e: e, q: q, now: r.Now.UTC().Truncate(time.Second)}
	plan := &engine.Plan{Needs: access.Read, Apply: x.apply}
	_, issuer, err := e.ca()
	switch {
	case errors.Is(err, ErrNoRole):
		return answered(ocsp.UnauthorizedErrorResponse), nil
	case err != nil:
		return nil, err
	case !asksAbout(q, issuer) || q.SerialNumber.BitLen() > 128:
		return answered(ocsp.UnauthorizedErrorResponse), nil
	}
	x.serial = hex.EncodeToString(q.SerialNumber.FillBytes(make([]byte, 16)))
	plan.Shown = map[string]any{"serial": x.serial}
	if x.der = e.answer(x.asked(), x.now); x.der == nil {
		plan.Intent, plan.Work = true, x.work
	}
	return plan, nil
}

func (x *question) asked() asked { return asked{x.serial, x.q.HashAlgorithm} }

func answered(raw []byte) *engine.Plan {
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) { return unsigned(raw), nil }}
}

// unsigned is an answer that says nothing of any certificate.
func unsigned(raw []byte) *engine.Answer { return &engine.Answer{Raw: raw, ContentType: typeOCSP} }

// readOCSP takes the request out of path or parameters.
func readOCSP(r *engine.Request) ([]byte, error) {
	if r.Method == engine.Write {
		if err := r.Params.Only("request"); err != nil {
			return nil, err
		}
		return r.Params.Bytes("request")
	}
	s := strings.Join(r.Rest[1:], "/")
	enc := base64.StdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.URLEncoding
	}
	der, err := enc.DecodeString(s)
	if err != nil {
		return nil, fault.New(fault.Usage, "the request in the path is not base64; use POST")
	}
	return der, nil
}

// parseOCSP reads a request about exactly one certificate. The library would answer
// about the first of several.
func parseOCSP(der []byte) (*ocsp.Request, error) {
	bad := fault.New(fault.Usage, "no request about one certificate (RFC 6960, section 4.1)")
	if len(der) == 0 || len(der) > maxOCSPBytes {
		return nil, bad
	}
	var outer struct {
		TBS struct {
			Version   int           `asn1:"explicit,tag:0,default:0,optional"`
			Requestor asn1.RawValue `asn1:"explicit,tag:1,optional"`
			List      []asn1.RawValue
			Rest      asn1.RawValue `asn1:"explicit,tag:2,optional"`
		}
		Signature asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 || len(outer.TBS.List) != 1 {
		return nil, bad
	}
	q, err := ocsp.ParseRequest(der)
	if err != nil || q.SerialNumber == nil || q.SerialNumber.Sign() <= 0 || !q.HashAlgorithm.Available() {
		return nil, bad
	}
	return q, nil
}

// asksAbout says whether the request names this issuer.
func asksAbout(q *ocsp.Request, issuer *x509.Certificate) bool {
	var spki struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &spki); err != nil || len(rest) > 0 {
		return false
	}
	sum := func(b []byte) []byte {
		h := q.HashAlgorithm.New()
		h.Write(b)
		return h.Sum(nil)
	}
	return bytes.Equal(q.IssuerNameHash, sum(issuer.RawSubject)) && bytes.Equal(q.IssuerKeyHash, sum(spki.Key.RightAlign()))
}

// look says what is known of the certificate: what was never taken is unknown, what was
// taken and not given out is revoked.
func (x *question) look(s lister) (status int, at time.Time, err error) {
	c, err := x.e.record(s, x.serial)
	if errors.Is(err, engine.ErrNotThere) {
		return ocsp.Unknown, time.Time{}, nil
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	v, err := x.e.revocation(s, x.serial)
	if v == nil && err == nil {
		v, err = x.e.lost(s, x.serial, x.now)
	}
	if err != nil {
		return 0, time.Time{}, err
	}
	switch {
	case v != nil:
		return ocsp.Revoked, v.at, nil
	case len(c.Certificate) == 0: // it is being signed
		return ocsp.Unknown, time.Time{}, nil
	}
	return ocsp.Good, time.Time{}, nil
}

// work has the CA sign the answer.
func (x *question) work(ctx context.Context) error {
	t := ocsp.Response{SerialNumber: x.q.SerialNumber, ThisUpdate: x.now, NextUpdate: x.now.Add(ocspValidity), IssuerHash: x.q.HashAlgorithm, RevocationReason: ocsp.Unspecified}
	err := x.e.host.View(func(v *seal.View) (err error) {
		t.Status, t.RevokedAt, err = x.look(v)
		return err
	})
	if err != nil {
		return err
	}
	signer, issuer, err := x.e.signer(ctx)
	if err != nil {
		return err
	}
	der, err := ocsp.CreateResponse(issuer, issuer, t, signer)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "sign the answer: %w", err)
	}
	got, err := ocsp.ParseResponse(der, issuer)
	if err != nil || got.Status != t.Status || got.SerialNumber.Cmp(x.q.SerialNumber) != 0 {
		return fault.Errorf(fault.Unexpected, "%w: an answer about a certificate", ErrLint)
	}
	x.der = der
	return nil
}

// apply gives the answer out, unless the certificate was revoked while it was signed.
func (x *question) apply(tx *seal.Tx) (*engine.Answer, error) {
	status, _, err := x.look(tx)
	if err != nil {
		return nil, err
	}
	got, err := ocsp.ParseResponse(x.der, nil)
	if err != nil || got.Status != status {
		x.e.forgetAnswer(x.serial)
		return nil, fault.Hint(engine.ErrConflict, "what is known of the certificate changed at this very moment: ask again")
	}
	if status != ocsp.Unknown { // of those there are as many as somebody likes to ask for
		x.e.keepAnswer(x.asked(), &ocspKept{der: x.der, from: got.ThisUpdate})
	}
	return &engine.Answer{Raw: x.der, ContentType: typeOCSP, Result: map[string]any{"status": map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}[status]}}, nil
}

// answer is one that was signed a while ago and may be given again.
func (e *Engine) answer(q asked, now time.Time) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.answers[q]
	if k == nil || now.Before(k.from) || !now.Before(k.from.Add(ocspRenewal)) {
		return nil
	}
	return k.der
}

func (e *Engine) keepAnswer(q asked, k *ocspKept) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.answers) >= maxAnswers {
		clear(e.answers)
	}
	e.answers[q] = k
}

func (e *Engine) forgetAnswer(serial string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} { // those of the library
		delete(e.answers, asked{serial, h})
	}
}

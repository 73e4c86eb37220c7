package pki

import (
	"encoding/hex"
	"time"

	"golang.org/x/crypto/ocsp"

	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Anybody implements engine.Open: where a role of the mount says public, the list in DER
// and answers about certificates of this CA are for whoever asks.
func (e *Engine) Anybody(r *engine.Request) func(*seal.View) (*engine.Answer, error) {
	if len(r.Rest) == 0 || !e.host.Charter().PKIPublic(e.host.Mount) {
		return nil
	}
	n, now := len(r.Rest), r.Now.UTC().Truncate(time.Second)
	read, write := r.Method == engine.Read, r.Method == engine.Write
	switch head := r.Rest[0]; {
	case head == "crl" && n == 1 && read && len(r.Params) == 0:
		return func(v *seal.View) (*engine.Answer, error) { return e.listNow(v, now) }
	case head == "ocsp" && (n == 1 && write || n > 1 && read && len(r.Params) == 0):
		return func(v *seal.View) (*engine.Answer, error) { return e.answerNow(v, r, now) }
	}
	return nil
}

// listNow is the newest list, if it still says everything.
func (e *Engine) listNow(v *seal.View, now time.Time) (*engine.Answer, error) {
	k, err := e.kept(v)
	if err != nil {
		return nil, err
	}
	g, err := e.generation(v)
	if err != nil || !k.fresh(g, now) {
		return nil, err
	}
	return &engine.Answer{Raw: k.List, ContentType: typeCRL}, nil
}

// answerNow is the answer to a question, if the token need not sign it. About a number
// that was never given out a stranger gets none that is signed (RFC 6960, section 2.3,
// "unauthorized"): there are as many as somebody likes to ask for.
func (e *Engine) answerNow(v *seal.View, r *engine.Request, now time.Time) (*engine.Answer, error) {
	der, err := readOCSP(r)
	if err != nil {
		return nil, err
	}
	q, err := parseOCSP(der)
	if err != nil {
		return unsigned(ocsp.MalformedRequestErrorResponse), nil
	}
	_, issuer, err := e.ca()
	if err != nil {
		return nil, err
	}
	if !asksAbout(q, issuer) || q.SerialNumber.BitLen() > 128 {
		return unsigned(ocsp.UnauthorizedErrorResponse), nil
	}
	x := &question{e: e, q: q, now: now, serial: hex.EncodeToString(q.SerialNumber.FillBytes(make([]byte, 16)))}
	status, _, err := x.look(v)
	if err != nil {
		return nil, err
	}
	if status == ocsp.Unknown {
		return unsigned(ocsp.UnauthorizedErrorResponse), nil
	}
	kept := e.answer(x.asked(), now)
	if got, err := ocsp.ParseResponse(kept, nil); kept == nil || err != nil || got.Status != status {
		return nil, nil //nolint:nilnil // the token must sign, which is no error
	}
	return unsigned(kept), nil
}

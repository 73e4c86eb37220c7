// Package pki is the engine that gives processes certificates, as roles of the charter
// allow (charter.PKIRole), and that says which of them hold no more: a list (RFC 5280)
// and answers about single ones (RFC 6960). It speaks the shapes of HashiCorp Vault's
// engine of that name.
//
// The CA's key lies in the token. Before it signs, a certificate is made with a
// throw-away key and examined, and its number is taken in the store; what was taken and
// never given out counts as revoked. A private key made here is given out once and kept
// nowhere. Nothing is taken from a certificate request but the public key and, where the
// role allows them, names (CVE-2024-33897).
package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"sync"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Classes of refusal.
var (
	// ErrLint says that a certificate or list would not be what it has to be.
	ErrLint = fault.New(fault.Unexpected, "what was to be signed does not pass its examination")
	// ErrRequest says that a certificate request is not usable.
	ErrRequest = fault.New(fault.Usage, "the certificate request is refused")
	// ErrFull says that a role has as many certificates as it may.
	ErrFull = fault.New(fault.Quota, "the role has as many certificates as it may have at a time")
	// ErrNoRole says that no role of the charter has issued here.
	ErrNoRole = fault.New(fault.Policy, "there is no role at this mount, and so no CA")
)

// Engine is the engine at one mount.
type Engine struct {
	host *engine.Host

	mu      sync.Mutex               // guards the rest
	answers map[asked]*ocspKept      // as long as they hold
	proof   map[string]crypto.Signer // throw-away keys, by kind
}

// New is the engine of a host's mount.
func New(h *engine.Host) *Engine {
	return &Engine{host: h, answers: map[asked]*ocspKept{}, proof: map[string]crypto.Signer{}}
}

// The kinds of content that are answered as they are.
const (
	typeCert  = "application/pkix-cert"
	typeChain = "application/pem-certificate-chain"
	typeCRL   = "application/pkix-crl"
	typePEM   = "application/x-pem-file"
	typeOCSP  = "application/ocsp-response"
)

// Plan implements engine.Engine.
func (e *Engine) Plan(r *engine.Request) (*engine.Plan, error) {
	if len(r.Rest) == 0 {
		return nil, engine.ErrNoPath
	}
	n := len(r.Rest)
	read, write := r.Method == engine.Read, r.Method == engine.Write
	switch head := r.Rest[0]; {
	case head == "issue" && n == 2 && write:
		return e.planIssue(r, r.Rest[1], false)
	case head == "sign" && n == 2 && write:
		return e.planIssue(r, r.Rest[1], true)
	case head == "revoke" && n == 1 && write:
		return e.planRevoke(r)
	case head == "ocsp" && (n == 1 && write || n > 1 && read):
		return e.planOCSP(r)
	case head == "crl" && read && (n == 1 || n == 2 && r.Rest[1] == "pem"):
		return e.planCRL(r, n == 2)
	case read && (head == "ca" || head == "ca_chain"):
		return e.planCA(r)
	case head == "certs" && n == 1 && r.Method == engine.List:
		return e.planList(r, func(v lister) []string { return e.serials(v) })
	case head == "cert" && n == 2 && read:
		return e.planCert(r, r.Rest[1])
	case head == "roles":
		return e.planRoles(r)
	case slices.Contains([]string{"config", "root", "intermediate", "tidy", "tidy-status", "issuer", "issuers", "keys", "sign-verbatim", "acme"}, head):
		return nil, byCharter()
	}
	return nil, engine.ErrNoPath
}

func byCharter() error {
	return fault.Hint(engine.ErrByCharter, "roles of this engine are stated by the approvers: keyrite charter propose "+charter.TypePKIRole+" --body FILE")
}

// role is a role of the mount.
func (e *Engine) role(name string) (*charter.PKIRole, error) {
	r, ok := e.host.Charter().PKIRoles[charter.At(e.host.Mount, name)]
	if !ok {
		return nil, engine.ErrNotThere
	}
	return &r, nil
}

// ca is the mount's CA: that of each of its roles.
func (e *Engine) ca() (key string, c *x509.Certificate, err error) {
	st := e.host.Charter()
	names := st.PKIRolesAt(e.host.Mount)
	if len(names) == 0 {
		return "", nil, ErrNoRole
	}
	r := st.PKIRoles[charter.At(e.host.Mount, names[0])]
	c, err = x509.ParseCertificate(r.Issuer)
	return r.Key, c, err
}

// signer is the CA's key in the token.
func (e *Engine) signer(ctx context.Context) (crypto.Signer, *x509.Certificate, error) {
	id, c, err := e.ca()
	if err != nil {
		return nil, nil, err
	}
	if e.host.Token == nil {
		return nil, nil, fault.New(fault.Sealed, "the token of the CA is not open")
	}
	k, rec, err := e.host.Token.Signer(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if string(rec.Public) != string(c.RawSubjectPublicKeyInfo) {
		return nil, nil, fault.New(fault.Policy, "the CA's key was succeeded; another issuer wants another mount")
	}
	return k.Within(ctx), c, nil
}

// planRoles shows roles; the charter makes them.
func (e *Engine) planRoles(r *engine.Request) (*engine.Plan, error) {
	switch {
	case len(r.Rest) == 1 && r.Method == engine.List:
		return e.planList(r, func(lister) []string { return e.host.Charter().PKIRolesAt(e.host.Mount) })
	case len(r.Rest) == 2 && r.Method == engine.Read:
		return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) {
			x, err := e.role(r.Rest[1])
			if err != nil {
				return nil, err
			}
			return &engine.Answer{Data: x}, nil
		}}, nil
	case len(r.Rest) == 2 && r.Method != engine.List:
		return nil, byCharter()
	}
	return nil, engine.ErrNoPath
}

// lister is a store at one moment.
type lister interface {
	Get(bucket, key string) ([]byte, error)
	Keys(bucket, prefix string) []string
}

func (e *Engine) planList(r *engine.Request, list func(lister) []string) (*engine.Plan, error) {
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	var keys []string
	work := func(context.Context) error { // a long list must not hold up those who write
		err := e.host.View(func(v *seal.View) error {
			keys = list(v)
			return nil
		})
		if err == nil && len(keys) == 0 {
			err = engine.ErrNotThere
		}
		return err
	}
	return &engine.Plan{Needs: access.List, Work: work, Apply: func(*seal.Tx) (*engine.Answer, error) {
		return &engine.Answer{Data: map[string]any{"keys": keys}}, nil
	}}, nil
}

// planCA gives the CA's certificate, ca and ca/pem, and those above it, too: ca_chain.
func (e *Engine) planCA(r *engine.Request) (*engine.Plan, error) {
	form := strings.Join(r.Rest, "/")
	if !slices.Contains([]string{"ca", "ca/pem", "ca_chain"}, form) {
		return nil, engine.ErrNoPath
	}
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) {
		_, c, err := e.ca()
		if err != nil {
			return nil, err
		}
		if form == "ca" {
			return &engine.Answer{Raw: c.Raw, ContentType: typeCert}, nil
		}
		if form == "ca_chain" {
			return &engine.Answer{Raw: []byte(pemOf(e.chain(c)...)), ContentType: typeChain}, nil
		}
		return &engine.Answer{Raw: []byte(pemOf(c.Raw)), ContentType: typeChain}, nil
	}}, nil
}

// chain is the CA's certificate and those above it that the charter knows, DER.
func (e *Engine) chain(ca *x509.Certificate) [][]byte {
	return append([][]byte{ca.Raw}, e.host.Charter().PKIChain(e.host.Mount)...)
}

func pemOf(certs ...[]byte) string {
	var out []byte
	for _, der := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return string(out)
}

// planCert gives a certificate by its number, and the CA's.
func (e *Engine) planCert(r *engine.Request, which string) (*engine.Plan, error) {
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	var serial string
	var err error
	if !slices.Contains([]string{"ca", "ca_chain"}, which) {
		if serial, err = parseSerial(which); err != nil {
			return nil, err
		}
	}
	return &engine.Plan{Needs: access.Read, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		if serial == "" {
			_, c, err := e.ca()
			if err != nil {
				return nil, err
			}
			if which == "ca" {
				return &engine.Answer{Data: map[string]any{"certificate": pemOf(c.Raw)}}, nil
			}
			return &engine.Answer{Data: map[string]any{"certificate": pemOf(e.chain(c)...)}}, nil
		}
		c, err := e.record(tx, serial)
		if err != nil {
			return nil, err
		}
		if len(c.Certificate) == 0 {
			return nil, engine.ErrNotThere
		}
		v, err := e.revocation(tx, serial)
		if err != nil {
			return nil, err
		}
		out := map[string]any{"certificate": pemOf(c.Certificate), "revocation_time": 0, "revocation_time_rfc3339": ""}
		if v != nil {
			out["revocation_time"], out["revocation_time_rfc3339"] = v.at.Unix(), v.at.Format(time.RFC3339)
		}
		return &engine.Answer{Data: out}, nil
	}}, nil
}

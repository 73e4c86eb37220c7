package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// backdate lets a certificate hold for clients whose clock is a little behind.
const backdate = 30 * time.Second

// issue is a request for a certificate.
type issue struct {
	e        *Engine
	role     *charter.PKIRole
	serial   birthcert.CertSerial
	identity string
	now      time.Time
	ttl      time.Duration
	names    *names
	keyType  string
	public   crypto.PublicKey // out of a CSR; else made
	form     string           // of the answer: pem, der or pem_bundle
	pkcs8    bool

	wrong    error // said after the decision: who may not ask learns nothing
	reserved bool
	asked    bool // the token may have signed
	private  crypto.Signer
	der      []byte
	issuer   *x509.Certificate
	chain    [][]byte // DER: the issuer's, and those above it
}

// planIssue reads a request for a certificate, with a key of the vault's making or with
// one for which a CSR stands.
func (e *Engine) planIssue(r *engine.Request, role string, csr bool) (*engine.Plan, error) {
	x := &issue{e: e, serial: birthcert.NewCertSerial(), identity: r.Caller.Identity, now: r.Now.UTC().Truncate(time.Second)}
	plan := &engine.Plan{Needs: access.Update, Intent: true, Reserve: x.reserve, Undo: x.undo, Work: x.work, Apply: x.apply}
	if x.wrong = x.read(r.Params, role, csr); x.wrong == nil {
		plan.Shown = map[string]any{"names": x.names.all(), "role": role, "role_version": x.role.Version, "serial": x.serial.String(), "ttl": int64(x.ttl / time.Second)}
	}
	return plan, nil
}

func (x *issue) read(p engine.Params, role string, csr bool) error {
	known := []string{"alt_names", "common_name", "format", "ip_sans", "ttl", "uri_sans"}
	if csr {
		known = append(known, "csr")
	} else {
		known = append(known, "key_type", "private_key_format")
	}
	if err := p.Only(known...); err != nil {
		return err
	}
	var err error
	if x.role, err = x.e.role(role); err != nil {
		return err
	}
	if x.names, err = readNames(p); err != nil {
		return err
	}
	if csr {
		err = x.readCSR(p)
	} else {
		err = x.readKeyType(p)
	}
	if err != nil {
		return err
	}
	if err := x.readForm(p); err != nil {
		return err
	}
	return x.names.check(x.role)
}

// readCSR takes key and names. Names beside the request take the place of its own,
// which must be allowed all the same.
func (x *issue) readCSR(p engine.Params) error {
	text, err := p.String("csr")
	if err != nil {
		return err
	}
	pub, n, err := readCSR(text)
	if err != nil {
		return err
	}
	x.public, x.keyType = pub, keyType(pub)
	if !slices.Contains(x.role.KeyTypes, x.keyType) {
		return fault.Errorf(fault.Policy, "%w: its key is none that role %s takes", ErrRequest, x.role.Name)
	}
	if len(x.names.all()) == 0 {
		x.names = n
		return nil
	}
	if len(n.all()) == 0 {
		return nil
	}
	return n.check(x.role)
}

func (x *issue) readKeyType(p engine.Params) error {
	t, err := p.String("key_type")
	if err != nil {
		return err
	}
	if t == "" {
		t = x.role.KeyTypes[0]
	}
	if !slices.Contains(x.role.KeyTypes, t) {
		return fault.Errorf(fault.Policy, "role %s makes no keys of type %.40q", x.role.Name, t)
	}
	x.keyType = t
	f, err := p.String("private_key_format")
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"", "der", "pkcs8"}, f) {
		return fault.New(fault.Usage, `parameter "private_key_format" is neither der nor pkcs8`)
	}
	x.pkcs8 = f == "pkcs8"
	return nil
}

func (x *issue) readForm(p engine.Params) error {
	var err error
	if x.form, err = p.String("format"); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "pem", "der", "pem_bundle"}, x.form) {
		return fault.New(fault.Usage, `parameter "format" is none of pem, der and pem_bundle`)
	}
	if x.ttl, err = p.Duration("ttl"); err != nil {
		return err
	}
	longest := time.Duration(x.role.MaxTTL) * time.Second
	if x.ttl == 0 {
		x.ttl = longest
	}
	if x.ttl = x.ttl.Truncate(time.Second); x.ttl < time.Second || x.ttl > longest {
		return fault.Errorf(fault.Policy, "certificates of role %s hold at most %s", x.role.Name, longest)
	}
	return nil
}

// reserve takes the number, in the transaction of the intent.
func (x *issue) reserve(tx *seal.Tx) error {
	if x.wrong != nil {
		return x.wrong
	}
	// The charter may have narrowed or ended the role since the request was read.
	now, err := x.e.role(x.role.Name)
	if err != nil {
		return err
	}
	if now.Version != x.role.Version {
		return fault.Errorf(fault.Policy, "role %s was changed at this moment: ask again", x.role.Name)
	}
	c := &issued{
		Expires: charter.FormatTime(x.now.Add(x.ttl)), Identity: x.identity, Names: x.names.all(), Role: x.role.Name, Time: charter.FormatTime(x.now),
	}
	if err := x.e.take(tx, x.serial.String(), c, x.role.MaxLive, x.now); err != nil {
		return err
	}
	x.reserved = true
	return nil
}

// undo gives the number back, if the token was surely not asked: a keeper of the head out
// of reach must not fill the role.
func (x *issue) undo(tx *seal.Tx) (map[string]any, error) {
	if !x.reserved || x.asked {
		return nil, nil //nolint:nilnil // nothing is given back, and that is no error
	}
	serial := x.serial.String()
	shown := map[string]any{"serial": serial, "undone": "the token was not asked; the number was given back"}
	return shown, x.e.forget(tx, indexed(x.role.Name, x.now.Add(x.ttl), serial), serial)
}

// work makes the key, if none is there, and has the CA sign what passed its
// examination.
func (x *issue) work(ctx context.Context) error {
	if !x.reserved {
		return fault.New(fault.Unexpected, "a certificate was to be signed whose number was not taken first")
	}
	signer, issuer, err := x.e.signer(ctx)
	if err != nil {
		return err
	}
	if !bytes.Equal(issuer.Raw, x.role.Issuer) {
		return fault.New(fault.Policy, "the role changed while this was decided; ask again")
	}
	if x.now.Add(x.ttl).After(issuer.NotAfter) {
		return fault.New(fault.Policy, "the certificate would outlive its issuer's")
	}
	x.issuer, x.chain = issuer, x.e.chain(issuer)
	if x.public == nil {
		if x.private, err = newKey(x.keyType); err != nil {
			return err
		}
		x.public = x.private.Public()
	}
	x.asked = true
	if x.role.Relay != "" {
		x.der, err = x.relay(signer)
	} else {
		x.der, err = x.certificate(signer)
	}
	return err
}

func newKey(typ string) (k crypto.Signer, err error) {
	switch typ {
	case "ecdsa-p256":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ed25519":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case "rsa-3072":
		k, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		return nil, fault.Errorf(fault.Unexpected, "no keys of type %q are made", typ)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return k, nil
}

// template is the certificate before it is signed.
func (x *issue) template() (*x509.Certificate, error) {
	urls, err := x.names.urls()
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(x.public)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%w: its key", ErrRequest)
	}
	id := sha256.Sum256(spki)
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(x.serial[:]), NotBefore: x.now.Add(-backdate), NotAfter: x.now.Add(x.ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		DNSNames: x.names.dns, URIs: urls, IPAddresses: x.names.netIPs(), SubjectKeyId: id[:20], // RFC 7093, section 2, method 4
	}
	t.Subject.Organization, t.Subject.CommonName = x.issuer.Subject.Organization, x.names.common
	if t.NotBefore.Before(x.issuer.NotBefore) {
		t.NotBefore = x.issuer.NotBefore
	}
	for _, u := range x.role.Usages {
		t.ExtKeyUsage = append(t.ExtKeyUsage, map[string]x509.ExtKeyUsage{"client": x509.ExtKeyUsageClientAuth, "server": x509.ExtKeyUsageServerAuth}[u])
	}
	t.CRLDistributionPoints, t.OCSPServer = place(x.role.CRL), place(x.role.OCSP)
	return t, nil
}

// place is where the charter says that something is found; nowhere if it says nothing.
func place(url string) []string {
	if url == "" {
		return nil
	}
	return []string{url}
}

// certificate makes one of the general kind.
func (x *issue) certificate(signer crypto.Signer) ([]byte, error) {
	t, err := x.template()
	if err != nil {
		return nil, err
	}
	proof, err := x.e.throwAway(signer.Public())
	if err != nil {
		return nil, err
	}
	stand := *x.issuer
	stand.PublicKey = proof.Public() // the only member of it that does not enter what is signed
	draft, err := x509.CreateCertificate(rand.Reader, t, &stand, x.public, proof)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "%w: %w", ErrLint, err)
	}
	want, err := x.examine(draft)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, x.issuer, x.public, signer)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "sign the certificate: %w", err)
	}
	return der, x.same(der, want)
}

// same wants the very bytes signed that were examined, by the CA.
func (x *issue) same(der, tbs []byte) error {
	c, err := x509.ParseCertificate(der)
	if err != nil || !bytes.Equal(c.RawTBSCertificate, tbs) {
		return fault.Errorf(fault.Unexpected, "%w: the signed bytes are not the examined ones", ErrLint)
	}
	if err := c.CheckSignatureFrom(x.issuer); err != nil {
		return fault.Errorf(fault.Token, "the token gave a signature that does not hold: %w", err)
	}
	return nil
}

// relay makes one of a relay server, in the profile that gateways check.
func (x *issue) relay(signer crypto.Signer) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(x.public)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%w: its key", ErrRequest)
	}
	t := birthcert.Template{
		Profile: birthcert.Relay, World: x.e.host.Charter().World, Serial: x.serial, NotBefore: x.now, NotAfter: x.now.Add(x.ttl),
		SPKI: spki, Issuer: birthcert.IssuerOf(x.issuer), Role: x.role.Relay, DNSNames: x.names.dns,
	}
	for _, a := range x.names.ips {
		t.IPs = append(t.IPs, a.String())
	}
	tbs, err := t.TBS()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(tbs)
	sign := func(k crypto.Signer) ([]byte, error) {
		sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "sign the certificate: %w", err)
		}
		return birthcert.Assemble(tbs, sig)
	}
	proof, err := x.e.throwAway(signer.Public())
	if err != nil {
		return nil, err
	}
	draft, err := sign(proof)
	if err != nil {
		return nil, err
	}
	if _, err := x.examine(draft); err != nil {
		return nil, err
	}
	der, err := sign(signer)
	if err != nil {
		return nil, err
	}
	if err := x.same(der, tbs); err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return der, birthcert.VerifyRelay(c, x.issuer, x.role.Relay, x.now)
}

package boulder

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
	"keyrite/internal/intake"
)

// Options says what a configuration of Boulder cannot.
type Options struct {
	Pins        script.Pins
	Environment script.Environment
	Safe        string // name and token label of the safe that the key lies in
	// Existing: the root's key is made in a vault that exists (kind new-key), not
	// in one that it founds.
	Existing bool
	Roles    script.Roles
}

// Result is what came out.
type Result struct {
	Kind   string   // of our script
	Script []byte   // text that lints
	Binds  []string // names that the binding must give a file for
	Notes  []string // what was not carried over, and what was decided
}

// Import turns one configuration file into a script that lints.
func Import(path string, data []byte, o Options) (*Result, error) {
	kind, err := kindOf(path, data)
	if err != nil {
		return nil, err
	}
	im := &importer{path: path, o: o, d: draft{Options: o}}
	switch kind {
	case "root":
		err = im.root(data)
	case "key":
		err = im.key(data)
	case "intermediate", "cross-certificate":
		err = im.issue(data)
	case "crl":
		err = im.crl(data)
	default:
		err = fault.Errorf(fault.Usage, "%s: ceremony-type %.40q is not known", path, kind)
	}
	if err != nil {
		return nil, err
	}
	text := im.d.text()
	s, err := script.Parse("imported", text)
	if err == nil {
		err = s.Lint()
	}
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%s makes no script that lints: %w", path, err)
	}
	return &Result{Kind: im.d.kind, Script: text, Binds: im.binds, Notes: im.notes}, nil
}

type importer struct {
	path  string
	o     Options
	d     draft
	notes []string
	binds []string
}

func (im *importer) note(format string, args ...any) {
	im.notes = append(im.notes, fmt.Sprintf(format, args...))
}

func (im *importer) bad(format string, args ...any) error {
	return fault.Errorf(fault.Usage, "%s: %s", im.path, fmt.Sprintf(format, args...))
}

// secrets names what a script has no place for, without repeating a PIN.
func (im *importer) secrets(module, pin, slot, label string) error {
	if label == "" {
		return im.bad("pkcs11 names no label of a key")
	}
	if pin != "" {
		im.note("pkcs11.pin was left out: here nobody knows a PIN, shares give it. It stands in %s in the clear: change it, and destroy the file", filepath.Base(im.path))
	}
	if slot != "" {
		im.note("pkcs11 slot %s was left out: a token is named by label and serial number, in the binding", slot)
	}
	if module != "" {
		im.note("pkcs11.module %s was left out: the binding names the module, this script pins its hash", module)
	}
	return nil
}

func (im *importer) paths(members ...string) {
	for i := 0; i+1 < len(members); i += 2 {
		if members[i+1] != "" {
			im.note("%s %s was left out: outputs lie in the record, inputs are named by the binding", members[i], members[i+1])
		}
	}
}

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// name makes a label of Boulder's into a name of ours.
func (im *importer) name(label string) (string, error) {
	n := strings.Trim(notName.ReplaceAllString(strings.ToLower(label), "-"), "-")
	if n == "" || n[0] >= '0' && n[0] <= '9' {
		n = "key-" + n
	}
	if n = strings.TrimRight(n[:min(len(n), 32)], "-"); n == "key" {
		return "", im.bad("label %.40q gives no name", label)
	}
	if n != label {
		im.note("the key %q is called %s here", label, n)
	}
	return n, nil
}

// algorithm says what the key is here.
func (im *importer) algorithm(k keyMaterial) (string, error) {
	switch {
	case k.Type == "ecdsa" && k.RSAModLength == 0 && k.ECDSACurve == "P-256":
		return "p256", nil
	case k.Type == "ecdsa" && k.RSAModLength == 0 && k.ECDSACurve == "P-384":
		return "p384", nil
	case k.Type == "rsa" && k.ECDSACurve == "" && k.RSAModLength == 4096:
		im.note("the RSA key may sign and nothing else; Boulder's tool makes RSA keys that may also decrypt and unwrap")
		return "rsa4096", nil
	case k.Type == "rsa" && k.RSAModLength == 2048:
		return "", im.bad("an RSA key of 2,048 bits is not made here any more: say 4096, or use ecdsa with P-256 or P-384")
	}
	return "", im.bad("key of type %.20q, curve %.20q, length %d is not made here: ecdsa on P-256 or P-384, rsa with 4096 bits", k.Type, k.ECDSACurve, k.RSAModLength)
}

func (im *importer) root(data []byte) error {
	f, err := parse[rootFile](im.path, data)
	if err != nil {
		return err
	}
	if err := im.secrets(f.PKCS11.Module, f.PKCS11.PIN, f.PKCS11.Slot, f.PKCS11.Label); err != nil {
		return err
	}
	im.paths("outputs.public-key-path", f.Outputs.PublicKey, "outputs.certificate-path", f.Outputs.Certificate)
	if len(f.Profile.Policies) > 0 {
		return im.bad("a root has no policies")
	}
	id, err := im.name(f.PKCS11.Label)
	if err != nil {
		return err
	}
	alg, err := im.algorithm(f.Key)
	if err != nil {
		return err
	}
	a, err := im.authority(&f.Profile, f.SkipLints)
	if err != nil {
		return err
	}
	if a.PathLength = -1; a.Signature != script.SignatureOf(alg) {
		return im.bad("a %s key here signs with %s, not %s: a key has one hash for life", alg, script.SignatureOf(alg), f.Profile.SignatureAlgorithm)
	}
	im.d.kind = "genesis"
	if im.o.Existing {
		im.d.kind = "new-key"
	}
	im.d.title = "Root " + f.Profile.CommonName
	im.d.purpose = "make the key of the root authority " + f.Profile.CommonName + " and its certificate"
	im.d.key, im.d.algorithm, im.d.login = id, alg, true
	im.d.cert = &script.Certificate{ID: id, Profile: "ca", Key: id, Issuer: id, CA: *a}
	return nil
}

func (im *importer) key(data []byte) error {
	f, err := parse[keyFile](im.path, data)
	if err != nil {
		return err
	}
	if err := im.secrets(f.PKCS11.Module, f.PKCS11.PIN, f.PKCS11.Slot, f.PKCS11.Label); err != nil {
		return err
	}
	im.paths("outputs.public-key-path", f.Outputs.PublicKey, "outputs.pkcs11-config-path", f.Outputs.Config)
	id, err := im.name(f.PKCS11.Label)
	if err != nil {
		return err
	}
	alg, err := im.algorithm(f.Key)
	if err != nil {
		return err
	}
	im.d.kind, im.d.key, im.d.algorithm = "new-key", id, alg
	im.d.title, im.d.purpose = "Key "+id, "make the key "+id+" of an issuing authority"
	return nil
}

func (im *importer) issue(data []byte) error {
	f, err := parse[issueFile](im.path, data)
	if err != nil {
		return err
	}
	if err := im.secrets(f.PKCS11.Module, f.PKCS11.PIN, f.PKCS11.Slot, f.PKCS11.Label); err != nil {
		return err
	}
	cross := f.Type == "cross-certificate"
	if cross != (f.Inputs.Cross != "") || f.Inputs.PublicKey == "" {
		return im.bad("an intermediate names public-key-path, a cross-certificate also certificate-to-cross-sign-path")
	}
	im.paths("inputs.public-key-path", f.Inputs.PublicKey, "inputs.issuer-certificate-path", f.Inputs.Issuer, "inputs.certificate-to-cross-sign-path", f.Inputs.Cross, "outputs.certificate-path", f.Outputs.Certificate)
	issuer, err := im.name(f.PKCS11.Label)
	if err != nil {
		return err
	}
	a, err := im.authority(&f.Profile, f.SkipLints)
	if err != nil {
		return err
	}
	if cross {
		err = im.crossed(a, f.Inputs.Cross)
	} else {
		// What Boulder's tool adds to every intermediate by itself.
		a.PathLength, a.ExtKeyUsages = 0, []string{"server-auth"}
		im.note("path_length 0 and the extended key usage server-auth are written out: Boulder's tool adds them to every intermediate")
	}
	if err != nil {
		return err
	}
	id, err := im.name(strings.TrimSuffix(strings.TrimSuffix(filepath.Base(f.Outputs.Certificate), ".pem"), ".cert"))
	if err != nil {
		return err
	}
	if id == issuer {
		id = "sub-" + id
	}
	im.d.kind, im.d.issuer = "sign-offline", issuer
	im.d.title = "Certificate for " + f.Profile.CommonName
	im.d.purpose = "certify " + f.Profile.CommonName + " by " + issuer
	im.d.cert = &script.Certificate{ID: id, Profile: "ca", Public: id, Issuer: issuer, CA: *a}
	im.binds = append(im.binds, "keys: "+id)
	im.note("the subject's public key is named %s in the binding (keys: {%s: FILE.pem}). Boulder's tool wants no proof that its holder has the private half, and nor does this step: compare the key with the record of its ceremony", id, id)
	return nil
}

// authority carries the profile.
func (im *importer) authority(p *profile, skip []string) (*script.Authority, error) {
	from, err := utc(im.path, "not-before", p.NotBefore)
	if err != nil {
		return nil, err
	}
	to, err := utc(im.path, "not-after", p.NotAfter)
	if err != nil {
		return nil, err
	}
	signatures := map[string]string{"ECDSAWithSHA256": "ecdsa-sha256", "ECDSAWithSHA384": "ecdsa-sha384", "SHA256WithRSA": "rsa-sha256"}
	a := &script.Authority{
		CommonName: p.CommonName, Organization: p.Organization, Country: p.Country, Signature: signatures[p.SignatureAlgorithm],
		NotBefore: from.Format(time.RFC3339), NotAfter: to.Format(time.RFC3339), CRLURL: p.CRLURL, IssuerURL: p.IssuerURL, OCSPURL: p.OCSPURL,
	}
	if a.Signature == "" {
		return nil, im.bad("signature-algorithm %.40q is not made here: ECDSAWithSHA256 with P-256, ECDSAWithSHA384 with P-384, SHA256WithRSA with RSA", p.SignatureAlgorithm)
	}
	usages := map[string]string{"Cert Sign": "cert-sign", "CRL Sign": "crl-sign", "Digital Signature": "digital-signature"}
	for _, u := range p.KeyUsages {
		if usages[u] == "" {
			return nil, im.bad("key usage %.40q is not known", u)
		}
		a.KeyUsages = append(a.KeyUsages, usages[u])
	}
	for _, x := range p.Policies {
		a.Policies = append(a.Policies, x.OID)
	}
	if len(skip) > 0 {
		im.note("skip-lints were left out (%s): no lint can be skipped here; zlint runs with the rules of RFC 5280 and RFC 5480, not with those of the CA/Browser Forum", strings.Join(skip, ", "))
	}
	im.note("not_before and not_after hold in a live ceremony; a rehearsal's certificate is good for 30 days from its own day")
	return a, nil
}

// crossed takes over what a cross-certificate has from the certificate that the
// key has already.
func (im *importer) crossed(a *script.Authority, path string) error {
	c, err := im.certificate("certificate-to-cross-sign-path", path)
	if err != nil {
		return err
	}
	if c.Subject.CommonName != a.CommonName || !slices.Equal(c.Subject.Organization, []string{a.Organization}) || !slices.Equal(c.Subject.Country, []string{a.Country}) {
		return im.bad("the certificate to cross-sign is of %s, not of %s", c.Subject, a.CommonName)
	}
	if a.PathLength = c.MaxPathLen; c.MaxPathLen == 0 && !c.MaxPathLenZero {
		a.PathLength = -1
	}
	names := map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "server-auth", x509.ExtKeyUsageClientAuth: "client-auth"}
	for _, u := range c.ExtKeyUsage {
		if names[u] == "" {
			return im.bad("the certificate to cross-sign has an extended key usage that is not issued here")
		}
		a.ExtKeyUsages = append(a.ExtKeyUsages, names[u])
	}
	if len(c.UnknownExtKeyUsage) > 0 {
		return im.bad("the certificate to cross-sign has an extended key usage that is not issued here")
	}
	a.SubjectKeyID = hex.EncodeToString(c.SubjectKeyId)
	im.note("path_length, ext_key_usages and subject_key_id are those of the certificate that the key has already")
	return nil
}

// certificate reads a public certificate that the configuration names; relative
// paths are tried beside the file and where the command runs.
func (im *importer) certificate(member, path string) (*x509.Certificate, error) {
	data, err := intake.Read(filepath.Join(filepath.Dir(im.path), path), MaxBytes)
	if filepath.IsAbs(path) || err != nil {
		data, err = intake.Read(path, MaxBytes)
	}
	if err != nil {
		return nil, fault.Hint(im.bad("%s %s cannot be read, and what it says is needed: %v", member, path, err), "put the certificate there; only its public contents are used")
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, im.bad("%s %s is not one PEM certificate", member, path)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, im.bad("%s %s: %v", member, path, err)
	}
	return c, nil
}

func (im *importer) crl(data []byte) error {
	f, err := parse[crlFile](im.path, data)
	if err != nil {
		return err
	}
	if err := im.secrets(f.PKCS11.Module, f.PKCS11.PIN, f.PKCS11.Slot, f.PKCS11.Label); err != nil {
		return err
	}
	im.paths("inputs.issuer-certificate-path", f.Inputs.Issuer, "outputs.crl-path", f.Outputs.CRL)
	issuer, err := im.name(f.PKCS11.Label)
	if err != nil {
		return err
	}
	from, err := utc(im.path, "this-update", f.Profile.ThisUpdate)
	if err != nil {
		return err
	}
	to, err := utc(im.path, "next-update", f.Profile.NextUpdate)
	if err != nil {
		return err
	}
	days := int((to.Sub(from) + 24*time.Hour - 1) / (24 * time.Hour))
	list := &script.CRL{ID: issuer + "-crl", Issuer: issuer, Number: f.Profile.Number, Days: days}
	if len(list.ID) > 32 {
		list.ID = "crl"
	}
	im.note("this-update is the time at which the list is signed, next-update %d days later", days)
	reasons := map[int]string{1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation", 9: "privilegeWithdrawn", 10: "aACompromise"}
	for _, x := range f.Profile.Revoked {
		c, err := im.certificate("revoked-certificates.certificate-path", x.Certificate)
		if err != nil {
			return err
		}
		at, err := utc(im.path, "revocation-date", x.Date)
		if err != nil {
			return err
		}
		if reasons[x.Reason] == "" {
			return im.bad("revocation-reason %d is not issued here", x.Reason)
		}
		if at.Format(time.TimeOnly) != "00:00:00" {
			im.note("the revocation of %s is dated %s, without the hour", c.Subject, at.Format(time.DateOnly))
		}
		list.Revoked = append(list.Revoked, script.Revoked{Serial: hex.EncodeToString(c.SerialNumber.Bytes()), Date: at.Format(time.DateOnly), Reason: reasons[x.Reason]})
	}
	im.d.kind, im.d.issuer, im.d.list = "sign-offline", issuer, list
	im.d.title = "Revocation list of " + issuer
	im.d.purpose = fmt.Sprintf("sign revocation list %d of %s", list.Number, issuer)
	return nil
}

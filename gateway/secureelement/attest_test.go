package secureelement_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/attestation"
	"keyrite/artifact/fault"
	"keyrite/gateway/secureelement/setest"
)

var updateVectors = flag.Bool("update", false, "write the attestation vectors of this TPM anew")

const deviceKeyHandle = tpm2.TPMHandle(0x81000100) // docs/formats/element.md

// witness is a TPM with an attestation key that a maker certified.
type witness struct {
	tp    transport.TPM
	ak    tpm2.NamedHandle
	akPub crypto.PublicKey
	maker *artifacttest.Maker
	chain [][]byte
}

func try[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newWitness makes the attestation key: restricted, so it signs nothing that the TPM
// did not make itself.
func newWitness(t *testing.T, tp transport.TPM) *witness {
	t.Helper()
	template := deviceLike(func(a *tpm2.TPMAObject) { a.Restricted = true })
	r := try[*tpm2.CreatePrimaryResponse](t)(tpm2.CreatePrimary{PrimaryHandle: empty(tpm2.TPMRHEndorsement), InPublic: tpm2.New2B(template)}.Execute(tp))
	w := &witness{tp: tp, ak: tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, maker: artifacttest.NewMaker(t)}
	w.akPub = try[crypto.PublicKey](t)(tpm2.Pub(*try[*tpm2.TPMTPublic](t)(r.OutPublic.Contents())))
	w.chain = w.maker.AK(w.akPub, nil)
	return w
}

// deviceLike is a signing key on P-256 in that TPM; edit changes its attributes.
func deviceLike(edit func(*tpm2.TPMAObject)) tpm2.TPMTPublic {
	attrs := tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true}
	scheme := tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}
	if edit != nil {
		edit(&attrs)
	}
	if attrs.Decrypt {
		scheme = tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: attrs,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: scheme}),
	}
}

// certify has the TPM say what it knows of an object.
func (w *witness) certify(t *testing.T, object tpm2.NamedHandle, about attestation.About) *attestation.Evidence {
	t.Helper()
	bind := try[[]byte](t)(attestation.Binding(about.Key, about.Record, about.World))
	r := try[*tpm2.CertifyResponse](t)(tpm2.Certify{
		ObjectHandle:   tpm2.AuthHandle{Handle: object.Handle, Name: object.Name, Auth: tpm2.PasswordAuth(nil)},
		SignHandle:     tpm2.AuthHandle{Handle: w.ak.Handle, Name: w.ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: bind},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(w.tp))
	pub := try[*tpm2.ReadPublicResponse](t)(tpm2.ReadPublic{ObjectHandle: object.Handle}.Execute(w.tp))
	return &attestation.Evidence{
		Chain: w.chain, Format: attestation.Format, Key: about.Key, Kind: attestation.KindTPM, Record: about.Record, World: about.World,
		TPM: &attestation.Certified{Attest: r.CertifyInfo.Bytes(), Public: pub.OutPublic.Bytes(), Signature: tpm2.Marshal(r.Signature)},
	}
}

func (w *witness) about(t *testing.T, object tpm2.TPMHandle) attestation.About {
	t.Helper()
	pub := try[*tpm2.ReadPublicResponse](t)(tpm2.ReadPublic{ObjectHandle: object}.Execute(w.tp))
	k := try[crypto.PublicKey](t)(tpm2.Pub(*try[*tpm2.TPMTPublic](t)(pub.OutPublic.Contents())))
	return attestation.About{
		Key: "factory-ca", Public: try[[]byte](t)(x509.MarshalPKIXPublicKey(k)), Record: "keyrite/record/0123456789abcdef", World: "rehearsal:ab04da43364b", Time: artifacttest.Now(),
	}
}

// A real TPM certifies the device key that it made, and openssl agrees on the
// signature; what it says of keys that were brought, may leave or do more than sign is
// refused, though the TPM signs that too.
func TestWhatATPMCertifies(t *testing.T) {
	e := setest.Start(t).Open()
	if _, err := e.CreateKey(); err != nil {
		t.Fatal(err)
	}
	e.Raw(func(tp transport.TPM) {
		w := newWitness(t, tp)
		roots := []attestation.Root{w.maker.Root("swtpm", attestation.RootEK, "swtpm")}
		device := try[*tpm2.ReadPublicResponse](t)(tpm2.ReadPublic{ObjectHandle: deviceKeyHandle}.Execute(tp))
		about := w.about(t, deviceKeyHandle)
		good := w.certify(t, tpm2.NamedHandle{Handle: deviceKeyHandle, Name: device.Name}, about)
		a, err := attestation.Verify(good, roots, about)
		if err != nil || a.CheckSigning() != nil || a.Model != "swtpm" || a.Device != "TPM-0001" {
			t.Fatalf("the device key: %+v, %v", a, err)
		}
		opensslAgrees(t, w.akPub, good.TPM)
		other := about
		other.Record = "keyrite/record/fedcba9876543210"
		replayed := *good
		replayed.Record = other.Record
		if _, err := attestation.Verify(&replayed, roots, other); !errors.Is(err, attestation.ErrBinding) {
			t.Errorf("the same in another ceremony: %v", err)
		}
		if *updateVectors {
			writeVector(t, "tpm-swtpm", "ok", "the device key of a gateway, certified by swtpm", good, roots, about)
		}
		w.hostile(t, roots)
	})
}

func (w *witness) hostile(t *testing.T, roots []attestation.Root) {
	t.Helper()
	for name, c := range map[string]struct {
		load func() tpm2.NamedHandle
		want error
	}{
		"brought": {func() tpm2.NamedHandle { return w.bring(t) }, attestation.ErrOrigin},
		"may-leave": {func() tpm2.NamedHandle {
			return w.create(t, deviceLike(func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent = false, false }))
		}, attestation.ErrExportable},
		"decrypts": {func() tpm2.NamedHandle { return w.create(t, deviceLike(func(a *tpm2.TPMAObject) { a.Decrypt = true })) }, attestation.ErrUses},
		"restricted": {func() tpm2.NamedHandle {
			return w.create(t, deviceLike(func(a *tpm2.TPMAObject) { a.Restricted = true }))
		}, attestation.ErrUses},
	} {
		object := c.load()
		about := w.about(t, object.Handle)
		e := w.certify(t, object, about)
		a, err := attestation.Verify(e, roots, about)
		if err == nil {
			err = a.CheckSigning()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("a key that is %s: %v", name, err)
		}
		if *updateVectors {
			writeVector(t, "tpm-swtpm-"+name, string(fault.ClassOf(c.want)), "certified by swtpm, which says what it is", e, roots, about)
		}
		try[*tpm2.FlushContextResponse](t)(tpm2.FlushContext{FlushHandle: object.Handle}.Execute(w.tp))
	}
}

// create makes a key below a new storage root and loads it.
func (w *witness) create(t *testing.T, template tpm2.TPMTPublic) tpm2.NamedHandle {
	t.Helper()
	root := try[*tpm2.CreatePrimaryResponse](t)(tpm2.CreatePrimary{PrimaryHandle: empty(tpm2.TPMRHOwner), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(w.tp))
	parent := tpm2.NamedHandle{Handle: root.ObjectHandle, Name: root.Name}
	made := try[*tpm2.CreateResponse](t)(tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template)}.Execute(w.tp))
	loaded := try[*tpm2.LoadResponse](t)(tpm2.Load{ParentHandle: parent, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(w.tp))
	try[*tpm2.FlushContextResponse](t)(tpm2.FlushContext{FlushHandle: root.ObjectHandle}.Execute(w.tp))
	return tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}
}

// bring loads a software key whose private half the test knows.
func (w *witness) bring(t *testing.T) tpm2.NamedHandle {
	t.Helper()
	k := w.maker.Key()
	point := try[[]byte](t)(k.PublicKey.Bytes())
	template := deviceLike(func(a *tpm2.TPMAObject) { a.FixedTPM, a.FixedParent, a.SensitiveDataOrigin = false, false, false })
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})
	d := try[[]byte](t)(k.Bytes())
	r := try[*tpm2.LoadExternalResponse](t)(tpm2.LoadExternal{
		InPrivate: tpm2.New2B(tpm2.TPMTSensitive{SensitiveType: tpm2.TPMAlgECC, Sensitive: tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: d})}),
		InPublic:  tpm2.New2B(template), Hierarchy: tpm2.TPMRHNull,
	}.Execute(w.tp))
	return tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}
}

// opensslAgrees has openssl verify what the TPM signed.
func opensslAgrees(t *testing.T, ak crypto.PublicKey, c *attestation.Certified) {
	t.Helper()
	sig := try[*tpm2.TPMTSignature](t)(tpm2.Unmarshal[tpm2.TPMTSignature](c.Signature))
	ec := try[*tpm2.TPMSSignatureECC](t)(sig.Signature.ECDSA())
	der := try[[]byte](t)(asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(ec.SignatureR.Buffer), new(big.Int).SetBytes(ec.SignatureS.Buffer)}))
	if k, ok := ak.(*ecdsa.PublicKey); !ok || k.Curve == nil {
		t.Fatal("the attestation key is not on a curve")
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"attest": c.Attest, "sig": der, "altered": append([]byte{c.Attest[0] ^ 1}, c.Attest[1:]...),
		"ak.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: try[[]byte](t)(x509.MarshalPKIXPublicKey(ak))}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, good := range map[string]bool{"attest": true, "altered": false} {
		cmd := exec.CommandContext(t.Context(), "openssl", "dgst", "-sha256", "-verify", "ak.pem", "-signature", "sig", file)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); (err == nil) != good {
			t.Errorf("openssl on %s: %v\n%s", file, err, out)
		}
	}
}

func writeVector(t *testing.T, name, expect, comment string, e *attestation.Evidence, roots []attestation.Root, about attestation.About) {
	t.Helper()
	file := try[[]byte](t)(e.Marshal())
	body := try[[]byte](t)(json.Marshal(map[string]any{"about": about, "evidence": file, "roots": roots}))
	artifacttest.WriteVector(t, "../../testdata/vectors/attestation", artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
}

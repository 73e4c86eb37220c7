package attestation_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/attestation"
	"keyrite/artifact/fault"
)

const vectorDir = "../../testdata/vectors/attestation"

var update = flag.Bool("update", false, "write the vectors anew")

// vector is the body of a vector: everything that a verifier is given.
type vector struct {
	About    attestation.About  `json:"about"`
	Evidence []byte             `json:"evidence"` // the file
	Roots    []attestation.Root `json:"roots"`
}

func (v *vector) verify() (*attestation.Attested, error) {
	e, err := attestation.Parse(v.Evidence)
	if err != nil {
		return nil, err
	}
	a, err := attestation.Verify(e, v.Roots, v.About)
	if err != nil {
		return nil, err
	}
	return a, a.CheckSigning()
}

func spkiOf(t testing.TB, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

const record = "keyrite.example/record/0123456789abcdef"

func about(t testing.TB, pub crypto.PublicKey) attestation.About {
	t.Helper()
	return attestation.About{Key: "firmware", Public: spkiOf(t, pub), Record: record, World: "rehearsal:ab04da43364b", Time: artifacttest.Now()}
}

func yubi(a attestation.About, chain [][]byte) *attestation.Evidence {
	return &attestation.Evidence{Chain: chain, Format: attestation.Format, Key: a.Key, Kind: attestation.KindYubiHSM, Record: a.Record, World: a.World}
}

func wantRefused(t testing.TB, name string, e *attestation.Evidence, roots []attestation.Root, about attestation.About, want error) {
	t.Helper()
	a, err := attestation.Verify(e, roots, about)
	if err == nil {
		err = a.CheckSigning()
	}
	if !errors.Is(err, want) || fault.ClassOf(err) != fault.ClassOf(want) {
		t.Errorf("%s: %v, want %v", name, err, want)
	}
}

// published is the chain of a real device, root last.
func published(t testing.TB) (ders [][]byte) {
	t.Helper()
	data, err := os.ReadFile(vectorDir + "/yubihsm2.pem")
	if err != nil {
		t.Fatal(err)
	}
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return ders
		}
		ders = append(ders, b.Bytes)
	}
}

func publishedVector(t testing.TB) ([]attestation.Root, attestation.About, *attestation.Evidence) {
	t.Helper()
	ders := published(t)
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		t.Fatal(err)
	}
	at := about(t, leaf.PublicKey)
	return []attestation.Root{{ID: "yubico", Kind: attestation.RootHSM, Certificate: ders[3]}}, at, yubi(at, ders[:3])
}

func TestARealYubiHSM(t *testing.T) {
	roots, at, e := publishedVector(t)
	a, err := attestation.Verify(e, roots, at)
	if err != nil {
		t.Fatal(err)
	}
	if a.Device != "20783176" || a.Firmware != "2.2.0" || a.Label != "Swish Sign RSA4096" || a.Model != "YubiHSM 2" || a.Root != "yubico" || !bytes.Equal(a.Public, at.Public) {
		t.Errorf("it says %+v", a)
	}
	// Its owner lets it decrypt too, and sign attestations: no key of ours.
	if err := a.CheckSigning(); !errors.Is(err, attestation.ErrUses) {
		t.Errorf("a key that also decrypts: %v", err)
	}
	for i := range e.Chain {
		for _, at2 := range []int{len(e.Chain[i]) - 1, len(e.Chain[i]) / 2, 60} {
			x := *e
			x.Chain = slices.Clone(e.Chain)
			x.Chain[i] = bytes.Clone(e.Chain[i])
			x.Chain[i][at2] ^= 1
			if _, err := attestation.Verify(&x, roots, at); err == nil {
				t.Errorf("certificate %d altered at %d: accepted", i, at2)
			}
		}
	}
}

// hostileHSMs each change one thing in what a YubiHSM 2 says.
func hostileHSMs() map[string]struct {
	expect error
	claim  func(*artifacttest.Claims)
} {
	type h = struct {
		expect error
		claim  func(*artifacttest.Claims)
	}
	edit := func(n int, f func(x *pkix.Extension)) func(*artifacttest.Claims) {
		return func(c *artifacttest.Claims) {
			c.Edit = func(ext []pkix.Extension) []pkix.Extension { f(&ext[n]); return ext }
		}
	}
	return map[string]h{
		"hsm-imported":         {attestation.ErrOrigin, func(c *artifacttest.Claims) { c.Origin = 2 }},
		"hsm-imported-wrapped": {attestation.ErrOrigin, func(c *artifacttest.Claims) { c.Origin = 0x11 }},
		"hsm-no-origin":        {attestation.ErrOrigin, func(c *artifacttest.Claims) { c.Origin = 0 }},
		"hsm-exportable":       {attestation.ErrExportable, func(c *artifacttest.Claims) { c.Caps |= 1 << 16 }},
		"hsm-decrypts":         {attestation.ErrUses, func(c *artifacttest.Claims) { c.Caps |= 1 << 10 }},
		"hsm-signs-ssh":        {attestation.ErrUses, func(c *artifacttest.Claims) { c.Caps |= 1 << 25 }},
		"hsm-attests":          {attestation.ErrUses, func(c *artifacttest.Claims) { c.Caps |= 1 << 34 }},
		"hsm-signs-not":        {attestation.ErrUses, func(c *artifacttest.Claims) { c.Caps = 0 }},
		"hsm-other-device":     {attestation.ErrEvidence, func(c *artifacttest.Claims) { c.Serial++ }},
		"hsm-negative-serial":  {attestation.ErrEvidence, func(c *artifacttest.Claims) { c.Serial = -12345678 }},
		"hsm-other-object":     {attestation.ErrEvidence, func(c *artifacttest.Claims) { c.Subject = "YubiHSM Attestation id:0x0025" }},
		"hsm-subject":          {attestation.ErrEvidence, func(c *artifacttest.Claims) { c.Subject = "firmware" }},
		"hsm-key-expired":      {attestation.ErrExpired, func(c *artifacttest.Claims) { c.NotAfter = artifacttest.Now().Add(-time.Second) }},
		"hsm-extension-twice": {attestation.ErrEvidence, func(c *artifacttest.Claims) {
			c.Edit = func(ext []pkix.Extension) []pkix.Extension { ext[3].Id = ext[2].Id; return ext }
		}},
		"hsm-extension-unknown": {attestation.ErrEvidence, func(c *artifacttest.Claims) {
			c.Extra = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
		}},
		"hsm-extension-missing": {attestation.ErrEvidence, func(c *artifacttest.Claims) {
			c.Edit = func(ext []pkix.Extension) []pkix.Extension { return slices.Delete(ext, 2, 3) }
		}},
		"hsm-origin-trailing": {attestation.ErrEvidence, edit(2, func(x *pkix.Extension) { x.Value = append(x.Value, 0) })},
		"hsm-origin-7-bits":   {attestation.ErrEvidence, edit(2, func(x *pkix.Extension) { x.Value = []byte{3, 2, 1, 0} })},
		"hsm-origin-number":   {attestation.ErrEvidence, edit(2, func(x *pkix.Extension) { x.Value = []byte{2, 1, 1} })},
		"hsm-critical":        {attestation.ErrEvidence, edit(2, func(x *pkix.Extension) { x.Critical = true })},
		"hsm-caps-short":      {attestation.ErrEvidence, edit(4, func(x *pkix.Extension) { x.Value = []byte{3, 2, 0, 0x80} })},
		"hsm-label-bytes":     {attestation.ErrEvidence, edit(6, func(x *pkix.Extension) { x.Value = []byte{4, 1, 'a'} })},
	}
}

func TestYubiHSMHostile(t *testing.T) {
	m, k := artifacttest.NewMaker(t), newTPM(t).key
	at := about(t, k.Public())
	roots := []attestation.Root{m.Root("maker", attestation.RootHSM)}
	for name, h := range hostileHSMs() {
		wantRefused(t, name, yubi(at, m.Attest(k.Public(), h.claim)), roots, at, h.expect)
	}
	good := m.Attest(k.Public(), nil)
	a, err := attestation.Verify(yubi(at, good), roots, at)
	if err != nil || a.CheckSigning() != nil || a.Device != "12345678" {
		t.Fatalf("the good one: %+v, %v", a, err)
	}
}

// TestNoRootNoAttestation walks what stands between a device and the reader.
func TestNoRootNoAttestation(t *testing.T) {
	m, other, k := artifacttest.NewMaker(t), artifacttest.NewMaker(t), newTPM(t).key
	at := about(t, k.Public())
	good := m.Attest(k.Public(), nil)
	mine, tpmOnly, theirs := m.Root("maker", attestation.RootHSM), m.Root("maker", attestation.RootEK), other.Root("other", attestation.RootHSM)
	notCA := attestation.Root{ID: "leaf", Kind: attestation.RootHSM, Certificate: good[0]}
	early, late := at, at
	early.Time, late.Time = time.Date(2016, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2071, 10, 6, 0, 0, 0, 0, time.UTC)
	elsewhere, otherKey, live := at, at, at
	elsewhere.Record, otherKey.Key, live.World = "keyrite.example/record/fedcba9876543210", "acceptance", "live"
	for _, c := range []struct {
		name  string
		chain [][]byte
		roots []attestation.Root
		about attestation.About
		want  error
	}{
		{"no root", good, nil, at, attestation.ErrRoot},
		{"another maker's root", good, []attestation.Root{theirs}, at, attestation.ErrRoot},
		{"a root for TPMs", good, []attestation.Root{tpmOnly}, at, attestation.ErrRoot},
		{"a root that is no CA", good, []attestation.Root{notCA}, at, attestation.ErrEvidence},
		{"another model", good, []attestation.Root{m.Root("maker", attestation.RootHSM, "YubiHSM 3")}, at, attestation.ErrModel},
		{"before the device was made", good, []attestation.Root{mine}, early, attestation.ErrExpired},
		{"after the root ended", good, []attestation.Root{mine}, late, attestation.ErrExpired},
		{"of another record", good, []attestation.Root{mine}, elsewhere, attestation.ErrBinding},
		{"of another key's name", good, []attestation.Root{mine}, otherKey, attestation.ErrBinding},
		{"links in the wrong order", [][]byte{good[0], good[2], good[1]}, []attestation.Root{mine}, at, attestation.ErrRoot},
		{"a link left out", [][]byte{good[0], good[2]}, []attestation.Root{mine}, at, attestation.ErrSignature},
		{"a link twice", [][]byte{good[0], good[1], good[1], good[2]}, []attestation.Root{mine}, at, attestation.ErrSignature},
		{"the device alone", good[1:], []attestation.Root{mine}, at, attestation.ErrEvidence},
		{"bytes behind a certificate", [][]byte{append(bytes.Clone(good[0]), 0), good[1], good[2]}, []attestation.Root{mine}, at, attestation.ErrEvidence},
		{"the other maker's device in between", [][]byte{good[0], other.DeviceDER, other.SubDER}, []attestation.Root{theirs}, at, attestation.ErrSignature},
	} {
		wantRefused(t, c.name, yubi(at, c.chain), c.roots, c.about, c.want)
	}
	if _, err := attestation.Verify(yubi(at, good), []attestation.Root{mine}, live); fault.ClassOf(err) != fault.Policy {
		t.Errorf("of a rehearsal, judged in the live world: %v", err)
	}
	if _, err := attestation.Verify(yubi(at, good), []attestation.Root{theirs, mine}, at); err != nil {
		t.Errorf("the right one among two roots: %v", err)
	}
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		var x vector
		if err := json.Unmarshal(v.Body, &x); err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if _, err := x.verify(); string(fault.ClassOf(err)) != v.Expect && (err != nil || v.Expect != "ok") {
			t.Errorf("%s: %v, expected %s", v.Name, err, v.Expect)
		}
	}
}

func writeVectors(t *testing.T) {
	put := func(name, comment string, want error, evidence []byte, roots []attestation.Root, at attestation.About) {
		expect := "ok"
		if want != nil {
			expect = string(fault.ClassOf(want))
		}
		body, err := json.Marshal(vector{about2(at), evidence, roots})
		if err != nil {
			t.Fatal(err)
		}
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
	}
	file := func(e *attestation.Evidence) []byte {
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m, tm := artifacttest.NewMaker(t), newTPM(t)
	at, roots := about(t, tm.key.Public()), []attestation.Root{m.Root("maker", attestation.RootHSM)}
	good := yubi(at, m.Attest(tm.key.Public(), nil))
	put("hsm", "a P-256 key in the shape of a YubiHSM 2, by a maker of our own", nil, file(good), roots, at)
	put("hsm-no-root", "no root in the charter", attestation.ErrRoot, file(good), nil, at)
	put("hsm-wrong-root", "the root of another maker", attestation.ErrRoot, file(good), []attestation.Root{artifacttest.NewMaker(t).Root("maker", attestation.RootHSM)}, at)
	put("hsm-root-for-tpms", "the right root, for TPMs", attestation.ErrRoot, file(good), []attestation.Root{m.Root("maker", attestation.RootEK)}, at)
	put("hsm-other-model", "the root is for another model", attestation.ErrModel, file(good), []attestation.Root{m.Root("maker", attestation.RootHSM, "YubiHSM 3")}, at)
	late := at
	late.Time = time.Date(2071, 10, 6, 0, 0, 0, 0, time.UTC)
	put("hsm-root-expired", "taken after the maker's certificates ended", attestation.ErrExpired, file(good), roots, late)
	put("hsm-other-key", "of another key", attestation.ErrKey, file(good), roots, about(t, newTPM(t).key.Public()))
	put("trailing-byte", "a byte behind the file", attestation.ErrEvidence, append(file(good), ' '), roots, at)
	put("unknown-member", "a member that is not in the format", attestation.ErrEvidence, bytes.Replace(file(good), []byte(`"format"`), []byte(`"etc":1,"format"`), 1), roots, at)
	for name, h := range hostileHSMs() {
		put(name, "one claim changed by the device's own key", h.expect, file(yubi(at, m.Attest(tm.key.Public(), h.claim))), roots, at)
	}
	flipped := *good
	flipped.Chain = slices.Clone(good.Chain)
	flipped.Chain[0] = bytes.Clone(good.Chain[0])
	flipped.Chain[0][len(flipped.Chain[0])-1] ^= 1
	put("hsm-signature", "one bit of the signature changed", attestation.ErrSignature, file(&flipped), roots, at)
	realRoots, realAt, realEvidence := publishedVector(t)
	put("yubihsm2-decrypts", "yubihsm2.pem: a real device, whose key may decrypt too", attestation.ErrUses, file(realEvidence), realRoots, realAt)
	tr := []attestation.Root{tm.maker.Root("tpm", attestation.RootEK)}
	put("tpm", "a P-256 key as go-tpm writes it, by an attestation key of our own", nil, file(tm.evidence(t)), tr, tm.about)
	for _, name := range slices.Sorted(maps.Keys(hostileTPMs())) {
		x := newTPM(t)
		h := hostileTPMs()[name]
		h.change(t, x)
		put(name, "one thing changed by the attestation key", h.expect, file(x.evidence(t)), []attestation.Root{x.maker.Root("tpm", attestation.RootEK)}, x.about)
	}
}

// about2 leaves the time in whole seconds, as files have it.
func about2(a attestation.About) attestation.About {
	a.Time = a.Time.UTC().Truncate(time.Second)
	return a
}

func FuzzParse(f *testing.F) {
	for _, v := range artifacttest.Vectors(f, vectorDir) {
		var x vector
		if json.Unmarshal(v.Body, &x) == nil {
			f.Add(x.Evidence)
		}
	}
	var x vector
	for _, v := range artifacttest.Vectors(f, vectorDir) {
		if v.Name == "tpm" {
			if err := json.Unmarshal(v.Body, &x); err != nil {
				f.Fatal(err)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := attestation.Parse(b)
		if err != nil {
			return
		}
		if again, err := e.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("read and written it differs: %v", err)
		}
		if a, err := attestation.Verify(e, x.Roots, x.About); err == nil && !bytes.Equal(a.Public, x.About.Public) {
			t.Error("accepted for another key")
		}
	})
}

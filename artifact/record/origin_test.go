package record

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"
	"testing/fstest"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/attestation"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// origins is a record reduced to one key and what stands for its birth, as a
// dishonest ceremony computer could have written it with every signature in place.
type origins struct {
	*checker
	maker *artifacttest.Maker
	pub   crypto.PublicKey
	about attestation.Evidence
}

func newOrigins(t *testing.T, wanted, is string) *origins {
	t.Helper()
	m := artifacttest.NewMaker(t)
	pub := m.Key().Public()
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	k := anchor.KeyRecord{Algorithm: "p256", Attestation: is, Domain: "dsse", ID: "firmware", Public: spki, Record: Origin("0123456789abcdef"), Token: anchor.Token{Label: "work", Serial: "1"}}
	c := &checker{
		fsys: fstest.MapFS{}, outputs: map[string]Output{}, bornAt: map[string]string{"firmware": charter.FormatTime(artifacttest.Now())},
		stored: map[string]KeyMade{"firmware": {Key: k}},
	}
	c.Open = Open{Record: "0123456789abcdef", World: "rehearsal:abcdefgh"}
	c.script.Keys = []scriptKey{{ID: "firmware", Attestation: wanted}}
	c.Charter = &charter.State{VendorRoots: map[string]charter.VendorRoot{"maker": m.Root("maker", attestation.RootHSM)}}
	return &origins{c, m, pub, attestation.Evidence{Format: attestation.Format, Key: "firmware", Kind: attestation.KindYubiHSM, Record: k.Record, World: c.Open.World}}
}

// keep puts evidence into the record, listed.
func (o *origins) keep(t *testing.T, key string, claim func(*artifacttest.Claims), edit func(*attestation.Evidence)) {
	t.Helper()
	e := o.about
	e.Chain = o.maker.Attest(o.pub, claim)
	if edit != nil {
		edit(&e)
	}
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	path := AttestationPath(key)
	o.outputs[path] = Output{Path: path, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
	o.fsys.(fstest.MapFS)[path] = &fstest.MapFile{Data: data}
}

// What a key says of its birth must be what the script wants and what is shown.
func TestOriginsAreAsTheScriptWants(t *testing.T) {
	for _, c := range []struct {
		wanted, is string
		evidence   bool
		good       bool
	}{
		{"required", anchor.Attested, true, true},
		{"required", anchor.Attested, false, false},
		{"required", anchor.Watched, false, false},
		{"required", "", false, false},
		{"quorum", anchor.Attested, true, true},
		{"quorum", anchor.Attested, false, false},
		{"quorum", anchor.Watched, false, false}, // nobody signed
		{"quorum", anchor.Watched, true, false},  // attested, and called watched
		{"quorum", "", false, false},
		{"none", "", false, true},
		{"none", "", true, false},
		{"none", anchor.Attested, true, false},
		{"none", anchor.Watched, false, false},
		{"", "", false, true},
		{"", anchor.Attested, true, false},
		{"some day", anchor.Attested, true, false},
	} {
		o := newOrigins(t, c.wanted, c.is)
		if c.evidence {
			o.keep(t, "firmware", nil, nil)
		}
		if err := o.checkOrigins(); (err == nil) != c.good || err != nil && fault.ClassOf(err) != fault.Verify {
			t.Errorf("wanted %q, is %q, evidence %v: %v", c.wanted, c.is, c.evidence, err)
		}
	}
}

// Evidence that was exchanged is named, whoever signed the record.
func TestExchangedEvidenceIsNamed(t *testing.T) {
	other := artifacttest.NewMaker(t)
	for name, break1 := range map[string]func(*testing.T, *origins){
		"of another key": func(t *testing.T, o *origins) { o.pub = other.Key().Public(); o.keep(t, "firmware", nil, nil) },
		"of another key id": func(t *testing.T, o *origins) {
			o.keep(t, "firmware", nil, func(e *attestation.Evidence) { e.Key = "acceptance" })
		},
		"of another record": func(t *testing.T, o *origins) {
			o.keep(t, "firmware", nil, func(e *attestation.Evidence) { e.Record = Origin("fedcba9876543210") })
		},
		"of another world": func(t *testing.T, o *origins) {
			o.keep(t, "firmware", nil, func(e *attestation.Evidence) { e.World = "live" })
		},
		"by another maker": func(t *testing.T, o *origins) { o.maker = other; o.keep(t, "firmware", nil, nil) },
		"under a root that the charter does not name": func(t *testing.T, o *origins) {
			o.Charter.VendorRoots = nil
			o.keep(t, "firmware", nil, nil)
		},
		"under the root of a later charter": func(t *testing.T, o *origins) {
			o.base = &charter.State{}
			o.keep(t, "firmware", nil, nil)
		},
		"imported": func(t *testing.T, o *origins) {
			o.keep(t, "firmware", func(c *artifacttest.Claims) { c.Origin = 2 }, nil)
		},
		"exportable": func(t *testing.T, o *origins) {
			o.keep(t, "firmware", func(c *artifacttest.Claims) { c.Caps |= 1 << 16 }, nil)
		},
		"that decrypts": func(t *testing.T, o *origins) {
			o.keep(t, "firmware", func(c *artifacttest.Claims) { c.Caps |= 1 << 10 }, nil)
		},
		"of a device that came later": func(t *testing.T, o *origins) {
			o.bornAt["firmware"] = "2016-01-01T00:00:00Z"
			o.keep(t, "firmware", nil, nil)
		},
		"of a key that is not made here": func(t *testing.T, o *origins) {
			o.keep(t, "firmware", nil, nil)
			o.keep(t, "stray", nil, nil)
		},
	} {
		o := newOrigins(t, "required", anchor.Attested)
		break1(t, o)
		if err := o.checkOrigins(); fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), ".attestation.json") {
			t.Errorf("evidence %s: %v", name, err)
		}
	}
}

package worktoken_test

import (
	"crypto/sha256"
	"crypto/x509"
	"testing"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/vaulttest"
	"keyrite/vault/worktoken"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

var _ engine.Token = (*worktoken.Token)(nil)

// Keys come by their names in the charter, and sign; a key of another token, an
// unknown one and a retired one do not come.
func TestKeysOfTheCharter(t *testing.T) {
	v := vaulttest.New(t)
	tok := v.Open()
	if err := tok.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range vaulttest.Keys() {
		k, rec, err := tok.Signer(t.Context(), want.ID)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Domain != want.Domain || rec.ID != want.ID {
			t.Errorf("%s: record %+v", want.ID, rec)
		}
		sum := sha256.Sum256([]byte(want.ID))
		if sig, err := k.SignContext(t.Context(), sum[:]); err != nil || len(sig) == 0 { // verified by hsm
			t.Errorf("%s: %v", want.ID, err)
		}
		if pub, err := x509.ParsePKIXPublicKey(rec.Public); err != nil || pub == nil {
			t.Errorf("%s: %v", want.ID, err)
		}
	}
	if b, err := tok.Random(t.Context(), 16); err != nil || len(b) != 16 {
		t.Errorf("random: %d bytes, %v", len(b), err)
	}
	v.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: "image1", Reason: charter.ReasonRetired, Record: "keyrite/record/test"})
	for _, id := range []string{"image1", "unknown", "firmware", ""} { // firmware lies in another token
		if _, _, err := tok.Signer(t.Context(), id); fault.ClassOf(err) != fault.Policy {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := tok.Check(t.Context()); err != nil {
		t.Errorf("after a key was retired: %v", err)
	}
}

// What the token holds under a name is compared with the charter; a key that is not
// there, another one, and an algorithm that was not attacked are told.
func TestTokenThatIsNotAsTheCharterSays(t *testing.T) {
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "one", Algorithm: anchor.P256, Domain: "dsse"}, {ID: "two", Algorithm: anchor.RSA3072, Domain: "raw-image"}})
	rec := v.Later("missing", "dsse", "") // its key is nowhere; the record says another token
	tok := v.Open()
	if err := tok.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	change := func(id string, f func(*anchor.KeyRecord)) {
		k := v.State.Keys[id]
		f(&k)
		v.State.Keys[id] = k
	}
	had := v.State.Keys["one"]
	change("missing", func(k *anchor.KeyRecord) { k.Token = had.Token })
	if _, _, err := tok.Signer(t.Context(), "missing"); fault.ClassOf(err) != fault.Token {
		t.Errorf("a key that is not in the token: %v", err)
	}
	if err := tok.Check(t.Context()); fault.ClassOf(err) != fault.Token {
		t.Errorf("check: %v", err)
	}
	delete(v.State.Keys, "missing")
	change("one", func(k *anchor.KeyRecord) { k.Public = rec.Public })
	if _, _, err := tok.Signer(t.Context(), "one"); fault.ClassOf(err) != fault.Verify {
		t.Errorf("another key under the name, which was looked up before: %v", err)
	}
	change("one", func(k *anchor.KeyRecord) { *k = had })
	x, err := admission.Open(v.Report, &v.State.People)
	if err != nil {
		t.Fatal(err)
	}
	x.Report.Algorithms = []string{anchor.P256}
	narrow, err := worktoken.New(worktoken.Config{Pool: v.Pool(), Charter: func() *charter.State { return v.State }, Report: x.Report})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := narrow.Signer(t.Context(), "two"); fault.ClassOf(err) != fault.Token {
		t.Errorf("an algorithm that was not admitted: %v", err)
	}
	if _, err := worktoken.New(worktoken.Config{}); err == nil {
		t.Error("a token of nothing")
	}
}

// The store of the fixture opens.
func TestFixtureStore(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	if n := v.Store().Head().Size; n != 1 {
		t.Errorf("%d entries", n)
	}
}

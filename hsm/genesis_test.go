package hsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

const (
	newSO   = "SOSOSOSOSOSOSOSOSOSOSOSOSOSOSOSO"
	newUser = "USUSUSUSUSUSUSUSUSUSUSUSUSUSUSUS"
)

// TestGenesisOrder walks the whole order of a genesis on a real token.
func TestGenesisOrder(t *testing.T) {
	e := hsmtest.New(t)
	ctx := t.Context()
	id, err := e.Supervisor.InitToken(ctx, "work")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Supervisor.InitToken(ctx, "work"); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("second token of the same label: %v", err)
	}
	first := e.Open(t, id)
	if _, err := first.Random(ctx, 32); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)

	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	specs := []hsm.GenerateSpec{
		{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, 1), Label: "firmware", SessionObject: true},
		{Template: hsm.RootSign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, 2), Label: "birth-root", SessionObject: true},
		{Template: hsm.Sign, Algorithm: hsm.Ed25519, KeyID: hsm.NewKeyID(tag, 3), Label: "log", SessionObject: true},
	}
	birth := e.Open(t, id)
	for _, sp := range specs {
		if _, err := birth.Generate(ctx, sp); err != nil {
			t.Fatal(err)
		}
		mustSign(t, birth, sp)
	}
	if objs := objects(t, e.Open(t, id)); len(objs) != 0 {
		t.Errorf("another session sees %d objects before the first copy", len(objs))
	}
	for _, sp := range specs {
		if _, err := birth.CopyToToken(ctx, sp); err != nil {
			t.Fatal(err)
		}
	}
	if err := birth.SyncToken(ctx); err != nil {
		t.Fatal(err)
	}
	fresh := e.Open(t, id)
	for _, sp := range specs {
		k, err := fresh.Attributes(ctx, sp.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Check(sp, hsm.Stored); err != nil {
			t.Error(err)
		}
		mustSign(t, fresh, sp)
	}
	if objs := objects(t, fresh); len(objs) != 2*len(specs) {
		t.Errorf("got %d objects, want %d", len(objs), 2*len(specs))
	}
	d, err := fresh.DestroyTagged(ctx, tag, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Objects) != 2*len(specs) || len(d.Remaining) != 0 {
		t.Errorf("destroyed %d, remaining %d", len(d.Objects), len(d.Remaining))
	}
	if objs := objects(t, e.Open(t, id)); len(objs) != 0 {
		t.Errorf("%d objects after tagged destruction", len(objs))
	}
}

func objects(t *testing.T, s *hsm.Session) []hsm.Object {
	t.Helper()
	o, err := s.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// mustSign signs and verifies with the public key.
func mustSign(t *testing.T, s *hsm.Session, sp hsm.GenerateSpec) {
	t.Helper()
	k, err := s.Signer(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("what is signed: " + strings.Repeat("x", 100))
	sum := sha256.Sum256(msg)
	switch pub := k.Public().(type) {
	case ed25519.PublicKey:
		sig, err := k.Sign(rand.Reader, msg, crypto.Hash(0))
		if err != nil || !ed25519.Verify(pub, msg, sig) {
			t.Fatalf("sign with %s: %v", sp.Label, err)
		}
	case *ecdsa.PublicKey:
		sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(pub, sum[:], sig) {
			t.Fatalf("sign with %s: %v", sp.Label, err)
		}
	default:
		t.Fatalf("public key of %s is a %T", sp.Label, pub)
	}
}

package tpm_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"keyrite/internal/tpm"
	"keyrite/internal/tpm/tpmtest"
)

// A key made in the TPM signs after a power cut, for who has its authorisation, until
// it is removed or the TPM is cleared; another key or TPM in its place is noticed.
func TestKeyInTheTPM(t *testing.T) {
	m := tpmtest.Start(t)
	d := open(t, m)
	x := tpm.Key{Handle: 0x81000300}
	digest := sha256.Sum256([]byte("signed"))
	if err := d.RemoveKey(x, nil); !errors.Is(err, tpm.ErrMissing) {
		t.Errorf("none is removed: %v", err)
	}
	pub, err := d.MakeKey(x, auth, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.MakeKey(x, auth, nil); !errors.Is(err, tpm.ErrDefined) {
		t.Errorf("twice: %v", err)
	}
	x.Public = pub
	m.Restart()
	d = open(t, m)
	sig, err := d.Sign(x, auth, digest[:])
	if err != nil || !ecdsa.VerifyASN1(pub, digest[:], sig) {
		t.Errorf("after a power cut: %v", err)
	}
	for _, bad := range [][]byte{nil, []byte("another")} {
		if _, err := d.Sign(x, bad, digest[:]); !errors.Is(err, tpm.ErrRefused) {
			t.Errorf("authorisation %q: %v", bad, err)
		}
	}
	if _, err := d.Sign(x, auth, digest[:20]); err == nil {
		t.Error("no SHA-256 digest was signed")
	}
	if _, err := open(t, tpmtest.Start(t)).Sign(x, auth, digest[:]); !errors.Is(err, tpm.ErrMissing) {
		t.Errorf("another TPM: %v", err)
	}
	if err := d.RemoveKey(x, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.MakeKey(x, auth, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sign(x, auth, digest[:]); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("another key: %v", err)
	}
	clearTPM(t, m)
	if _, err := d.Sign(x, auth, digest[:]); !errors.Is(err, tpm.ErrMissing) {
		t.Errorf("cleared: %v", err)
	}
}

// A key of another kind at the place is not used, and can be replaced.
func TestKeyOfAnotherKind(t *testing.T) {
	m := tpmtest.Start(t)
	d := open(t, m)
	x := tpm.Key{Handle: 0x81000300}
	w, err := tpm.Dial(m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	imported := tpm.SigningKey()
	imported.ObjectAttributes.NoDA = false
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(imported)}.Execute(w)
	if err == nil {
		_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: tpm2.TPMHandle(x.Handle)}.Execute(w)
	}
	if err != nil {
		t.Fatal(err)
	}
	area, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	k, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	x.Public, _ = k.(*ecdsa.PublicKey)
	if _, err := d.Sign(x, nil, make([]byte, sha256.Size)); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("%v", err)
	}
	if _, err := d.MakeKey(x, auth, nil); !errors.Is(err, tpm.ErrDefined) {
		t.Errorf("%v", err)
	}
	if err := d.RemoveKey(x, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := d.MakeKey(tpm.Key{Handle: x.Handle}, auth, nil); err != nil {
		t.Error(err)
	}
}

// Where the owner has an authorisation, indexes and keys are made with it and not
// without, and are used without it.
func TestOwnerWithAnAuthorisation(t *testing.T) {
	m := tpmtest.Start(t)
	w, err := tpm.Dial(m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	owner := []byte("the owner's")
	if _, err := (tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: owner}}).Execute(w); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	d := open(t, m)
	x := tpm.Key{Handle: 0x81000300}
	for _, bad := range [][]byte{nil, []byte("another")} {
		if _, err := d.MakeKey(x, auth, bad); !errors.Is(err, tpm.ErrRefused) {
			t.Errorf("a key with %q: %v", bad, err)
		}
		if err := d.Define(counter, auth, bad); !errors.Is(err, tpm.ErrRefused) {
			t.Errorf("an index with %q: %v", bad, err)
		}
	}
	if err := d.Define(counter, auth, owner); err != nil {
		t.Error(err)
	}
	if _, err := d.Step(counter, auth); err != nil {
		t.Error(err)
	}
	if x.Public, err = d.MakeKey(x, auth, owner); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sign(x, auth, make([]byte, sha256.Size)); err != nil {
		t.Error(err)
	}
	if err := d.RemoveKey(x, nil); !errors.Is(err, tpm.ErrRefused) {
		t.Errorf("removed without the owner: %v", err)
	}
}

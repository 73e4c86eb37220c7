package hsm_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

func userPIN(t *testing.T, s *hsm.Supervisor, id hsm.TokenID, pin string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, _ = io.WriteString(w, pin+"\n")
	_ = w.Close()
	if err := s.TakeUserPIN(t.Context(), id, r); err != nil {
		t.Fatal(err)
	}
}

// usePair signs and agrees with the two keys and checks both in Go.
func usePair(t *testing.T, s *hsm.Session, sign, agree hsm.CardKey) (*hsm.OnCard, *hsm.OnCard) {
	t.Helper()
	signer, err := s.Use(sign)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("m"))
	for range 2 { // a card that wants its PIN each time gets it each time
		sig, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if pub, ok := signer.Public().(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(pub, digest[:], sig) {
			t.Error("signature")
		}
	}
	x, err := s.Use(agree)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	got, err := x.ECDH(peer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(x.PublicKey())
	if err != nil || string(got) != string(want) {
		t.Errorf("secret %x, want %x, %v", got, want, err)
	}
	if _, err := signer.ECDH(peer.PublicKey()); err == nil {
		t.Error("the key that signs derives, too")
	}
	if _, err := x.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
		t.Error("the key that derives signs, too")
	}
	if _, err := signer.Sign(rand.Reader, digest[:20], crypto.SHA1); err == nil {
		t.Error("a SHA-1 digest was signed")
	}
	return signer, x
}

// A token that its user may fill: keys are made there and used (SoftHSM).
func TestCardKeysInSoftHSM(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "ann")
	if err := s.MakeCardKeys(t.Context(), "ann", "02", "03"); err != nil {
		t.Fatal(err)
	}
	keys, err := s.CardKeys(t.Context())
	if err != nil || len(keys) != 2 || keys[0].ID != "02" || !keys[0].Sign || keys[0].Derive || keys[1].Sign || !keys[1].Derive {
		t.Fatalf("%+v, %v", keys, err)
	}
	usePair(t, s, keys[0], keys[1])
	if err := s.MakeCardKeys(t.Context(), "ann", "02", "04"); !errors.Is(err, hsm.ErrExists) {
		t.Errorf("an id was taken twice: %v", err)
	}
	for _, ids := range [][2]string{{"02", "02"}, {"", "05"}, {"xx", "05"}} {
		if err := s.MakeCardKeys(t.Context(), "ann", ids[0], ids[1]); err == nil {
			t.Errorf("ids %q were taken", ids)
		}
	}
	again := e.Open(t, s.Token())
	if keys, err := again.CardKeys(t.Context()); err != nil || len(keys) != 2 {
		t.Errorf("a fresh process sees %d keys, %v", len(keys), err)
	}
}

// A PIV card through OpenSC, pcscd and a virtual reader.
func TestPIVCard(t *testing.T) {
	r := hsmtest.NewCardReader(t)
	card := hsmtest.NewPIVCard(t)
	pull := r.Insert(t, card)
	s, err := hsm.Start(t.Context(), r.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := r.Token(t, s)
	userPIN(t, s, id, hsmtest.PIVPIN)
	sess, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := sess.CardKeys(t.Context())
	if err != nil || len(keys) != 2 || keys[0].ID != hsmtest.PIVSignID || keys[1].ID != hsmtest.PIVAgreeID {
		t.Fatalf("%+v, %v", keys, err)
	}
	signer, x := usePair(t, sess, keys[0], keys[1])
	if !card.Signing.Equal(signer.Public()) || !card.Agreement.Equal(x.PublicKey()) || card.Signed != 2 {
		t.Errorf("%d signatures by the card", card.Signed)
	}
	pull()
	digest := sha256.Sum256([]byte("m"))
	if _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
		t.Error("a card that was pulled signed")
	}
}

// A wrong PIN reaches the card once, and never when it is the last try.
func TestWrongPINOfACardIsNotTriedAgain(t *testing.T) {
	r := hsmtest.NewCardReader(t)
	card := hsmtest.NewPIVCard(t)
	r.Insert(t, card)
	for i := range 3 {
		s, err := hsm.Start(t.Context(), r.Config)
		if err != nil {
			t.Fatal(err)
		}
		id := r.Token(t, s)
		userPIN(t, s, id, "999999")
		_, err = s.Open(t.Context(), id)
		if err == nil || strings.Contains(err.Error(), "999999") {
			t.Errorf("try %d: %v", i, err)
		}
		if want := errors.Is(err, hsm.ErrPIN); want != (i < 2) {
			t.Errorf("try %d: %v", i, err)
		}
		_ = s.Close()
	}
	if card.Wrong != 2 {
		t.Errorf("the card saw %d wrong PINs", card.Wrong)
	}
}

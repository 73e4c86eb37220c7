package share

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"filippo.io/age"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
)

func place() Place {
	return Place{Epoch: 1, Holder: "master1", Index: 1, Safe: "work", Vault: hex.EncodeToString(bytes.Repeat([]byte{7}, 32)), World: "rehearsal:abcdefgh"}
}

func sealed(t testing.TB) (*person.Key, []byte, ed25519.PublicKey) {
	t.Helper()
	k, err := person.New("master1", place().World)
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, Bytes)
	rand.Read(raw)
	key, err := Key(raw, place())
	if err != nil {
		t.Fatal(err)
	}
	f, err := Seal(raw, place(), k.Public().Recipient)
	if err != nil {
		t.Fatal(err)
	}
	return k, f, key.Public().(ed25519.PublicKey)
}

// A bad share is named before anything is combined (R-CER-14, R-CER-6).
func TestOpenNamesABadShare(t *testing.T) {
	k, f, pub := sealed(t)
	if _, _, err := Open(f, k.Identity(), place(), pub); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		edit func(p *Place) error
		want error
	}{
		{"old epoch", func(p *Place) error { p.Epoch = 2; return nil }, ErrEpoch},
		{"other safe", func(p *Place) error { p.Safe = "root"; return nil }, ErrSafe},
		{"other vault", func(p *Place) error { p.Vault = hex.EncodeToString(make([]byte, 32)); return nil }, ErrSafe},
		{"other world", func(p *Place) error { p.World = "live"; return nil }, ErrSafe},
		{"other holder", func(p *Place) error { p.Holder = "master2"; return nil }, ErrHolder},
		{"other index", func(p *Place) error { p.Index = 2; return nil }, ErrHolder},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := place()
			_ = tt.edit(&p)
			_, _, err := Open(f, k.Identity(), p, pub)
			if !errors.Is(err, tt.want) || fault.ClassOf(err) != fault.Verify {
				t.Errorf("got %v", err)
			}
		})
	}
	for i := range f {
		bad := bytes.Clone(f)
		bad[i] ^= 1
		if _, _, err := Open(bad, k.Identity(), place(), pub); err == nil {
			t.Errorf("flipped byte %d was taken", i)
		}
	}
	// A share that somebody replaced and sealed properly is still not the one dealt.
	other, err := Seal(make([]byte, Bytes), place(), k.Public().Recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(other, k.Identity(), place(), pub); !errors.Is(err, ErrShare) {
		t.Errorf("replaced share: %v", err)
	}
	// So is one that differs in one bit of any byte, x coordinate included.
	raw, _, err := Open(f, k.Identity(), place(), pub)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 0x10
		file, err := Seal(bad, place(), k.Public().Recipient)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(file, k.Identity(), place(), pub); !errors.Is(err, ErrShare) {
			t.Errorf("share byte %d: %v", i, err)
		}
	}
	// Two holders who swapped their media: each is told that the share is the other's.
	p2 := place()
	p2.Holder, p2.Index = "master2", 2
	file, err := Seal(raw, p2, k.Public().Recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(file, k.Identity(), place(), pub); !errors.Is(err, ErrHolder) {
		t.Errorf("swapped: %v", err)
	}
	stranger, _ := age.GenerateX25519Identity()
	if _, _, err := Open(f, stranger, place(), pub); !errors.Is(err, ErrSealed) {
		t.Errorf("stranger: %v", err)
	}
}

// Known answer: pins the derivations for ever. The expected values were also
// computed with openssl kdf (docs/formats/share.md).
func TestKnownAnswers(t *testing.T) {
	raw := bytes.Repeat([]byte{0xab}, Bytes)
	key, err := Key(raw, place())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(key.Seed()), "85229e7da895c2b561c0df005329ad2db7ab3044e5b5dde7c24f8516f23cfe72"; got != want {
		t.Errorf("seed %s", got)
	}
	pin, err := PIN(bytes.Repeat([]byte{0xcd}, SecretBytes), place(), User, "demo-work")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(pin), "F55QNW3UXHLXIEEJUKZFJAALFZK3QZAM"; got != want {
		t.Errorf("PIN %s", got)
	}
}

func TestReceiptAndOpening(t *testing.T) {
	k, f, pub := sealed(t)
	raw, shareKey, err := Open(f, k.Identity(), place(), pub)
	if err != nil || len(raw) != Bytes {
		t.Fatal(err)
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	op := hex.EncodeToString(nonce)
	env, err := envelope.SignJSON(OpeningType, Opening{OpeningFormat, nonce, op, place()}, shareKey, k.Signer())
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyOpening(env, place(), pub, k.Public().PublicKey(), op, nonce); err != nil {
		t.Fatal(err)
	}
	if VerifyOpening(env, place(), pub, k.Public().PublicKey(), op, make([]byte, 32)) == nil {
		t.Error("opening of another attempt was taken")
	}
	env.Signatures = env.Signatures[:1]
	if VerifyOpening(env, place(), pub, k.Public().PublicKey(), op, nonce) == nil {
		t.Error("opening without the person's signature was taken")
	}
	rc, err := envelope.SignJSON(ReceiptType, Receipt{op, ReceiptFormat, place()}, shareKey, k.Signer())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyReceipt(rc, place(), pub, k.Public().PublicKey()); err != nil {
		t.Error(err)
	}
	p := place()
	p.Epoch = 2
	if _, err := VerifyReceipt(rc, p, pub, k.Public().PublicKey()); err == nil {
		t.Error("receipt of another epoch was taken")
	}
}

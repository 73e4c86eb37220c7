package envelope

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"testing"
)

func TestCheckKeyRefusesWhatAnybodyCanSignFor(t *testing.T) {
	identity := make(ed25519.PublicKey, 32)
	identity[0] = 1
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1
	if !ed25519.Verify(identity, []byte("anything"), forged) {
		t.Error("the standard library now refuses it by itself; the list may go")
	}
	for _, s := range smallOrder() {
		for _, sign := range []byte{0, 0x80} {
			k, err := hex.DecodeString(s)
			if err != nil || len(k) != 32 {
				t.Fatalf("%s: %v, %d bytes", s, err, len(k))
			}
			k[31] |= sign
			if err := CheckKey(ed25519.PublicKey(k)); !errors.Is(err, ErrWeakKey) {
				t.Errorf("%x: %v", k, err)
			}
		}
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.PublicKey{rsaKey.Public(), p384.Public(), ed25519.PublicKey{1}, nil} {
		if CheckKey(k) == nil {
			t.Errorf("%T was taken", k)
		}
	}
	_, keys := signers(t)
	for _, k := range keys {
		if err := CheckKey(k.Public); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
}

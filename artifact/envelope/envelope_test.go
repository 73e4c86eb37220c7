package envelope

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
)

const typ = "application/vnd.keyrite.test.v1+json"

func signers(t testing.TB) (map[string]crypto.Signer, []Key) {
	t.Helper()
	out := map[string]crypto.Signer{}
	var keys []Key
	for _, n := range []string{"ann", "bob", "eve"} {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[n] = k
		if n != "eve" {
			keys = append(keys, Key{n, k.Public()})
		}
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out["hsm"] = k
	return out, append(keys, Key{"hsm", k.Public()})
}

func TestVerify(t *testing.T) {
	who, keys := signers(t)
	tests := []struct {
		name string
		by   []string
		need int
		edit func(*Envelope)
		want error
	}{
		{"two", []string{"ann", "bob"}, 2, nil, nil},
		{"mixed", []string{"ann", "hsm"}, 2, nil, nil},
		{"one of two", []string{"ann"}, 2, nil, ErrQuorum},
		{"foreign", []string{"ann", "eve"}, 1, nil, ErrUnknown},
		{"twice", []string{"ann"}, 2, func(e *Envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) }, ErrTwice},
		{"payload", []string{"ann"}, 1, func(e *Envelope) { e.Payload[0] ^= 1 }, ErrSignature},
		{"type", []string{"ann"}, 1, func(e *Envelope) { e.PayloadType += "x" }, ErrType},
		{"signature", []string{"hsm"}, 1, func(e *Envelope) { e.Signatures[0].Sig[9] ^= 1 }, ErrSignature},
		{"signature of the other", []string{"ann", "bob"}, 2, func(e *Envelope) { e.Signatures[0].Sig = e.Signatures[1].Sig }, ErrSignature},
		{"none", nil, 1, nil, ErrQuorum},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := Sign(typ, []byte("payload"))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range tt.by {
				if err := e.Add(who[n]); err != nil {
					t.Fatal(err)
				}
			}
			if tt.edit != nil {
				tt.edit(e)
			}
			_, _, err = Verify(e, typ, keys, tt.need)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, _, err := Verify(&Envelope{PayloadType: typ}, typ, keys, 0); err == nil {
		t.Error("a threshold of zero was met")
	}
}

func TestAddRefusesASecondSignature(t *testing.T) {
	who, _ := signers(t)
	e, err := Sign(typ, []byte("x"), who["ann"])
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Add(who["ann"]); !errors.Is(err, ErrTwice) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	who, _ := signers(f)
	e, _ := Sign(typ, []byte("payload"), who["ann"])
	b, _ := e.Marshal()
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, writes %q", data, again)
		}
	})
}

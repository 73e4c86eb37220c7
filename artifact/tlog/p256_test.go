package tlog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// cardNote is signed by a card as the log, and by a card and a file as cosigners.
func cardNote(t testing.TB) ([]byte, Signer, []Signer, *ecdsa.PrivateKey) {
	t.Helper()
	log, card := p256(t), p256(t)
	file, pub := key(t)
	n, err := Sign(Checkpoint{origin, testWorld, 1, LeafHash([]byte("x"))}, "conductor", log)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  crypto.Signer
	}{{"witness1", card}, {"witness2", file}} {
		if n, err = Cosign(n, c.name, c.key, time.Unix(1_800_000_000, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return n, Signer{"conductor", log.Public()}, []Signer{{"witness1", card.Public()}, {"witness2", pub}}, card
}

func TestCardsSign(t *testing.T) {
	n, log, cos, card := cardNote(t)
	o, err := Open(n, origin, testWorld, log, cos)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(o.Cosigners, " ") != "witness1 witness2" || o.CosignedAt["witness1"].Unix() != 1_800_000_000 {
		t.Errorf("opened %+v", o)
	}
	logLine, err := signLine(o.Text(), "witness1", card, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(n), "\n")
	asLog := strings.Join(lines[:6], "") + logLine
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	tests := map[string]struct {
		note string
		cos  []Signer
	}{
		"a log line as cosignature":  {asLog, cos},
		"the other key of the name":  {string(n), []Signer{{"witness1", p256(t).Public()}, cos[1]}},
		"the name has an Ed25519":    {string(n), []Signer{{"witness1", cos[1].Public}, cos[1]}},
		"a key on another curve":     {string(n), []Signer{{"witness1", p384.Public()}, cos[1]}},
		"no key":                     {string(n), []Signer{{"witness1", nil}, cos[1]}},
		"the same cosignature twice": {string(n) + lines[6], cos},
	}
	for name, tt := range tests {
		if _, err := Open([]byte(tt.note), origin, testWorld, log, tt.cos); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := Cosign(n, "witness3", p384, time.Now()); err == nil {
		t.Error("a key on another curve signed")
	}
}

func TestEveryFlippedBitOfACardsNoteIsRefused(t *testing.T) {
	n, log, cos, _ := cardNote(t)
	for i := range n {
		for bit := range 8 {
			bad := bytes.Clone(n)
			bad[i] ^= 1 << bit
			if _, err := Open(bad, origin, testWorld, log, cos); err == nil {
				t.Errorf("byte %d bit %d", i, bit)
			}
		}
	}
}

// OpenSSL, which knows nothing of notes, verifies what the card signed.
func TestOpenSSLVerifiesACosignature(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing: scripts/setup installs it")
	}
	n, log, cos, card := cardNote(t)
	o, err := Open(n, origin, testWorld, log, cos)
	if err != nil {
		t.Fatal(err)
	}
	_, b64, _ := strings.Cut(strings.Split(string(n), "\n")[6], "witness1 ")
	blob, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	der, _ := x509.MarshalPKIXPublicKey(card.Public())
	for name, data := range map[string][]byte{
		"key": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "sig": blob[12:],
		"msg": append([]byte("cosignature/v1\ntime 1800000000\n"), o.Text()...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("openssl", "dgst", "-sha256", "-verify", "key", "-signature", "sig", "msg")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func FuzzOpenCard(f *testing.F) {
	n, log, cos, _ := cardNote(f)
	f.Add(n)
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Open(data, origin, testWorld, log, cos)
		if err == nil && !bytes.HasPrefix(data, o.Text()) {
			t.Errorf("accepted %q as %+v", data, o)
		}
	})
}

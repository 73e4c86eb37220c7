package signer_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/firmware"
	"keyrite/internal/clitest"
)

// The stock Sigstore verifier accepts our bundle, and refuses it altered.
func TestBundleIsReadBySigstore(t *testing.T) {
	b := newBench(t)
	req := b.request(b.wish(3))
	r, err := b.release(req, b.approve(req, "approver1", "approver2"), "out")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(b.Keys[firmware.KeyID].Public())
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(b.dir, "key.pem")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := clitest.Node(t, "verify-bundle.mjs", r.Bundle, key)
	if err != nil || !strings.Contains(out, `"predicateType":"urn:keyrite:keyrite/firmware/v1"`) {
		t.Fatalf("@sigstore/verify: %v: %s", err, out)
	}
	data, err := os.ReadFile(r.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte(`"payload":"`)) + 200
	data[at] ^= 1
	if err := os.WriteFile(r.Bundle, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := clitest.Node(t, "verify-bundle.mjs", r.Bundle, key); err == nil {
		t.Errorf("altered, and @sigstore/verify takes it: %s", out)
	}
}

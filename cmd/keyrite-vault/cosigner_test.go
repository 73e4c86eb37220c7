package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
)

// certificate writes a self-signed certificate for 127.0.0.1 and its key.
func (h *house) certificate(name string) {
	h.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	h.write(name+"-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

func (h *house) key32(text string) []byte {
	h.t.Helper()
	k, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(k) != ed25519.PublicKeySize {
		h.t.Fatalf("%q is no key: %v", text, err)
	}
	return k
}

// cosigner starts the cosigner and returns its address and how to end it.
func (h *house) cosigner() (string, func()) {
	h.t.Helper()
	cmd := h.command("keyrite-vault", "cosigner", "--bind", "cosigner.yaml", "--state-dir", "cosigner", "--listen", "cosigner=127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready cosigner ")
	if err != nil || !ok {
		_ = cmd.Wait()
		h.t.Fatalf("cosigner says %q: %s", line, errs.String())
	}
	return addr, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, r)
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("cosigner: %v: %s", err, errs.String())
		}
	}
}

// logKey is the key that signs the store's log.
func (h *house) logKey() ed25519.PublicKey {
	h.t.Helper()
	k, err := loadKey(h.path("state"), logKeyFile)
	if err != nil {
		h.t.Fatal(err)
	}
	pub, _ := k.Public().(ed25519.PublicKey)
	return pub
}

// makeCosigner makes the cosigner's binding and state folder, and returns its key and
// the binding without tls.
func (h *house) makeCosigner() ([]byte, string) {
	h.t.Helper()
	signer, err := note.NewEd25519VerifierKey("vault9", h.logKey())
	if err != nil {
		h.t.Fatal(err)
	}
	bind := fmt.Sprintf("format: keyrite/cosigner-bind/v1\nname: cosigner1\nlogs: {keyrite/store/%s: [%q]}\n", h.State.Vault, signer)
	h.write("cosigner.yaml", []byte(bind+"tls: {certificate: cosigner.pem, key: cosigner-key.pem}\n"))
	code, out, errs := h.run("keyrite-vault", "cosigner", "create", "--bind", "cosigner.yaml", "--state-dir", "cosigner", "--json")
	var made struct{ Key string }
	if err := json.Unmarshal([]byte(out), &made); code != 0 || err != nil {
		h.t.Fatalf("exit %d: %v: %s%s", code, err, out, errs)
	}
	return h.key32(made.Key), bind
}

// cosignedBy has the charter name the cosigner by that key.
func (h *house) cosignedBy(version int, key []byte) {
	h.t.Helper()
	h.Approve(charter.TypeAuditLog, charter.AuditLog{
		Cosigners: []charter.LogSigner{{Key: key, Name: "cosigner1"}}, Log: charter.LogSigner{Key: h.logKey(), Name: "vault9"}, Need: 1, Version: version,
	})
	h.write("charter.jsonl", h.Charter)
}

// headAtCosigner names the cosigner as the keeper of the head.
func (h *house) headAtCosigner(addr string) {
	h.bind("head: {cosigner: {name: cosigner1, url: \"https://" + addr + "\", ca: cosigner.pem}}\n")
}

// The head of the store is kept by a cosigner on another machine, over TLS: an older
// copy of the store is refused, and without the cosigner nothing is opened.
func TestVaultWithACosigner(t *testing.T) {
	h := newHouse(t)
	h.host()
	h.certificate("cosigner")
	key, bind := h.makeCosigner()
	if code, _, errs := h.run("keyrite-vault", "cosigner", "create", "--bind", "cosigner.yaml", "--state-dir", "cosigner"); code != 16 {
		t.Errorf("made again: exit %d: %s", code, errs)
	}
	addr, stop := h.cosigner()
	h.headAtCosigner(addr)
	h.vault(13, "serve") // the charter knows neither
	h.cosignedBy(1, key)
	s := h.serve()
	h.open(openrequest.Create, "master1", "master2", "master3")
	s.stop()
	old := h.read("state/store/store.db")
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	s.stop()
	newest := h.read("state/store/store.db")
	h.write("state/store/store.db", old)
	s = h.serve()
	if code := h.tryOpen(); code != 14 {
		t.Errorf("an older copy of the store: exit %d", code)
	}
	h.write("state/store/store.db", newest)
	stop()
	if code := h.tryOpen(); code != 19 {
		t.Errorf("without the cosigner: exit %d", code)
	}
	s.stop()
	kept, err := filepath.Glob(h.path("cosigner/store/*.checkpoint"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v %v", kept, err)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || !strings.HasPrefix(string(text), "keyrite/store/"+h.State.Vault+"\n") {
		t.Errorf("%v: %s", err, text)
	}
	for name, change := range map[string]string{
		"no tls, and not loopback": bind,
		"another format":           strings.Replace(bind, "cosigner-bind/v1", "cosigner-bind/v9", 1),
		"no logs":                  "format: keyrite/cosigner-bind/v1\nname: cosigner1\nlogs: {}\n",
	} {
		h.write("bad.yaml", []byte(change))
		if code, _, errs := h.run("keyrite-vault", "cosigner", "--bind", "bad.yaml", "--state-dir", "cosigner", "--listen", "cosigner=0.0.0.0:0"); code != 2 {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
}

// What is there of the store is older than the cosigner has; then the cosigner lost its
// folder. A new one that nobody named opens nothing, and one that approvers named goes on
// with the store as it lies there.
func TestCosignerIsLost(t *testing.T) {
	h := newHouse(t)
	h.host()
	h.certificate("cosigner")
	key, _ := h.makeCosigner()
	addr, stop := h.cosigner()
	h.headAtCosigner(addr)
	h.cosignedBy(1, key)
	s := h.serve()
	h.open(openrequest.Create, "master1", "master2", "master3")
	s.stop()
	older := h.read("state/store/store.db")
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	s.stop()
	newest := h.read("state/store/store.db")
	h.write("state/store/store.db", older)
	s = h.serve()
	const section = "'The cosigner, or the newest copy, is lost'"
	for _, operation := range []string{openrequest.Unseal, openrequest.Rehead} {
		if text := h.unsealed(14, operation); !strings.Contains(text, section) {
			t.Errorf("%s of an older store: %s", operation, text)
		}
	}
	s.stop()
	stop()
	if page, err := os.ReadFile("../../docs/operations/vault.md"); err != nil || !strings.Contains(string(page), "\n## "+strings.Trim(section, "'")+"\n") {
		t.Errorf("docs/operations/vault.md has no section %s: %v", section, err)
	}

	if err := os.RemoveAll(h.path("cosigner")); err != nil {
		t.Fatal(err)
	}
	key, _ = h.makeCosigner()
	addr, _ = h.cosigner()
	h.headAtCosigner(addr)
	s = h.serve()
	for _, operation := range []string{openrequest.Unseal, openrequest.Rehead} {
		if text := h.unsealed(20, operation); !strings.Contains(text, section) {
			t.Errorf("%s with a cosigner that nobody named: %s", operation, text)
		}
	}
	s.stop()
	h.cosignedBy(2, key)
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	s.stop()
	s = h.serve()
	h.open(openrequest.Unseal, "master3", "master4", "master5")
	s.stop()
	h.write("state/store/store.db", newest) // found again
	s = h.serve()
	if text := h.unsealed(14, openrequest.Unseal); !strings.Contains(text, "older copy") && !strings.Contains(text, "another history") {
		t.Errorf("the history of before: %s", text)
	}
	s.stop()
}

// tryOpen gives three shares for an unseal, and returns how the last one ended.
func (h *house) tryOpen() int {
	h.t.Helper()
	for _, n := range []string{"t.request", "t.1", "t.2", "t.3"} {
		_ = os.Remove(h.path(n))
	}
	h.vault(0, "unseal", "--new-attempt", "--out", "t.request")
	for i, n := range []string{"master1", "master2", "master3"} {
		if code, text := h.answer("t.request", n, fmt.Sprintf("t.%d", i+1)); code != 0 {
			h.t.Fatalf("exit %d: %s", code, text)
		}
	}
	code, _, _ := h.run("keyrite-vault", "unseal", "--answer", "t.1", "--answer", "t.2", "--answer", "t.3", "--bind", "vault.yaml", "--state-dir", "state")
	return code
}

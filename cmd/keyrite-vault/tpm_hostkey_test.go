package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/internal/tpm/tpmtest"
)

// tpmAt names the host's TPM; the head is in a file.
func (h *house) tpmAt(host string, m *tpmtest.TPM) {
	h.t.Helper()
	h.bind(fmt.Sprintf("head: {file: head.json}\ntpm: %q\n", m.Addr))
	h.write("vault.yaml", bytes.Replace(h.read("vault.yaml"), []byte("host: vault9"), []byte("host: "+host), 1))
}

// knows puts a host into the charter by the key in its TPM.
func (h *house) knows(host string) {
	h.t.Helper()
	b, _ := pem.Decode(h.read("state/host-tpm.pub"))
	if b == nil {
		h.t.Fatal("host-tpm.pub is no public key in PEM")
	}
	h.Approve(charter.TypeHost, charter.Host{ID: host, Key: b.Bytes})
	h.write("charter.jsonl", h.Charter)
}

// refuses wants a new attempt to end so, with a hint that says that.
func (h *house) refuses(want int, hint string) {
	h.t.Helper()
	if _, errs := h.vault(want, "unseal", "--new-attempt", "--out", "never.request"); !strings.Contains(errs, hint) {
		h.t.Errorf("%s", errs)
	}
	if _, err := os.Lstat(h.path("never.request")); err == nil {
		h.t.Error("a request was written")
	}
}

// A host whose key is in its TPM asks for shares, and the key masters' programs take its
// word: after a power cut, without any key in a file; not with another TPM, none, one
// in which somebody made another key, or with another authorisation.
func TestHostKeyInTheTPM(t *testing.T) {
	h := newHouse(t)
	m := tpmtest.Start(t)
	h.tpmAt("vault9", m)
	if out, _ := h.vault(0, "create"); !strings.Contains(out, "tpm host-key") {
		t.Errorf("create does not say that there is a TPM: %s", out)
	}
	out, _ := h.vault(0, "tpm", "host-key", "--json")
	var made struct{ Propose string }
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.vault(16, "tpm", "host-key")
	if st, err := os.Stat(h.path("state/host-tpm.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if st := h.status(); st.HostOK || len(st.Warnings) != 1 {
		t.Errorf("before it is in the charter: %+v", st)
	}
	if code, _, errs := h.run(strings.Fields(made.Propose)...); code != 0 {
		t.Errorf("what was printed: exit %d: %s", code, errs)
	}
	h.knows("vault9")
	for _, n := range []string{"host.key", "host.pub"} {
		if err := os.Remove(h.path("state/" + n)); err != nil {
			t.Fatal(err)
		}
	}
	s := h.serve()
	h.vault(15, "tpm", "host-key", "--replace")
	h.open(openrequest.Create, "master1", "master2", "master3")
	s.kill()
	m.Restart()
	h.tpmAt("vault9", m)
	s = h.serve()
	h.open(openrequest.Unseal, "master3", "master4", "master5")
	if st := h.status(); !st.HostOK || len(st.Warnings) != 0 {
		t.Errorf("%+v", st)
	}
	s.stop()

	good := h.read("state/host-tpm.json")
	var kept hostTPM
	if err := json.Unmarshal(good, &kept); err != nil || len(kept.Auth) != 32 || bytes.Contains(h.said.Bytes(), []byte(kept.Auth)) {
		t.Errorf("the authorisation is short, or was printed: %v", err)
	}
	h.write("state/host-tpm.json", bytes.Replace(good, []byte(kept.Auth), bytes.Repeat([]byte("0"), 32), 1))
	s = h.serve()
	h.refuses(13, "vault-tpm.md")
	s.stop()
	h.write("state/host-tpm.json", good)
	s = h.serve()
	m.Stop()
	h.refuses(19, "'The TPM is lost' in docs/operations/vault-tpm.md")
	s.stop()
	other := tpmtest.Start(t)
	h.tpmAt("vault9", other)
	s = h.serve()
	h.refuses(14, "'The host's key in the TPM' in docs/operations/vault-tpm.md")
	s.stop()
	h.vault(0, "tpm", "host-key", "--replace")
	replaced := h.read("state/host-tpm.json")
	h.write("state/host-tpm.json", good)
	s = h.serve()
	h.refuses(14, "made in another TPM")
	s.stop()
	h.write("state/host-tpm.json", replaced)
	s = h.serve()
	h.refuses(14, "") // made anew, it is not the charter's
	if st := h.status(); st.HostOK {
		t.Errorf("by another key: %+v", st)
	}
	s.stop()
}

// A vault that runs with a key in a file goes on with it beside a TPM, and beside a key
// in that TPM, until the charter knows the host by the latter, under another id.
func TestHostKeyMovesToTheTPM(t *testing.T) {
	h := newHouse(t)
	h.host()
	h.vault(2, "tpm", "host-key") // the binding names no TPM
	m := tpmtest.Start(t)
	h.tpmAt("vault9", m)
	s := h.serve()
	h.open(openrequest.Create, "master1", "master2", "master3")
	s.stop()
	h.vault(0, "tpm", "host-key")
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	h.knows("vault10")
	s.stop()
	h.tpmAt("vault10", m)
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	if st := h.status(); st.Host != "vault10" || !st.HostOK {
		t.Errorf("%+v", st)
	}
	s.stop()
	if err := os.Remove(h.path("state/host.key")); err != nil {
		t.Fatal(err)
	}
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	s.stop()
	good := h.read("state/host-tpm.json")
	for name, bad := range map[string]string{
		"cut":           string(good[:20]),
		"another world": strings.Replace(string(good), string(h.World.World), "rehearsal:otherworld", 1),
		"another key":   strings.Replace(string(good), `"public":"`, `"public":"AA`, 1),
		"a member more": strings.Replace(string(good), `"world"`, `"a":1,"world"`, 1),
	} {
		h.write("state/host-tpm.json", []byte(bad))
		if code, _, errs := h.run("keyrite-vault", "serve", "--bind", "vault.yaml", "--state-dir", "state"); code != 2 && code != 13 {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
	h.write("state/host-tpm.json", good)
	h.bind("head: {file: head.json}\n")
	if _, errs := h.vault(2, "serve"); !strings.Contains(errs, "names no TPM") {
		t.Errorf("%s", errs)
	}
	if err := os.Chmod(h.path("state/host-tpm.json"), 0o640); err != nil {
		t.Fatal(err)
	}
	h.vault(13, "serve")
}

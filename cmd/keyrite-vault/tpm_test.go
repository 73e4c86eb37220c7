package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"keyrite/artifact/openrequest"
	"keyrite/internal/tpm/tpmtest"
)

// headAt names a TPM as the keeper of the head.
func (h *house) headAt(m *tpmtest.TPM) {
	h.t.Helper()
	h.bind(fmt.Sprintf("head: {tpm: %q}\n", m.Addr))
}

// unsealed hands in the answers of three key masters, and wants that exit code.
func (h *house) unsealed(want int, operation string) string {
	h.t.Helper()
	for _, n := range []string{"x.request", "x.master1", "x.master2", "x.master3"} {
		_ = os.Remove(h.path(n))
	}
	h.vault(0, "unseal", "--new-attempt", "--operation", operation, "--out", "x.request")
	args := []string{"unseal"}
	for _, n := range []string{"master1", "master2", "master3"} {
		if code, text := h.answer("x.request", n, "x."+n); code != 0 {
			h.t.Fatalf("%s: exit %d: %s", n, code, text)
		}
		args = append(args, "--answer", "x."+n)
	}
	out, errs := h.vault(want, args...)
	return out + errs
}

func (s *serving) kill() {
	s.h.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.h.t.Fatal(err)
	}
	_ = s.cmd.Wait()
	s.h.alone(0)
}

// A vault whose head is in its host's TPM, with the programs alone: prepared, killed,
// after a power cut, with an older store, without its TPM, with another one, and taken
// over by a quorum.
func TestVaultWithATPM(t *testing.T) {
	h := newHouse(t)
	m := tpmtest.Start(t)
	h.headAt(m)
	h.host()
	if _, errs := h.vault(2, "serve"); !strings.Contains(errs, "tpm create") {
		t.Errorf("without indexes: %s", errs)
	}
	out, errs := h.vault(0, "tpm", "create", "--json")
	var made struct{ Indexes []string }
	if err := json.Unmarshal([]byte(out), &made); err != nil || len(made.Indexes) < 2 {
		t.Errorf("%v: %s%s", err, out, errs)
	}
	h.vault(16, "tpm", "create")
	auth := h.read("state/tpm.json")
	if st, err := os.Stat(h.path("state/tpm.json")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	s := h.serve()
	h.vault(15, "tpm", "create", "--replace")
	h.open(openrequest.Create, "master1", "master2", "master3")
	older := h.read("state/store/store.db")
	s.kill()

	m.Restart() // a power cut
	h.headAt(m)
	s = h.serve()
	h.open(openrequest.Unseal, "master3", "master4", "master5")
	s.stop()
	newest := h.read("state/store/store.db")

	h.write("state/store/store.db", older)
	s = h.serve()
	if text := h.unsealed(14, openrequest.Unseal); !strings.Contains(text, "older copy") {
		t.Errorf("an older store: %s", text)
	}
	h.write("state/store/store.db", newest)
	m.Stop()
	if text := h.unsealed(19, openrequest.Unseal); !strings.Contains(text, "the TPM does not answer") {
		t.Errorf("no TPM: %s", text)
	}
	s.stop()

	other := tpmtest.Start(t)
	h.headAt(other)
	s = h.serve()
	if text := h.unsealed(14, openrequest.Unseal); !strings.Contains(text, "rehead") {
		t.Errorf("another TPM: %s", text)
	}
	s.stop()
	h.vault(0, "tpm", "create")
	s = h.serve()
	if text := h.unsealed(14, openrequest.Unseal); !strings.Contains(text, "rehead") {
		t.Errorf("another TPM, prepared: %s", text)
	}
	h.open(openrequest.Rehead, "master1", "master2", "master5")
	if st := h.status(); st.Sealed || st.Operation != openrequest.Rehead {
		t.Errorf("%+v", st)
	}
	h.vault(0, "seal")
	s.ready()
	h.open(openrequest.Unseal, "master1", "master4", "master5")
	s.kill()
	h.bind("head: {file: head.json}\n") // by the configuration alone
	s = h.serve()
	if text := h.unsealed(13, openrequest.Unseal); !strings.Contains(text, "rehead") {
		t.Errorf("another keeper: %s", text)
	}
	s.stop()
	h.noCanary()
	var kept tpmState
	if err := json.Unmarshal(auth, &kept); err != nil || len(kept.Auth) != 32 {
		t.Fatalf("%v", err)
	}
	if bytes.Contains(h.said.Bytes(), []byte(kept.Auth)) {
		t.Error("the authorisation was printed")
	}
}

// What a binding and a state folder may not say about a TPM.
func TestDoubtfulTPM(t *testing.T) {
	h := newHouse(t)
	h.host()
	m := tpmtest.Start(t)
	h.vault(2, "tpm", "create") // the binding names none
	for name, c := range map[string]struct {
		head string
		exit int
	}{
		"two keepers":          {fmt.Sprintf("head: {file: head.json, tpm: %q}\n", m.Addr), 2},
		"nobody listens there": {`head: {tpm: "127.0.0.1:1"}` + "\n", 19},
		"no device":            {"head: {tpm: /dev/null}\n", 19},
		"a file":               {"head: {tpm: /etc/passwd}\n", 19},
	} {
		h.bind(c.head)
		if code, out, errs := h.run("keyrite-vault", "tpm", "create", "--bind", "vault.yaml", "--state-dir", "state"); code != c.exit {
			t.Errorf("%s: exit %d, want %d: %s%s", name, code, c.exit, out, errs)
		}
	}
	h.bind(fmt.Sprintf("head: {tpm: %q}\n", m.Addr))
	live := strings.Replace(string(h.read("vault.yaml")), "world: "+string(h.World.World), "world: live", 1)
	h.write("live.yaml", []byte(live))
	if code, _, errs := h.run("keyrite-vault", "tpm", "create", "--bind", "live.yaml", "--state-dir", "state"); code != 2 || !strings.Contains(errs, "can be put back") {
		t.Errorf("a socket in the live world: exit %d: %s", code, errs)
	}
	h.vault(0, "tpm", "create", "--replace")
	good := h.read("state/tpm.json")
	for name, bad := range map[string]string{
		"cut":           string(good[:20]),
		"another world": strings.Replace(string(good), string(h.World.World), "rehearsal:otherworld", 1),
		"short":         strings.Replace(string(good), `"auth":"`, `"auth":"","x":"`, 1),
		"a member more": strings.Replace(string(good), `"world"`, `"a":1,"world"`, 1),
	} {
		h.write("state/tpm.json", []byte(bad))
		if code, _, errs := h.run("keyrite-vault", "serve", "--bind", "vault.yaml", "--state-dir", "state"); code != 2 && code != 13 {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
	h.write("state/tpm.json", good)
	if err := os.Chmod(h.path("state/tpm.json"), 0o640); err != nil {
		t.Fatal(err)
	}
	h.vault(13, "serve")
}

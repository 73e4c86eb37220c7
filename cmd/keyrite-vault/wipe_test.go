package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"keyrite/artifact/openrequest"
	"keyrite/internal/clitest"
)

// TestSealWipes plants a canary as a value and reads the memory of the vault's processes:
// while it is open canary and data key stand in it, and the token's PIN beside it, in the
// HSM's processes alone. Once an operator or a client has sealed it, none of them stands
// anywhere, nor ever a share, and the HSM's processes are gone.
func TestSealWipes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("run as root: nobody else may look")
	}
	h := newHouse(t)
	c := newLine(h)
	s := h.serveClients(c)
	h.open(openrequest.Create, "master1", "master2", "master3")
	secrets := h.secrets()
	pid := s.cmd.Process.Pid
	for i, way := range []struct {
		by   string
		seal func()
	}{
		{"an operator", func() { h.vault(0, "seal") }},
		{"a client", func() {
			if code, body := c.ask(h, "PUT", "sys/seal", ""); code != 204 {
				t.Fatalf("seal: %d %v", code, body)
			}
		}},
	} {
		if i > 0 {
			h.open(openrequest.Unseal, "master3", "master4", "master5")
		}
		secrets["canary"] = fmt.Appendf(nil, "canary %s", rand.Text())
		write := fmt.Sprintf(`{"data":{"a":%q}}`, secrets["canary"])
		if code, body := c.ask(h, "PUT", "kv/data/line1/plc", write); code != 200 {
			t.Fatalf("write: %d %v", code, body)
		}
		if code, body := c.ask(h, "GET", "kv/data/line1/plc", ""); code != 200 || !bytes.Contains(fmt.Append(nil, body), secrets["canary"]) {
			t.Fatalf("read: %d %v", code, body)
		}
		h.whileOpen(pid, secrets)
		way.seal()
		s.ready()
		s.listeners(c)
		h.alone(1)
		if got := h.pids(); len(got) != 1 || got[0] != pid {
			t.Fatalf("sealed by %s: processes %v, want %d", way.by, got, pid)
		}
		for name := range h.standing(pid, secrets) {
			t.Errorf("sealed by %s: %s stands in the memory of the vault", way.by, name)
		}
	}
	s.stop()
}

// whileOpen wants every secret where it belongs: else the search finds nothing.
func (h *house) whileOpen(pid int, secrets map[string][]byte) {
	h.t.Helper()
	in, beside := h.standing(pid, secrets), map[string]bool{}
	for _, p := range h.pids() {
		if p != pid {
			for name := range h.standing(p, secrets) {
				beside[name] = true
			}
		}
	}
	own := h.standing(os.Getpid(), secrets)
	for name := range secrets {
		if want := name == "canary" || name == "data key"; in[name] != want {
			h.t.Errorf("open: %s in the vault's process: %v", name, in[name])
		}
		if want := name == "PIN"; beside[name] != want {
			h.t.Errorf("open: %s in the processes of the HSM: %v", name, beside[name])
		}
		if !own[name] {
			h.t.Errorf("%s is not found where it is for certain", name)
		}
	}
}

// secrets are data key, PIN and shares of a vault that was made.
func (h *house) secrets() map[string][]byte {
	h.t.Helper()
	var file struct {
		Wrapped []byte `json:"wrapped"`
	}
	if err := json.Unmarshal(h.read("state/store-key.work.1.json"), &file); err != nil {
		h.t.Fatal(err)
	}
	s := h.Secrets(file.Wrapped)
	out := map[string][]byte{"data key": s.DataKey, "PIN": s.PIN}
	for name, raw := range s.Shares {
		out["the share of "+name] = raw
	}
	for name, secret := range out {
		if len(secret) < 32 {
			h.t.Fatalf("%s has %d bytes", name, len(secret))
		}
	}
	return out
}

// standing names the secrets that stand in a process. Their second half is enough: the
// first bytes of what was freed are overwritten at once.
func (h *house) standing(pid int, secrets map[string][]byte) map[string]bool {
	h.t.Helper()
	found := map[string]bool{}
	clitest.SearchMemory(h.t, pid, 64, func(piece []byte) bool {
		for name, secret := range secrets {
			if !found[name] && bytes.Contains(piece, secret[len(secret)/2:]) {
				found[name] = true
			}
		}
		return false
	})
	return found
}

// pids are the processes of the house.
func (h *house) pids() []int {
	h.t.Helper()
	var out []int
	for _, p := range h.processes() {
		var pid int
		if _, err := fmt.Sscanf(p, "/proc/%d/exe", &pid); err != nil {
			h.t.Fatal(err)
		}
		out = append(out, pid)
	}
	return out
}

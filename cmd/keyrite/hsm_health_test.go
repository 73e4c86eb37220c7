package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// TestHSMHealth damages a key under a running program, and destroys one.
func TestHSMHealth(t *testing.T) {
	b := newBench(t)
	id, err := b.env.Supervisor.Find(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	s := b.env.Open(t, id)
	for i, label := range []string{"firmware", "log"} {
		if _, err := s.Generate(t.Context(), hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, uint64(i+1)), Label: label}); err != nil {
			t.Fatal(err)
		}
	}
	on := []string{"--json", "--module", hsmtest.Module(t), "--token", "work", "--pin-fd", "3"}
	code, inspected, errs := b.run(t, testPIN, "", append([]string{"hsm", "inspect"}, on...)...)
	if code != 0 {
		t.Fatalf("inspect: exit %d: %s", code, errs)
	}
	b.write(t, "work.json", inspected)
	b.write(t, "bare.json", `{"schema":"keyrite/hsm-inspect/v1","module":{"path":"","sha256":"","manufacturer":"","description":"","library_version":"","libraries":[]},"tokens":[]}`)
	health := func(pin string, more ...string) (int, string, string) {
		t.Helper()
		return b.run(t, pin, "", append(append([]string{"hsm", "health"}, on...), more...)...)
	}
	expecting := []string{"--expect", b.path("work.json")}

	code, out, errs := health(testPIN, expecting...)
	var res hsmHealthResult
	if err := json.Unmarshal([]byte(out), &res); code != 0 || err != nil || len(res.Keys) != 2 || res.Expected != 2 || res.Objects != 4 {
		t.Fatalf("a sound token: exit %d, %v, %s%s", code, err, out, errs)
	}
	// One look is one login: a second one would be a second try of the PIN.
	counting := b.env.Faults(t)
	if code, _, errs := b.run(t, testPIN, "", "hsm", "health", "--module", counting.Module, "--module-folder", b.env.Dir, "--token", "work", "--pin-fd", "3"); code != 0 {
		t.Fatalf("through another module: exit %d, %s", code, errs)
	}
	if calls, _ := counting.Calls(); calls[slices.Index(hsmtest.Functions(), "C_Login")] != 1 {
		t.Errorf("%d logins", calls[slices.Index(hsmtest.Functions(), "C_Login")])
	}
	refused := func(name string, exit int, text, pin string, more ...string) {
		t.Helper()
		code, out, errs := health(pin, more...)
		if code != exit || out != "" || !strings.HasPrefix(errs, `{"error":`) || !strings.Contains(errs, text) {
			t.Errorf("%s: exit %d (want %d), stdout %q, stderr %q", name, code, exit, out, errs)
		}
	}
	refused("wrong PIN", 12, "PIN", "9999999999")
	refused("no file", 2, "nothing.json", testPIN, "--expect", b.path("nothing.json"))
	refused("another file", 2, "inspect --json", testPIN, "--expect", b.path("conductor.key"))
	refused("a list of tokens", 2, "names no key", testPIN, "--expect", b.path("bare.json"))

	files, err := filepath.Glob(filepath.Join(b.env.TokenDir, "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if filepath.Base(f) == "token.object" {
			continue
		}
		whole, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, whole[:len(whole)-1], 0o600); err != nil {
			t.Fatal(err)
		}
		refused("cut "+filepath.Base(f), 14, `"kind":"damaged-file"`, testPIN, expecting...)
		refused("cut, nothing expected", 14, filepath.Base(f), testPIN)
		if err := os.WriteFile(f, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.env.Open(t, id).DestroyKey(t.Context(), hsm.NewKeyID(tag, 2)); err != nil {
		t.Fatal(err)
	}
	refused("destroyed", 14, `"kind":"missing-key"`, testPIN, expecting...)
	if code, _, errs := health(testPIN); code != 0 {
		t.Errorf("nothing expected: exit %d, %s", code, errs)
	}
}

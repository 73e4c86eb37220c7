package charter_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

const engineVectors = "../../testdata/vectors/charter-engines"

// engineCase is a statement about an engine, and what it is worth.
type engineCase struct {
	typ, expect string
	body        any
}

func kvConfig(edit func(*charter.KVConfig)) charter.KVConfig {
	c := charter.KVConfig{MaxVersions: 10, Mount: "kv", Version: 1}
	if edit != nil {
		edit(&c)
	}
	return c
}

// engineCases are statements that follow a charter with the mounts of withEngines.
func engineCases() map[string]engineCase {
	out := map[string]engineCase{}
	kv := func(name, expect string, edit func(*charter.KVConfig)) {
		out["kv-config-"+name] = engineCase{charter.TypeKVConfig, expect, kvConfig(edit)}
	}
	kv("least", "ok", nil)
	kv("whole", "ok", func(c *charter.KVConfig) {
		c.CASRequired, c.DeleteVersionAfter, c.MaxVersions = true, charter.MaxKVSeconds, charter.MaxKVVersions
	})
	kv("no-mount", "verify", func(c *charter.KVConfig) { c.Mount = "" })
	kv("unknown-mount", "verify", func(c *charter.KVConfig) { c.Mount = "elsewhere" })
	kv("mount-of-another-engine", "verify", func(c *charter.KVConfig) { c.Mount = "tokens" })
	kv("no-versions", "verify", func(c *charter.KVConfig) { c.MaxVersions = 0 })
	kv("too-many-versions", "verify", func(c *charter.KVConfig) { c.MaxVersions = charter.MaxKVVersions + 1 })
	kv("negative-life", "verify", func(c *charter.KVConfig) { c.DeleteVersionAfter = -1 })
	kv("life-too-long", "verify", func(c *charter.KVConfig) { c.DeleteVersionAfter = charter.MaxKVSeconds + 1 })
	kv("version-0", "verify", func(c *charter.KVConfig) { c.Version = 0 })
	kv("version-skipped", "verify", func(c *charter.KVConfig) { c.Version = 2 })
	maps.Copy(out, trailCases())
	return out
}

// withEngines is a vault with one mount of each of these engines.
func withEngines(t *testing.T) *vault {
	t.Helper()
	v := newVault(t)
	for id, engine := range map[string]string{"kv": "kv", "tokens": "token", "passwords": "password"} {
		v.decide(charter.TypeMount, charter.Mount{Engine: engine, ID: id})
	}
	return v
}

// What approvers say of an engine is whole and of that engine, or the charter does
// not hold; one approver alone says nothing.
func TestEngineStatements(t *testing.T) {
	v := withEngines(t)
	for name, c := range engineCases() {
		got := "ok"
		if err := v.propose(c.typ, c.body); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != c.expect {
			t.Errorf("%s: %s, want %s", name, got, c.expect)
		}
		if err := v.try(c.typ, c.body, "approver1"); fault.ClassOf(err) != fault.Quorum {
			t.Errorf("%s by one approver: %v", name, err)
		}
	}
}

// A later configuration replaces the one before it, in order, and ends with its mount.
func TestKVConfigFollows(t *testing.T) {
	v := withEngines(t)
	v.decide(charter.TypeKVConfig, kvConfig(nil))
	if err := v.propose(charter.TypeKVConfig, kvConfig(nil)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("version 1 again: %v", err)
	}
	v.decide(charter.TypeKVConfig, kvConfig(func(c *charter.KVConfig) { c.Version, c.MaxVersions = 2, 3 }))
	if c := v.refold().KV["kv"]; c.MaxVersions != 3 || c.Version != 2 {
		t.Errorf("in force: %+v", c)
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "kv", Type: charter.TypeMount})
	if n := len(v.refold().KV); n != 0 {
		t.Errorf("%d configurations of mounts that ended", n)
	}
}

// Each vector is a statement that follows charter.jsonl beside it.
func TestEngineVectors(t *testing.T) {
	if *update {
		v := withEngines(t)
		v.Save(engineVectors)
		for name, c := range engineCases() {
			artifacttest.WriteVector(t, engineVectors, artifacttest.Vector{Name: name, Expect: c.expect, Body: v.line(c.typ, c.body, "approver1", "approver2")}, strings.ReplaceAll(name, "-", " "))
		}
	}
	a, _ := artifacttest.Load(t, engineVectors)
	lines, err := os.ReadFile(filepath.Join(engineVectors, "charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, x := range artifacttest.Vectors(t, engineVectors) {
		have[x.Name] = true
		got := "ok"
		if _, err := charter.Fold(slices.Concat(lines, x.Body, []byte("\n")), a.World, a.Vault); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != x.Expect {
			t.Errorf("%s: %s, want %s", x.Name, got, x.Expect)
		}
	}
	for name := range engineCases() {
		if !have[name] {
			t.Errorf("no vector %s: go test -run TestEngineVectors -update", name)
		}
	}
}

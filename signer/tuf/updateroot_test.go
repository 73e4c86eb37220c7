package tuf_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/updateroot"
	"keyrite/signer/tuf"
)

var update = flag.Bool("update", false, "make the vectors again")

const rootVectors = "../../testdata/vectors/updateroot"

// twins puts dormant twins of all keys in the charter.
func (b *bench) twins() *bench {
	b.Later("tuf-root-2", "tuf-root", "tuf-root")
	return b
}

// check reads a root as the record's verifier does.
func check(data []byte, c *charter.State) error {
	r, err := updateroot.Parse(data)
	if err != nil {
		return err
	}
	return r.Check(c)
}

// TestRecordVerifierAgreesOnRoots: what the writer makes is taken, and what the writer
// would not have made is refused by both for the same class of reason.
func TestRecordVerifierAgreesOnRoots(t *testing.T) {
	b := newBench(t).twins()
	good := b.makeRoot(1, "tuf-root", "approver1", "approver2")
	roots := map[string][]byte{
		"good":        good,
		"one-person":  b.makeRoot(1, "tuf-root", "approver2"),
		"second":      b.makeRoot(2, "tuf-root", "approver1"),
		"people-only": b.makeRoot(1, "approver1", "approver2"),
		"tokens-only": b.makeRoot(1, "tuf-root", "tuf-root-2"),
		"twin-only":   b.makeRoot(1, "tuf-root-2", "approver1"),
	}
	edit := func(name string, change func(s *tuf.RootSpec), by ...string) {
		spec := b.spec(1)
		change(spec)
		data, err := b.assemble(spec, by...)
		if err != nil {
			t.Fatal(err)
		}
		roots[name] = data
	}
	last := func(s *tuf.RootSpec) *tuf.RootKey { return &s.Root[len(s.Root)-1] }
	edit("stranger", func(s *tuf.RootSpec) { last(s).Public = b.Keys["pipeline1"].Public() }, "tuf-root", "approver1")
	edit("approver-left-out", func(s *tuf.RootSpec) { s.Root = s.Root[:len(s.Root)-1] }, "tuf-root", "approver1")
	edit("higher-threshold", func(s *tuf.RootSpec) { s.Need = 3 }, "tuf-root", "approver1", "approver2")
	edit("other-targets", func(s *tuf.RootSpec) { s.Targets = b.Keys["pipeline1"].Public() }, "tuf-root", "approver1")
	edit("other-online", func(s *tuf.RootSpec) { s.Online = b.Keys["pipeline1"].Public() }, "tuf-root", "approver1")
	edit("other-world", func(s *tuf.RootSpec) { s.World = "rehearsal:zzzzzzzz" }, "tuf-root", "approver1")
	for name, data := range roots {
		want, got := tuf.CheckRoot(data, b.State), check(data, b.State)
		if fault.ClassOf(want) != fault.ClassOf(got) {
			t.Errorf("%s: the writer says %v, the record's verifier %v", name, want, got)
		}
		if ok := slices.Contains([]string{"good", "one-person", "second"}, name); ok != (got == nil) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, data := range spoiled(t, good) {
		if err := check(data, b.State); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
		roots[name] = data
	}
	if !*update {
		return
	}
	b.Save(rootVectors)
	for _, name := range slices.Sorted(maps.Keys(roots)) {
		expect := "ok"
		if err := check(roots[name], b.State); err != nil {
			expect = string(fault.ClassOf(err))
		}
		artifacttest.WriteVector(t, rootVectors, artifacttest.Vector{Name: name, Expect: expect, Body: roots[name]}, "an update root: "+strings.ReplaceAll(name, "-", " "))
	}
}

// spoiled are altered spellings and signatures of a root.
func spoiled(t *testing.T, good []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"cut": good[:len(good)-1], "trailing": append(slices.Clone(good), '\n'), "blank": bytes.Replace(good, []byte(":"), []byte(": "), 1), "empty": {}}
	out["repeated-member"] = bytes.Replace(good, []byte(`"version":1`), []byte(`"version":1,"version":1`), 1)
	change := func(name string, f func(m map[string]any)) {
		var m map[string]any
		dec := json.NewDecoder(bytes.NewReader(good))
		dec.UseNumber()
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		f(m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = data
	}
	sigs := func(m map[string]any) []any { return m["signatures"].([]any) }
	inner := func(m map[string]any) map[string]any { return m["signed"].(map[string]any) }
	change("signature-twice", func(m map[string]any) { m["signatures"] = append(sigs(m), sigs(m)[0]) })
	change("flipped-signature", func(m map[string]any) {
		s := sigs(m)[0].(map[string]any)
		s["sig"] = strings.Repeat("0", len(s["sig"].(string)))
	})
	change("stranger-signs-too", func(m map[string]any) {
		m["signatures"] = append(sigs(m), map[string]any{"keyid": strings.Repeat("ab", 32), "sig": "00"})
	})
	change("later-version", func(m map[string]any) { inner(m)["version"] = 9 })
	change("unknown-member", func(m map[string]any) { inner(m)["more"] = 1 })
	change("no-world", func(m map[string]any) { delete(inner(m), "x-keyrite-world") })
	change("threshold-zero", func(m map[string]any) { inner(m)["roles"].(map[string]any)["root"].(map[string]any)["threshold"] = 0 })
	change("key-under-another-id", func(m map[string]any) {
		keys := inner(m)["keys"].(map[string]any)
		ids := slices.Sorted(maps.Keys(keys))
		keys[ids[0]], keys[ids[1]] = keys[ids[1]], keys[ids[0]]
	})
	change("key-null", func(m map[string]any) {
		keys := inner(m)["keys"].(map[string]any)
		keys[slices.Sorted(maps.Keys(keys))[0]] = nil
	})
	return out
}

// TestNextRoot: a root follows another only if those who trust that one would take it.
func TestNextRoot(t *testing.T) {
	b := newBench(t).twins()
	parse := func(data []byte) *updateroot.Root {
		t.Helper()
		r, err := updateroot.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := b.makeRoot(1, "tuf-root", "approver1")
	spec := b.spec(2)
	spec.Root[len(spec.Root)-1].Public, spec.Root[len(spec.Root)-2].Public = b.Keys["pipeline1"].Public(), b.Keys["firmware"].Public()
	strangers, err := b.assemble(spec, "tuf-root", "pipeline1", "firmware")
	if err != nil {
		t.Fatal(err)
	}
	other := newBench(t)
	foreign := other.makeRoot(1, "tuf-root", "approver1")
	for name, x := range map[string]struct {
		before, next []byte
		class        fault.Class
	}{
		"next":             {first, b.makeRoot(2, "tuf-root", "approver2"), ""},
		"the same again":   {first, first, fault.Verify},
		"one left out":     {first, b.makeRoot(3, "tuf-root", "approver1"), fault.Verify},
		"by others":        {first, strangers, fault.Quorum},
		"foreign before":   {foreign, b.makeRoot(2, "tuf-root", "approver1"), fault.Policy},
		"no token before":  {b.makeRoot(1, "approver1", "approver2"), b.makeRoot(2, "tuf-root", "approver1"), fault.Verify},
		"foreign after it": {first, other.makeRoot(2, "tuf-root", "approver1"), fault.Policy},
	} {
		got := parse(x.before).Next(parse(x.next), b.State)
		if (got == nil) != (x.class == "") || got != nil && fault.ClassOf(got) != x.class {
			t.Errorf("%s: %v", name, got)
		}
		if theirs := tuf.CheckNext(x.before, x.next); theirs != nil && got == nil {
			t.Errorf("%s: the writer says %v", name, theirs)
		}
	}
}

package charter_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/trail"
)

const auditVectors = "../../testdata/vectors/audit"

// madeTrail is a vault's log in memory.
type madeTrail struct {
	t      *testing.T
	st     *charter.State
	leaves [][]byte
	tree   tlog.Tree
}

func (m *madeTrail) Entry(n uint64) ([]byte, error) { return m.leaves[n], nil }
func (m *madeTrail) Prove(n uint64, size int64) ([]tlog.Hash, error) {
	return m.tree.Prove(int64(n), size)
}

func (m *madeTrail) add(e trail.Entry) {
	m.t.Helper()
	e.Format, e.Charter = trail.Format, m.st.Size()
	e.Time = trail.FormatTime(time.Unix(1.8e9+int64(len(m.leaves)), 0))
	raw, err := jcs.Marshal(e)
	if err == nil {
		raw, err = jcs.Marshal(trail.Leaf{Entry: raw, Seq: uint64(len(m.leaves)), State: strings.Repeat("0", 64)})
	}
	if err == nil {
		err = m.tree.Append(raw)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.leaves = append(m.leaves, raw)
}

// extract is the whole trail, or the entries with these numbers, signed by log and
// cosigned by the rest.
func (m *madeTrail) extract(signers string, numbers ...uint64) []byte {
	m.t.Helper()
	cp := tlog.Checkpoint{Origin: trail.Origin(m.st.Vault), World: m.st.World, Size: m.tree.Size(), Root: m.tree.Root()}
	var note []byte
	var err error
	for i, name := range strings.Fields(signers) {
		seed := sha256.Sum256([]byte("NOT SECRET " + name))
		key := ed25519.NewKeyFromSeed(seed[:])
		if i == 0 {
			note, err = tlog.Sign(cp, name, key)
		} else {
			note, err = tlog.Cosign(note, name, key, time.Unix(1.8e9, 0))
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	var out bytes.Buffer
	h := trail.Header{Vault: m.st.Vault, World: m.st.World, Checkpoint: note}
	if numbers == nil {
		err = trail.WriteWhole(&out, h, cp.Size, m)
	} else {
		err = trail.WriteSome(&out, h, cp.Size, m, numbers)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return out.Bytes()
}

// newTrail is a trail with one entry of each kind; head is what it says that its
// charter was.
func newTrail(t *testing.T, st *charter.State, head string) *madeTrail {
	m := &madeTrail{t: t, st: st}
	two := uint64(3)
	m.add(trail.Entry{Kind: trail.Life, Operation: trail.OpCreate})
	m.add(trail.Entry{Kind: trail.Life, Operation: trail.OpCharter, Result: map[string]any{"size": st.Size(), "head": head}})
	m.add(trail.Entry{Kind: trail.Request, Operation: "read", Identity: "mes", Means: "certificate", Path: "kv/data/line1/plc", Request: "0a"})
	m.add(trail.Entry{Kind: trail.Intent, Operation: "update", Identity: "ci", Means: "jwt", Path: "transit/sign/log", Request: "0b", Params: map[string]any{"sha256": strings.Repeat("0", 64)}})
	m.add(trail.Entry{Kind: trail.Result, Operation: "update", Identity: "ci", Means: "jwt", Path: "transit/sign/log", Request: "0b", Intent: &two})
	m.add(trail.Entry{Kind: trail.Refused, Operation: "update", Identity: "mes", Path: "transit/sign/log", Request: "0c", Class: "policy", Error: "not allowed"})
	m.add(trail.Entry{Kind: trail.Request, Operation: "update", Identity: "ci", Means: "jwt", Path: trail.CharterPath, Request: "0d", Result: map[string]any{"size": st.Size(), "head": head}})
	return m
}

func auditCases(t *testing.T, st *charter.State) map[string]artifacttest.Vector {
	m := newTrail(t, st, st.Head())
	good, both := m.extract("vault1 watch1"), "vault1 watch1 watch2"
	return map[string]artifacttest.Vector{
		"whole":                 {Expect: "ok", Body: good},
		"cosigned-by-two":       {Expect: "ok", Body: m.extract(both)},
		"some":                  {Expect: "ok", Body: m.extract(both, 1, 4)},
		"last":                  {Expect: "ok", Body: m.extract(both, 5)},
		"not-cosigned":          {Expect: "quorum", Body: m.extract("vault1")},
		"cosigned-twice-by-1":   {Expect: "verify", Body: m.extract("vault1 watch1 watch1")},
		"cosigned-by-nobody":    {Expect: "verify", Body: m.extract("vault1 watch3")},
		"another-log-key":       {Expect: "verify", Body: m.extract("vault2 watch1")},
		"an-entry-less":         {Expect: "verify", Body: bytes.Join(slices.Delete(bytes.SplitAfter(good, []byte("\n")), 3, 4), nil)},
		"an-entry-changed":      {Expect: "verify", Body: bytes.Replace(good, []byte("line1/plc"), []byte("line2/plc"), 1)},
		"an-entry-twice":        {Expect: "verify", Body: bytes.Join(slices.Insert(bytes.SplitAfter(good, []byte("\n")), 3, bytes.SplitAfter(good, []byte("\n"))[3]), nil)},
		"some-out-of-order":     {Expect: "verify", Body: m.extract(both, 4, 1)},
		"whole-said-of-some":    {Expect: "verify", Body: bytes.Replace(m.extract(both, 1, 4), []byte(`"whole":false`), []byte(`"whole":true`), 1)},
		"with-a-blank":          {Expect: "verify", Body: bytes.Replace(good, []byte(`,"whole"`), []byte(`, "whole"`), 1)},
		"another-world":         {Expect: "policy", Body: bytes.Replace(good, []byte(`"world":"rehearsal:`), []byte(`"world":"rehearsal:0`), 1)},
		"under-another-charter": {Expect: "verify", Body: newTrail(t, st, strings.Repeat("0", 64)).extract(both)},
	}
}

// TestAuditVectors: each is an extract under charter.jsonl beside it. What the
// trail says of its charter is compared by keyrite-verify, which reads the same.
func TestAuditVectors(t *testing.T) {
	if *update {
		v := newVault(t)
		v.decide(charter.TypeAuditLog, trailCases()["audit-log-whole"].body)
		v.Save(auditVectors)
		for name, x := range auditCases(t, v.refold()) {
			x.Name, x.Body = name, bytes.TrimSuffix(x.Body, []byte("\n"))
			artifacttest.WriteVector(t, auditVectors, x, strings.ReplaceAll(name, "-", " "))
		}
	}
	_, st := artifacttest.Load(t, auditVectors)
	n := 0
	for _, x := range artifacttest.Vectors(t, auditVectors) {
		n++
		got := "ok"
		_, err := trail.Verify(bytes.NewReader(append(x.Body, '\n')), st.TrailSigners(), func(_ uint64, e *trail.Entry) error {
			size, head, ok, err := e.TookOver()
			if err != nil || !ok {
				return err
			}
			return st.CheckHead(size, head)
		})
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != x.Expect {
			t.Errorf("%s: %s, want %s (%v)", x.Name, got, x.Expect, err)
		}
	}
	if want := len(auditCases(t, st)); n != want {
		t.Errorf("%d vectors, want %d: go test -run TestAuditVectors -update", n, want)
	}
}

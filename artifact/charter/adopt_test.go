package charter_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

const (
	voidRecord = "keyrite/record/0123456789abcdef"
	vectorDir  = "../../testdata/vectors/charter"
)

var update = flag.Bool("update", false, "write the vectors anew")

func voidRoot() string { return strings.Repeat("ab", 32) }

// adopted is an epoch of a safe as a void ceremony dealt it.
func (v *vault) adopted(safe string, n int, edit func(*charter.EpochAdopted)) charter.EpochAdopted {
	v.t.Helper()
	x := charter.EpochAdopted{Epoch: v.epoch(safe, n), Record: voidRecord, Root: voidRoot()}
	if edit != nil {
		edit(&x)
	}
	return x
}

// wrongEpochs are epochs that cannot be adopted after epoch 1 of safe work, by why.
func (v *vault) wrongEpochs() map[string]charter.EpochAdopted {
	v.t.Helper()
	old := v.State.Epochs["work"]
	of := func(edit func(*charter.EpochAdopted)) charter.EpochAdopted { return v.adopted("work", 2, edit) }
	return map[string]charter.EpochAdopted{
		"skipped":       v.adopted("work", 3, nil),
		"in-force":      v.adopted("work", 1, nil),
		"never-dealt":   v.adopted("root", 1, nil),
		"unknown-safe":  of(func(x *charter.EpochAdopted) { x.Safe = "elsewhere" }),
		"another-token": of(func(x *charter.EpochAdopted) { x.Token.Serial = "1" }),
		"old-share":     of(func(x *charter.EpochAdopted) { x.Shares[0].Public = old.Shares[0].Public }),
		"share-twice":   of(func(x *charter.EpochAdopted) { x.Shares[1].Public = x.Shares[0].Public }),
		"holder-twice":  of(func(x *charter.EpochAdopted) { x.Shares[1].Holder = x.Shares[0].Holder }),
		"holders-mixed": of(func(x *charter.EpochAdopted) {
			x.Shares[0].Holder, x.Shares[1].Holder = x.Shares[1].Holder, x.Shares[0].Holder
		}),
		"nobodys-share":  of(func(x *charter.EpochAdopted) { x.Shares[0].Holder = "" }),
		"index":          of(func(x *charter.EpochAdopted) { x.Shares[0].Index = 2 }),
		"no-share-key":   of(func(x *charter.EpochAdopted) { x.Shares[0].Public = nil }),
		"threshold-1":    of(func(x *charter.EpochAdopted) { x.Need = 1 }),
		"threshold-high": of(func(x *charter.EpochAdopted) { x.Need = len(x.Shares) + 1 }),
		"no-shares":      of(func(x *charter.EpochAdopted) { x.Shares = []charter.Share{} }),
		"no-record":      of(func(x *charter.EpochAdopted) { x.Record = "" }),
		"record-as-path": of(func(x *charter.EpochAdopted) { x.Record = "keyrite/record/../../etc" }),
		"no-root":        of(func(x *charter.EpochAdopted) { x.Root = "" }),
	}
}

// An adopted epoch follows the one in force, in its token, and is good for nothing but
// to be followed: until the safe is dealt anew it is stale, whoever holds the shares.
func TestAdoptedEpochsThatFailClosed(t *testing.T) {
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	v.must(charter.TypeEpoch, v.epoch("work", 1), by...)
	for name, x := range v.wrongEpochs() {
		if err := v.try(charter.TypeEpochAdopted, x, by...); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := v.adopted("work", 2, nil)
	for _, few := range [][]string{{"approver1"}, {"approver1", "master1"}, {"master1", "master2", "master3"}} {
		if err := v.try(charter.TypeEpochAdopted, good, few...); err == nil {
			t.Errorf("signed by %v", few)
		}
	}
	if err := v.try(charter.TypeEpoch, good, by...); err == nil {
		t.Error("told as an epoch of its own")
	}
	v.must(charter.TypeEpochAdopted, good, by...)
	if e := v.State.Epochs["work"]; e.Epoch != 2 || !v.State.Stale("work") {
		t.Errorf("epoch %d, stale %v", e.Epoch, v.State.Stale("work"))
	}
	if err := v.try(charter.TypeEpochAdopted, good, by...); err == nil {
		t.Error("adopted twice")
	}
	// A void ceremony that adopted may have left the next: two may follow each other.
	v.must(charter.TypeEpochAdopted, v.adopted("work", 3, func(x *charter.EpochAdopted) { x.Record = "keyrite/record/fedcba9876543210" }), by...)
	v.must(charter.TypeEpoch, v.epoch("work", 4), by...)
	if v.State.Stale("work") {
		t.Error("the safe was dealt anew")
	}
}

// Who holds the shares of an adopted epoch was decided in a ceremony that is void: it
// may be others than the openers, and a threshold that was to be.
func TestAdoptedEpochOfOthers(t *testing.T) {
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	v.must(charter.TypeEpoch, v.epoch("work", 1), by...)
	v.must(charter.TypeEpochAdopted, v.adopted("work", 2, func(x *charter.EpochAdopted) { x.Shares[4].Holder, x.Need = "master6", 2 }), by...)
	v.must(charter.TypeEpoch, v.epoch("work", 3), by...)
	if e := v.State.Epochs["work"]; v.State.Stale("work") || e.Shares[4].Holder != "master5" || e.Need != 3 {
		t.Errorf("%+v, stale %v", e, v.State.Stale("work"))
	}
}

// A key is adopted once, by approvers, from a record, and only one that is in force.
func TestAdoptedKeysThatFailClosed(t *testing.T) {
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	for _, safe := range []string{"work", "root"} {
		v.must(charter.TypeEpoch, v.epoch(safe, 1), by...)
	}
	good := charter.KeyAdopted{ID: "firmware", Record: voidRecord, Root: voidRoot(), Safe: "root"}
	v.must(charter.TypeKeyRetired, charter.KeyRetired{ID: "acceptance", Reason: "retired", Record: voidRecord}, by...)
	for name, x := range map[string]charter.KeyAdopted{
		"unknown key": {ID: "nobody", Record: voidRecord, Root: voidRoot(), Safe: "root"}, "retired key": {ID: "acceptance", Record: voidRecord, Root: voidRoot(), Safe: "root"},
		"unknown safe": {ID: "firmware", Record: voidRecord, Root: voidRoot(), Safe: "elsewhere"}, "where it is": {ID: "firmware", Record: voidRecord, Root: voidRoot(), Safe: "work"},
		"no record": {ID: "firmware", Root: voidRoot(), Safe: "root"}, "no root": {ID: "firmware", Record: voidRecord, Safe: "root"},
	} {
		if err := v.try(charter.TypeKeyAdopted, x, by...); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.try(charter.TypeKeyAdopted, good, "approver1"); err == nil {
		t.Error("signed by one")
	}
	v.must(charter.TypeKeyAdopted, good, by...)
	if k := v.State.Keys["firmware"]; k.Token != v.State.Epochs["root"].Token {
		t.Errorf("it is in %+v", k.Token)
	}
	if err := v.try(charter.TypeKeyAdopted, good, by...); err == nil {
		t.Error("adopted twice")
	}
}

func writeVectors(t *testing.T) {
	t.Helper()
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	for _, safe := range []string{"work", "root"} {
		v.must(charter.TypeEpoch, v.epoch(safe, 1), by...)
	}
	put := func(name, expect, comment, typ string, body any, by ...string) {
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: v.line(typ, body, by...)}, comment)
	}
	wrong := v.wrongEpochs()
	v.Save(vectorDir)
	good := v.adopted("work", 2, nil)
	put("epoch-adopted", "ok", "an epoch that a void ceremony dealt", charter.TypeEpochAdopted, good, by...)
	put("epoch-adopted-others", "ok", "dealt to somebody who was to come", charter.TypeEpochAdopted, v.adopted("work", 2, func(x *charter.EpochAdopted) { x.Shares[4].Holder = "master6" }), by...)
	put("epoch-adopted-one-signature", "quorum", "signed by one approver", charter.TypeEpochAdopted, good, by[0])
	put("epoch-adopted-as-epoch", "verify", "told as if it had been dealt in a closed ceremony", charter.TypeEpoch, good, by...)
	for name, x := range wrong {
		put("epoch-adopted-"+name, "verify", strings.ReplaceAll(name, "-", " "), charter.TypeEpochAdopted, x, by...)
	}
	put("key-adopted", "ok", "a key that a void transfer left in another safe's token", charter.TypeKeyAdopted, charter.KeyAdopted{ID: "firmware", Record: voidRecord, Root: voidRoot(), Safe: "root"}, by...)
	put("key-adopted-where-it-is", "verify", "a key that is there already", charter.TypeKeyAdopted, charter.KeyAdopted{ID: "firmware", Record: voidRecord, Root: voidRoot(), Safe: "work"}, by...)
	put("key-adopted-unknown", "verify", "a key that the charter does not know", charter.TypeKeyAdopted, charter.KeyAdopted{ID: "nobody", Record: voidRecord, Root: voidRoot(), Safe: "work"}, by...)
}

// Each vector is a statement that follows charter.jsonl beside it.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	a, _ := artifacttest.Load(t, vectorDir)
	lines, err := os.ReadFile(filepath.Join(vectorDir, "charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, x := range artifacttest.Vectors(t, vectorDir) {
		_, err := charter.Fold(slices.Concat(lines, x.Body, []byte("\n")), a.World, a.Vault)
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != x.Expect {
			t.Errorf("%s: %s (%v), want %s", x.Name, got, err, x.Expect)
		}
		n++
	}
	if n < 20 {
		t.Errorf("%d vectors", n)
	}
}

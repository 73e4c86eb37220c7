package charter_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/world"
)

// upTo is a log's first n lines.
func upTo(log []byte, n int) []byte {
	return bytes.Join(append(slices.Clip(bytes.SplitAfterN(log, []byte("\n"), n+1)[:n]), nil), nil)
}

// folds are what Fold gave, by what it was given: one log is compared with many times.
type folds map[[3]string]folded

type folded struct {
	state *charter.State
	err   error
}

func (f folds) fold(log []byte, w world.World, vault string) folded {
	key := [3]string{string(log), string(w), vault}
	x, ok := f[key]
	if !ok {
		x.state, x.err = charter.Fold(log, w, vault)
		f[key] = x
	}
	return x
}

// same wants from FoldOn what Fold gives: the same state to the last member, or the same
// error.
func (f folds) same(t *testing.T, name string, before *charter.State, log []byte, w world.World, vault string) {
	t.Helper()
	want := f.fold(log, w, vault)
	got, err := charter.FoldOn(before, log, w, vault)
	if fmt.Sprint(err) != fmt.Sprint(want.err) || !reflect.DeepEqual(got, want.state) {
		t.Errorf("%s: on %d statements it is another: %v, want %v", name, before.Size(), err, want.err)
	}
}

// TestFoldOnIsFold: for every cut of every charter of the vectors, followed by each
// statement that holds there or does not, folding on gives what folding all gives, and
// leaves the state before as it was. So do charters that do not begin with it.
func TestFoldOnIsFold(t *testing.T) {
	dirs, err := filepath.Glob("../../testdata/vectors/charter*")
	if err != nil || len(dirs) < 7 {
		t.Fatalf("%d folders: %v", len(dirs), err)
	}
	for _, dir := range dirs {
		a, _ := artifacttest.Load(t, dir)
		log, err := os.ReadFile(filepath.Join(dir, "charter.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		fold := func(data []byte) *charter.State {
			t.Helper()
			s, err := charter.Fold(data, a.World, a.Vault)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		known := folds{}
		n := bytes.Count(log, []byte("\n"))
		for cut := 1; cut <= n; cut++ {
			before := fold(upTo(log, cut))
			known.same(t, dir, before, log, a.World, a.Vault)
			known.same(t, dir+", shorter", before, upTo(log, cut-1), a.World, a.Vault)
			known.same(t, dir+", cut off", before, log[:len(log)-1], a.World, a.Vault)
			known.same(t, dir+", of another vault", before, log, a.World, "00")
			known.same(t, dir+", of another world", before, log, "live", a.Vault)
			altered := bytes.Clone(log)
			altered[len(upTo(log, cut))-20] ^= 1 // in the line before the cut
			known.same(t, dir+", altered", before, altered, a.World, a.Vault)
			if !reflect.DeepEqual(before, known.fold(upTo(log, cut), a.World, a.Vault).state) {
				t.Fatalf("%s: the state of %d statements was changed", dir, cut)
			}
		}
		before := fold(log)
		for _, x := range artifacttest.Vectors(t, dir) {
			known.same(t, dir+"/"+x.Name, before, slices.Concat(log, x.Body, []byte("\n")), a.World, a.Vault)
		}
		if !reflect.DeepEqual(before, fold(log)) {
			t.Errorf("%s: the state was changed by a statement", dir)
		}
	}
}

// TestFoldOnTwice: two that go on from one state, with what grows in it, get nothing of
// each other.
func TestFoldOnTwice(t *testing.T) {
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	for n := range 3 { // a slice of them has room for a fourth
		v.must(charter.TypeEpoch, v.epoch("work", n+1), by...)
	}
	before := v.refold()
	logs := [2][]byte{}
	for i := range logs {
		logs[i] = slices.Concat(v.Charter, v.line(charter.TypeEpoch, v.epoch("work", 4), by...), []byte("\n"))
	}
	var got [2]*charter.State
	for i, log := range logs {
		var err error
		if got[i], err = charter.FoldOn(before, log, v.World.World, v.Anchors.Vault); err != nil {
			t.Fatal(err)
		}
	}
	for i, log := range logs {
		want, err := charter.Fold(log, v.World.World, v.Anchors.Vault)
		if err != nil || !reflect.DeepEqual(got[i], want) {
			t.Errorf("the %d. is another: %v", i+1, err)
		}
	}
}

// TestFoldOnSharesNoMap: a state that goes on has no map of the one before, and no room in
// a slice of it, whichever member is added to State.
func TestFoldOnSharesNoMap(t *testing.T) {
	v := withAccess(t)
	got, err := charter.FoldOn(v.State, v.Charter, v.World.World, v.Anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	var compare func(path string, a, b reflect.Value)
	compare = func(path string, a, b reflect.Value) {
		switch a.Kind() {
		case reflect.Struct:
			for i := range a.NumField() {
				compare(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
			}
		case reflect.Map:
			found++
			if !a.IsNil() && a.Pointer() == b.Pointer() {
				t.Errorf("%s is shared", path)
			}
		case reflect.Slice:
			replaced := strings.Contains(path, ".People") || strings.Contains(path, ".Genesis") || strings.Contains(path, ".tree")
			if b.Cap() > b.Len() && a.Pointer() == b.Pointer() && !replaced {
				t.Errorf("%s has room that is shared", path)
			}
		}
	}
	compare("State", reflect.ValueOf(v.State).Elem(), reflect.ValueOf(got).Elem())
	if found < 40 {
		t.Errorf("%d maps", found)
	}
}

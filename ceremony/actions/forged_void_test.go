package actions

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
)

// rechain writes a void transcript with a correct chain over whatever list says. A
// killed ceremony has no checkpoint, so nobody's signature stands in the way.
func (x *tiny) rechain(t *testing.T, dir string, list []entry) {
	t.Helper()
	x.forgeAs(t, dir, list)
	if err := os.Remove(filepath.Join(dir, record.CheckpointFile)); err != nil {
		t.Fatal(err)
	}
}

// nth is the n-th entry of a type, from 0.
func nth(t *testing.T, l []entry, typ string, n int) int {
	t.Helper()
	for i := range l {
		if l[i].Type == typ {
			if n == 0 {
				return i
			}
			n--
		}
	}
	t.Fatalf("no entry %s", typ)
	return 0
}

// edits are ways to change a list of entries.
type edits struct{ *testing.T }

func (t edits) drop(typ string, n int) func([]entry) []entry {
	return func(l []entry) []entry { i := nth(t.T, l, typ, n); return slices.Delete(l, i, i+1) }
}

func (t edits) set(typ string, n int, edit func(d map[string]any)) func([]entry) []entry {
	return func(l []entry) []entry { edit(l[nth(t.T, l, typ, n)].Data); return l }
}

func inside(d map[string]any, names ...string) map[string]any {
	for _, n := range names {
		d, _ = d[n].(map[string]any)
	}
	return d
}

func firstOf(v any) map[string]any {
	l, _ := v.([]any)
	m, _ := l[0].(map[string]any)
	return m
}

// Everything in a void record is checked before it may prove an epoch. Each of these
// is a way to have it say more than happened (R-CER-9, R-CER-14).
func TestForgedVoidRecordIsRefused(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	void := x.stuck(t, "void")
	founded, err := verifyOwn(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	lines := slurp(t, x.dir)["outputs/charter.jsonl"]
	stranger := tinyOf(t, tinyScript).dir // the same names, other keys
	e := edits{t}
	inForce := func(v any) func([]entry) []entry {
		return e.set("cleanup", 0, func(d map[string]any) { d["in_force"] = v })
	}
	tests := map[string]struct {
		edit func(l []entry) []entry
		text string
	}{
		"nothing changed": {func(l []entry) []entry { return l }, ""},
		"his share instead of one that was dealt": {e.set("dealt", 0, func(d map[string]any) {
			theirs := entries(t, stranger)
			firstOf(inside(d, "epoch")["shares"])["public"] = firstOf(inside(theirs[nth(t, theirs, "dealt", 0)].Data, "epoch")["shares"])["public"]
		}), ""},
		"dealt to another": {e.set("dealt", 0, func(d map[string]any) { firstOf(inside(d, "epoch")["shares"])["holder"] = "approver1" }), ""},
		"a lower threshold": {func(l []entry) []entry { // as if there had been three
			return e.set("dealt", 0, func(d map[string]any) { inside(d, "epoch")["need"] = 1 })(l)
		}, "not those of its next epoch"},
		"an epoch skipped": {e.set("dealt", 0, func(d map[string]any) { inside(d, "epoch")["epoch"] = 3 }), ""},
		"an epoch skipped everywhere": {func(l []entry) []entry {
			for i := range l {
				switch l[i].Type {
				case "dealt":
					inside(l[i].Data, "epoch")["epoch"] = 3
				case "pins-changed":
					l[i].Data["epoch"] = 3
				case "intent":
					if l[i].Data["effect"] == "repin" {
						l[i].Data["epoch"] = 3
					}
				case "cleanup":
					l[i].Data["in_force"] = "work/3"
				}
			}
			return l
		}, ""},
		"a receipt less": {e.drop("receipt", 0), "before master1 gave a receipt"},
		"a receipt copied": {func(l []entry) []entry {
			i, j := nth(t, l, "receipt", 0), nth(t, l, "receipt", 1)
			l[j].Data["envelope"] = l[i].Data["envelope"]
			return l
		}, ""},
		"a receipt for the share before": {func(l []entry) []entry {
			theirs := entries(t, x.dir)
			l[nth(t, l, "receipt", 0)].Data["envelope"] = theirs[nth(t, theirs, "receipt", 0)].Data["envelope"]
			return l
		}, ""},
		"PINs changed without the old shares":  {func(l []entry) []entry { return e.drop("opening", 2)(e.drop("opening", 2)(l)) }, "without its shares"},
		"PINs changed with too few old shares": {e.drop("opening", 3), "without the 2 shares"},
		"old shares of another step": {func(l []entry) []entry {
			i, j := nth(t, l, "opening", 0), nth(t, l, "opening", 2)
			l[j].Data["envelope"] = l[i].Data["envelope"]
			return l
		}, ""},
		"PINs not announced":           {func(l []entry) []entry { return e.drop("pins-changed", 0)(e.drop("intent", 1)(l)) }, "no PINs were announced"},
		"in force: what was not dealt": {inForce("work/3"), "no PINs were announced"},
		"in force: another safe":       {inForce("root/2"), "no PINs were announced"},
		"in force and burned":          {e.set("cleanup", 0, func(d map[string]any) { d["burned"] = []any{"work/2"} }), "contradicts itself"},
		"in force in a tainted token":  {e.set("cleanup", 0, func(d map[string]any) { d["tainted"] = "gone" }), "contradicts itself"},
		"of a safe not opened":         {e.set("cleanup", 0, func(d map[string]any) { d["safe"], d["in_force"] = "root", "root/2" }), ""},
		"a key kept":                   {e.set("cleanup", 0, func(d map[string]any) { d["kept"] = []any{"firmware 00"} }), "was kept"},
		"another record's name":        {e.set("open", 0, func(d map[string]any) { d["record"] = "0123456789abcdef" }), ""},
		"another attempt":              {e.set("open", 0, func(d map[string]any) { d["attempt"] = "0123456789abcdef" }), ""},
		"another script":               {e.set("open", 0, func(d map[string]any) { d["script_hash"] = strings.Repeat("0", 64) }), "not the script that ran"},
		"another charter":              {e.set("open", 0, func(d map[string]any) { inside(d, "base")["charter_head"] = strings.Repeat("0", 64) }), ""},
		"a charter still to come":      {e.set("open", 0, func(d map[string]any) { inside(d, "base")["charter_size"] = 99 }), ""},
		"other anchors":                {e.set("open", 0, func(d map[string]any) { inside(d, "base")["anchors"] = strings.Repeat("0", 64) }), "other anchors"},
		"a witness less": {func(l []entry) []entry {
			return slices.DeleteFunc(l, func(e entry) bool { return e.Data["name"] == "witness2" || e.Data["path"] == "people/witness2.person" })
		}, "is not listed"},
		"not cleaned up": {func(l []entry) []entry { return l[:nth(t, l, "cleanup", 0)] }, "was not cleaned up"},
		"closed after all": {func(l []entry) []entry {
			l = l[:nth(t, l, "incident", 0)]
			end := l[len(l)-1]
			for _, s := range []string{"SEALING", "CLOSED"} {
				l = append(l, entry{Time: end.Time, Mono: end.Mono, Type: "state", Data: map[string]any{"cause": "", "state": s}})
			}
			return append(l, entry{Time: end.Time, Mono: end.Mono, Type: "end", Data: map[string]any{"cause": "", "state": "CLOSED"}})
		}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			forged := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(forged, os.DirFS(void)); err != nil {
				t.Fatal(err)
			}
			x.rechain(t, forged, tt.edit(entries(t, forged)))
			v, err := record.VerifyVoid(os.DirFS(forged), founded.Anchors, lines)
			if name == "nothing changed" {
				if err != nil || len(v.Left.Epochs) != 1 || v.Signed != "" {
					t.Fatalf("the forger's own tools break it: %v", err)
				}
				return
			}
			if v != nil || fault.ClassOf(err) != fault.Verify && fault.ClassOf(err) != fault.Void && fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%s), want %q", err, fault.ClassOf(err), tt.text)
			}
		})
	}
	t.Run("signed by its conductor", func(t *testing.T) {
		signed := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(signed, os.DirFS(void)); err != nil {
			t.Fatal(err)
		}
		x.forgeAs(t, signed, entries(t, signed))
		if v, err := record.VerifyVoid(os.DirFS(signed), founded.Anchors, lines); err != nil || v.Signed != "conductor" {
			t.Errorf("not signed: %v", err)
		}
	})
	t.Run("signed by nobody who was there", func(t *testing.T) {
		forged := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(forged, os.DirFS(void)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(forged, record.CheckpointFile), slurp(t, stranger)[record.CheckpointFile], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := record.VerifyVoid(os.DirFS(forged), founded.Anchors, lines); fault.ClassOf(err) != fault.Verify {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a world of its own", func(t *testing.T) {
		other := *founded.Anchors
		other.World = world.World("rehearsal:otherworld")
		if _, err := record.VerifyVoid(os.DirFS(void), &other, lines); fault.ClassOf(err) != fault.Policy {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another vault", func(t *testing.T) { otherVault(t, void, stranger, lines) })
}

// otherVault wants a void record to prove nothing to another vault of the same world, with
// either's charter.
func otherVault(t *testing.T, void, stranger string, lines []byte) {
	t.Helper()
	theirs, err := verifyOwn(stranger)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		anchors *anchor.Anchors
		lines   []byte
	}{{theirs.Anchors, lines}, {theirs.Anchors, slurp(t, stranger)["outputs/charter.jsonl"]}} {
		if v, err := record.VerifyVoid(os.DirFS(void), tt.anchors, tt.lines); v != nil || err == nil {
			t.Errorf("got %v", err)
		}
	}
}

// A record of an adopting reshare that somebody forged, with every signature at its
// end, is refused by what it says and by what lies in it: nobody's epoch is moved
// without as many of its shares as it takes, and nobody's is moved in silence.
func TestForgedAdoptionIsRefused(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	void := x.stuck(t, "void")
	dir, v := x.closes(t, "adopting", void)
	e := edits{t}
	base := func(edit func(b map[string]any)) func([]entry) []entry {
		return e.set("open", 0, func(d map[string]any) { edit(inside(d, "base")) })
	}
	adopted := func(edit func(a map[string]any)) func([]entry) []entry {
		return base(func(b map[string]any) { edit(firstOf(inside(b, "adopts")["epochs"])) })
	}
	tests := map[string]struct {
		edit func([]entry) []entry
		text string
	}{
		"nothing changed":            {func(l []entry) []entry { return l }, ""},
		"a share less":               {e.drop("opening", 1), "with 1 shares"},
		"a share less at the change": {e.drop("opening", 3), "with 1 shares"},
		"no share at all":            {func(l []entry) []entry { return e.drop("opening", 0)(e.drop("opening", 0)(l)) }, ""},
		"opened with the old epoch":  {e.set("intent", 0, func(d map[string]any) { d["epoch"] = 1 }), "epoch 1"},
		"openings of the void one": {func(l []entry) []entry {
			theirs := entries(t, void)
			for n := range 2 {
				l[nth(t, l, "opening", n)].Data["envelope"] = theirs[nth(t, theirs, "opening", n)].Data["envelope"]
			}
			return l
		}, ""},
		"the epoch after next": {adopted(func(a map[string]any) { a["epoch"] = 3 }), "does not adopt what"},
		"of another safe":      {adopted(func(a map[string]any) { a["safe"] = "root" }), "does not adopt what"},
		"of another root":      {adopted(func(a map[string]any) { a["root"] = strings.Repeat("0", 64) }), "does not adopt what"},
		"of another record":    {adopted(func(a map[string]any) { a["record"] = "0123456789abcdef" }), "does not adopt what"},
		"twice": {base(func(b map[string]any) {
			a := inside(b, "adopts")
			l, _ := a["epochs"].([]any)
			a["epochs"] = append(l, l...)
		}), "does not adopt what"},
		"nothing named": {base(func(b map[string]any) {
			inside(b, "adopts")["epochs"] = []any{}
		}), "does not adopt what"},
		"not said": {base(func(b map[string]any) { delete(b, "adopts") }), ""},
		"a key besides": {base(func(b map[string]any) {
			inside(b, "adopts")["keys"] = []any{map[string]any{"id": "firmware", "record": "0123456789abcdef", "root": strings.Repeat("0", 64), "safe": "work"}}
		}), "does not adopt what"},
		"after nothing":           {e.set("open", 0, func(d map[string]any) { d["after"] = nil }), "names no void one"},
		"after another":           {e.set("open", 0, func(d map[string]any) { inside(d, "after")["root"] = strings.Repeat("0", 64) }), "is not the one that it follows"},
		"of a kind that does not": {e.set("open", 0, func(d map[string]any) { d["kind"] = "retire" }), ""},
		"the void record left out": {func(l []entry) []entry {
			return slices.DeleteFunc(l, func(x entry) bool {
				p, _ := x.Data["path"].(string)
				return strings.HasPrefix(p, record.AfterDir)
			})
		}, "is not listed"},
		"its statement left out": {e.drop("statement", 0), "are new"},
		"told as its own":        {e.set("statement", 0, func(d map[string]any) { d["type"] = "epoch" }), "otherwise than it is"},
		"dealt epoch 2 again":    {e.set("dealt", 0, func(d map[string]any) { inside(d, "epoch")["epoch"] = 2 }), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			forgery{x.house, dir, v.Anchors, []string{"witness1", "witness2", "master1", "master2"}}.refused(t, tt.edit, tt.text, name == "nothing changed")
		})
	}
	t.Run("a byte of the void record", func(t *testing.T) {
		a := newAltered(t, dir)
		flips(t, a, 997)
		for name := range a.files {
			if strings.HasPrefix(name, record.AfterDir) {
				if _, err := a.verify(name, append(slices.Clone(a.files[name]), '\n')); fault.ClassOf(err) != fault.Verify {
					t.Errorf("%s, longer by a byte: %v", name, err)
				}
			}
		}
	})
	t.Run("the void record altered and listed again", func(t *testing.T) {
		to := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		after := filepath.Join(to, filepath.FromSlash(record.AfterDir))
		l := entries(t, after)
		l[nth(t, l, "cleanup", 0)].Data["left"] = 1
		x.rechain(t, after, l)
		outer := entries(t, to)
		m := &twoRecords{house: x.house}
		m.put(t, to, outer, record.AfterDir+"/"+record.TranscriptFile, slurp(t, after)[record.TranscriptFile])
		x.forgeAs(t, to, outer, "witness1", "witness2", "master1", "master2")
		if _, err := record.Verify(os.DirFS(to), v.Anchors); fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), "is not the one that it follows") {
			t.Errorf("got %v", err)
		}
	})
}

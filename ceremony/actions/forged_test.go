package actions

import (
	"slices"
	"strings"
	"testing"
)

// A record of a reshare that somebody forged, with every signature at its end, is
// refused by what it says: nothing of a later kind is verified laxer than a genesis.
func TestForgedReshareIsRefused(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	dir, err := x.reshare(t, "reshare")
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifyOwn(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	// at is the n-th entry of a type, from 0.
	at := func(l []entry, typ string, n int) int {
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
	drop := func(typ string, n int) func([]entry) []entry {
		return func(l []entry) []entry { i := at(l, typ, n); return slices.Delete(l, i, i+1) }
	}
	set := func(typ string, n int, edit func(d map[string]any)) func([]entry) []entry {
		return func(l []entry) []entry { edit(l[at(l, typ, n)].Data); return l }
	}
	base := func(edit func(b map[string]any)) func([]entry) []entry {
		return set("open", 0, func(d map[string]any) {
			b, _ := d["base"].(map[string]any)
			edit(b)
		})
	}
	tests := map[string]struct {
		edit func([]entry) []entry
		text string
	}{
		"nothing changed":            {func(l []entry) []entry { return l }, ""},
		"a share less":               {drop("opening", 1), "with 1 shares"},
		"a share less at the change": {drop("opening", 3), "with 1 shares"},
		"no share at all":            {func(l []entry) []entry { return drop("opening", 0)(drop("opening", 0)(l)) }, ""},
		"no share at the change":     {func(l []entry) []entry { return drop("opening", 2)(drop("opening", 2)(l)) }, "without its shares"},
		"a share twice":              {func(l []entry) []entry { i := at(l, "opening", 0); return slices.Insert(l, i, l[i]) }, "given twice"},
		"a share of somebody else": {set("opening", 0, func(d map[string]any) { // they stand in no certain order
			d["holder"] = map[any]string{"master1": "master2"}[d["holder"]]
		}), ""},
		"a share given for another step": {func(l []entry) []entry {
			i, j := at(l, "opening", 0), at(l, "opening", 2)
			l[i].Data["envelope"] = l[j].Data["envelope"]
			return l
		}, "another operation"},
		"opened without an intent": {func(l []entry) []entry {
			l = drop("intent", 0)(l)
			return slices.DeleteFunc(l, func(e entry) bool { return e.Type == "admission" })
		}, "without an intent"},
		"opened under a report of another token": {func(l []entry) []entry {
			signReport(t, &l[at(l, "admission", 0)], x.people["conductor"], func(r map[string]any) { r["token"].(map[string]any)["serial"] = "0" })
			return l
		}, "is of another token"},
		"opened without a report": {drop("admission", 0), "without an admission"},
		"opened under two reports": {func(l []entry) []entry {
			i := at(l, "admission", 0)
			return slices.Insert(l, i, l[i])
		}, "admitted twice"},
		"opened with another epoch": {set("intent", 0, func(d map[string]any) { d["epoch"] = 2 }), "epoch 2"},
		"opened in another token": {func(l []entry) []entry {
			for i := range l {
				if tok, ok := l[i].Data["token"].(map[string]any); ok && l[i].Type == "intent" {
					tok["serial"] = "0"
				}
			}
			return l
		}, ""},
		"PINs not announced":         {drop("intent", 1), "out of order"},
		"PINs announced for epoch 1": {set("intent", 1, func(d map[string]any) { d["epoch"] = 1 }), "another token"},
		"PINs not changed":           {drop("pins-changed", 0), "not those dealt"},
		"PINs of epoch 1":            {set("pins-changed", 0, func(d map[string]any) { d["epoch"] = 1 }), "of epoch 1"},
		"a receipt less":             {drop("receipt", 0), "before master1 gave a receipt"},
		"nothing dealt":              {drop("dealt", 0), ""},
		"dealt epoch 3": {set("dealt", 0, func(d map[string]any) {
			e, _ := d["epoch"].(map[string]any)
			e["epoch"] = 3
		}), ""},
		"no base":                 {set("open", 0, func(d map[string]any) { delete(d, "base") }), "names the vault"},
		"base of other anchors":   {base(func(b map[string]any) { b["anchors"] = strings.Repeat("0", 64) }), "other anchors"},
		"base of another charter": {base(func(b map[string]any) { b["charter_head"] = strings.Repeat("0", 64) }), ""},
		"base that is shorter":    {base(func(b map[string]any) { b["charter_size"] = 1 }), ""},
		"base of nothing":         {base(func(b map[string]any) { b["charter_size"] = 0 }), "names the vault"},
		"kind genesis":            {set("open", 0, func(d map[string]any) { d["kind"] = "genesis" }), "names the vault"},
		"kind new-key":            {set("open", 0, func(d map[string]any) { d["kind"] = "new-key" }), "has no step"},
		"kind unknown":            {set("open", 0, func(d map[string]any) { d["kind"] = "repair" }), "unknown kind"},
		"statement not recorded":  {drop("statement", 0), "are new"},
		"statement of a key":      {set("statement", 0, func(d map[string]any) { d["type"] = "key" }), "states nothing"},
		"statement twice":         {func(l []entry) []entry { i := at(l, "statement", 0); return slices.Insert(l, i, l[i]) }, "are new"},
		"words of something else": {set("words", 0, func(d map[string]any) { d["words"] = "aardvark" }), "not those of charter.jsonl"},
		"only the anchors read":   {set("words", 0, func(d map[string]any) { d["what"] = "anchors.json" }), "never read aloud"},
		"a witness less": {func(l []entry) []entry {
			return slices.DeleteFunc(l, func(e entry) bool { return e.Data["name"] == "witness2" || e.Data["path"] == "people/witness2.person" })
		}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			forgery{x.house, dir, v.Anchors, []string{"witness1", "witness2", "master1", "master2"}}.refused(t, tt.edit, tt.text, name == "nothing changed")
		})
	}
}

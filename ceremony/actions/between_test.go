package actions

import (
	"os"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/vault/charterstore"
)

// What approvers appended to the charter between two ceremonies stands in the
// second one's, and its record verifies from the genesis' anchors.
func TestCharterGoesOnBetweenCeremonies(t *testing.T) {
	t.Parallel()
	f := found(t)
	path := f.path("charter.jsonl")
	data, err := os.ReadFile(f.newest + "/outputs/charter.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	fold := func() *charter.State {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := charter.Fold(data, f.anchors.World, f.anchors.Vault)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	before := fold()
	known := before.Pipelines["pipeline1"]
	proposal, err := charterstore.New(fold(), charter.TypePipeline, charter.Pipeline{ID: "pipeline2", Key: known.Key, Products: []string{"gw900"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p, err := charterstore.Open(proposal, fold())
	if err != nil {
		t.Fatal(err)
	}
	approvals := map[string][]byte{}
	_, approvers := p.Need()
	for _, name := range approvers {
		if approvals[name], err = charterstore.Approve(p, f.people[name]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := charterstore.Append(path, f.anchors.World, f.anchors.Vault, proposal, approvals); err != nil {
		t.Fatal(err)
	}
	v := f.later(t, plan{kind: "new-key", bind: func(b *Bind) { b.Charter = path }})
	if got, ok := v.Charter.Pipelines["pipeline2"]; !ok || got.Products[0] != "gw900" {
		t.Errorf("the ceremony's charter has pipelines %v", v.Charter.Pipelines)
	}
	if v.Open.Base.CharterSize != before.Size()+1 || v.Charter.Size() != before.Size()+2 {
		t.Errorf("base of %d statements, %d after it, from %d", v.Open.Base.CharterSize, v.Charter.Size(), before.Size())
	}
	// The one after it must not fall back behind what was appended.
	if _, err := f.try(t, plan{kind: "retire", record: "behind", bind: func(b *Bind) { b.Charter = f.path("old.jsonl") }}); err == nil {
		t.Error("a charter that is not there was accepted")
	}
	if err := os.WriteFile(f.path("old.jsonl"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try(t, plan{kind: "retire", record: "behind2", bind: func(b *Bind) { b.Charter = f.path("old.jsonl") }}); err == nil {
		t.Error("a charter from before the last ceremony was accepted")
	}
}

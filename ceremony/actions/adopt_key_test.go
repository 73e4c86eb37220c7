package actions

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/hsm/hsmtest"
)

// finding is a reshare of the two safes that looks for the key which a void transfer
// left in the second.
const finding = `format: keyrite/script/v1
kind: reshare
title: Finding
purpose: take over what a void transfer left
pins: {keyrite: @KEYRITE@, hsmd: @HSMD@, module: @MODULE@}
environment: {network: any, swap: any}
roles: {conductor: 1, conductor_operates: true, key_masters: {need: 3, of: 5}, witnesses: 2, approvers: {need: 2, of: 2}}
safes: [{name: work, token: tok, state: existing}, {name: work2, token: tok-2, state: existing}]
existing: [{id: traveller, safe: work}]
summon:
  - {id: "1.1", do: environment.check, title: t, limit: 10m}
  - {id: "1.2", do: people.identify, title: t, limit: 10m}
  - {id: "1.3", do: vault.load, title: t, limit: 10m}
run:
  - {id: "2.1", do: safe.open, safe: work, title: t, limit: 10m}
  - {id: "2.2", do: safe.open, safe: work2, title: t, limit: 10m}
  - {id: "2.3", do: key.find, key: traveller, safe: work, to: work2, title: t, limit: 10m, confirm: [witness]}
  - {id: "3.1", do: shares.deal, safe: work, title: t, limit: 10m}
  - {id: "3.2", do: shares.receipts, safe: work, title: t, limit: 10m}
  - {id: "3.3", do: token.repin, safe: work, title: t, limit: 10m}
  - {id: "4.1", do: shares.deal, safe: work2, title: t, limit: 10m}
  - {id: "4.2", do: shares.receipts, safe: work2, title: t, limit: 10m}
  - {id: "4.3", do: token.repin, safe: work2, title: t, limit: 10m}
  - {id: "5.1", do: charter.append, title: t, limit: 10m}
seal:
  - {id: "6.1", do: outputs.write, title: t, limit: 10m}
  - {id: "6.2", do: read.aloud, title: t, limit: 10m}
`

// find holds that reshare after a void ceremony.
func (h *house) find(t *testing.T, label, after, incident string, on func(*Bind)) (string, error) {
	t.Helper()
	h.after = after
	defer func() { h.after = "" }()
	return h.perform(t, label, finding, incident, on)
}

// A transfer that is void after the key was destroyed where it was leaves it where it
// went. The next ceremony finds it there, makes it sign, and the charter says so; what
// is left of it where it was is destroyed.
func TestAdoptsTheKeyOfAVoidTransfer(t *testing.T) {
	t.Parallel()
	h, on, first := foundTwoSafes(t)
	void, err := h.perform(t, "void", transferScript(t, "traveller"), "incident: {step: \"5.3\", by: witness1, reason: a stranger came in}\n", on)
	if fault.ClassOf(err) != fault.Void || !strings.Contains(fault.HintOf(err), "Key traveller is in the token of safe work2") {
		t.Fatalf("got %v, hint %q", err, fault.HintOf(err))
	}
	if there := h.labels(t, "work2", first); there["traveller"] != 2 {
		t.Fatalf("safe work2 holds %v", there)
	}
	if _, err := h.perform(t, "plain", transferScript(t, "traveller"), "", on); fault.ClassOf(err) != fault.Void {
		t.Errorf("the transfer again: %v", err)
	}
	if _, err := h.find(t, "nothing", "", "", on); fault.ClassOf(err) != fault.Usage {
		t.Errorf("key.find without a void ceremony: %v", err)
	}
	if _, err := h.find(t, "its-charter", void, "", func(b *Bind) { on(b); b.Charter = void + "/outputs/charter.jsonl" }); fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), "holds a statement that was made in it") {
		t.Errorf("with the charter that the void ceremony wrote out: %v", err)
	}
	// Void too, after it was found: nothing is lost, and the next one finds it again.
	again, err := h.find(t, "again", void, "incident: {step: \"3.1\", by: conductor, reason: the lamp fell}\n", on)
	if fault.ClassOf(err) != fault.Void {
		t.Fatal(err)
	}
	h.noShares(t, 2)
	dir, err := h.find(t, "found", again, "", on)
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if k := v.Charter.Keys["traveller"]; k.Token.Label != "tok-2" || v.Charter.Epochs["work2"].Epoch != 2 {
		t.Errorf("the charter has it in %s, epoch %d", k.Token.Label, v.Charter.Epochs["work2"].Epoch)
	}
	want := record.AdoptedKey{ID: "traveller", Record: v.Open.Base.Adopts.Keys[0].Record, Root: v.Open.Base.Adopts.Keys[0].Root, Safe: "work2"}
	st, err := ceremony.ReadState(void)
	if err != nil || st.Record != want.Record || st.Root != want.Root || !slices.Equal(v.Open.Base.Adopts.Keys, []record.AdoptedKey{want}) {
		t.Errorf("adopts %+v", v.Open.Base.Adopts)
	}
	if _, err := record.Verify(os.DirFS(first), v.Anchors); err != nil {
		t.Errorf("the genesis under the same anchors: %v", err)
	}
	h.forgedFind(t, dir)
}

// noShares removes the shares of an epoch that was burned.
func (h *house) noShares(t *testing.T, epoch int) {
	t.Helper()
	later, err := filepath.Glob(h.path("shares-all/*/*.epoch" + itoa(epoch) + ".share"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range later {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

// forgedFind has everybody sign a search that did not happen as it should.
func (h *house) forgedFind(t *testing.T, dir string) {
	t.Helper()
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := edits{t}
	for _, tc := range []struct {
		name, text string
		edit       func(l []entry) []entry
	}{
		{"nothing", "", func(l []entry) []entry { return l }},
		{"it was not found", "", e.drop("found", 0)},
		{"it did not sign", "destroyed before it is proven", e.drop("possession", 0)},
		{"nobody looked where it was", "still where it was", e.drop("removed", 0)},
		{"another key", "", e.set("found", 0, func(d map[string]any) { inside(d, "key")["id"] = "home" })},
		{"another object", "", e.set("found", 0, func(d map[string]any) { d["object"] = strings.Repeat("0", 32) })},
		{"it can leave again", "CKA_EXTRACTABLE", e.set("found", 0, func(d map[string]any) {
			list, _ := d["arrived"].([]any)
			for _, a := range list {
				if a, ok := a.(map[string]any); ok && a["name"] == "CKA_EXTRACTABLE" {
					a["got"], a["wanted"] = "true", "true"
				}
			}
		})},
		{"it is where it was", "", e.set("found", 0, func(d map[string]any) { d["to"] = d["from"] })},
		{"nothing was to be adopted", "", e.set("open", 0, func(d map[string]any) { delete(inside(d, "base"), "adopts") })},
		{"adopted from nowhere", "names no void one", e.set("open", 0, func(d map[string]any) { d["after"] = nil })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			forgery{h, dir, v.Anchors, everybody()}.refused(t, tc.edit, tc.text, tc.name == "nothing")
		})
	}
}

// A transfer that was killed around the destruction, also between its announcement and
// its effect, leaves a key that is found, and nothing of it where it was.
func TestAdoptsTheKeyOfAKilledTransfer(t *testing.T) {
	t.Parallel()
	h, on, _ := foundTwoSafes(t)
	dir := h.path("record-killed")
	h.killedTransfer(t, "killed", on, entryOf("intent", `"effect":"destroy","key":"traveller"`))
	// The charter may have grown since, by what concerns neither safe nor key.
	h.write(t, "grown.jsonl", h.grown(t, slurp(t, h.path("record-genesis"))["outputs/charter.jsonl"]))
	now, err := h.find(t, "found", dir, "", func(b *Bind) { on(b); b.Charter = "grown.jsonl" })
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, now, "witness2")
	v, err := verifyOwn(now)
	if err != nil || v.Charter.Keys["traveller"].Token.Label != "tok-2" || len(v.Charter.Pipelines) != 1 {
		t.Fatal(err)
	}
}

// grown is a charter with one more statement, as approvers append it between ceremonies.
func (h *house) grown(t *testing.T, lines []byte) []byte {
	t.Helper()
	s := &charter.State{}
	for line := range bytes.Lines(lines) {
		if err := s.Apply(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			t.Fatal(err)
		}
	}
	pub, _ := pem.Decode(slurp(t, h.dir)["pipeline1.pem"])
	return append(slices.Concat(lines, h.approved(t, s, charter.TypePipeline, charter.Pipeline{ID: "late", Key: pub.Bytes, Products: []string{"gw1"}})), '\n')
}

// approved is the next statement of a charter, signed by both approvers.
func (h *house) approved(t *testing.T, s *charter.State, typ string, body any) []byte {
	t.Helper()
	payload, err := s.Propose(typ, body, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	env, err := envelope.Sign(charter.PayloadType, payload, h.people["approver1"].Signer(), h.people["approver2"].Signer())
	if err != nil {
		t.Fatal(err)
	}
	line, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// A token that hangs while the key which was found signs does not outlast the step: the
// ceremony ends VOID and cleaned by itself, the key stays where it was found, and the
// next one finds it there (R-CER-14).
func TestKeyFindEndsWithItsStep(t *testing.T) {
	t.Parallel()
	st := newStand(t)
	h := st.house
	h.env.Config.Module = st.faults.Module
	faulty := func(b *Bind) { b.Module, b.Sandbox = st.faults.Module, BindSandbox{Folders: []string{h.env.Dir}} }
	st.faults.Reset(0, 0, 0)
	first, err := h.perform(t, "genesis", twoSafes, "", func(b *Bind) {
		faulty(b)
		b.Tokens = map[string]string{"work": "fresh", "work2": "fresh"}
	})
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, first, "witness2")
	on := func(b *Bind) {
		faulty(b)
		continues(first)(b)
	}
	void, err := h.perform(t, "void", transferScript(t, "traveller"), "incident: {step: \"5.3\", by: witness1, reason: a stranger came in}\n", on)
	if fault.ClassOf(err) != fault.Void {
		t.Fatal(err)
	}
	h.after = void
	st.faults.Reset(slices.Index(hsmtest.Functions(), "C_Sign"), 1, hsmtest.Hang)
	short := strings.Replace(finding, "to: work2, title: t, limit: 10m", "to: work2, title: t, limit: 5s", 1)
	hung, err := h.perform(t, "hung", short, "", on)
	state, stErr := ceremony.ReadState(hung)
	if _, hangs := st.faults.Calls(); !hangs || fault.ClassOf(err) != fault.Void || stErr != nil || state.State != "VOID" || !state.Ended || !strings.Contains(state.Cause, "2.3") {
		t.Fatalf("hung %v: %v, %+v, %v", hangs, err, state, stErr)
	}
	st.faults.Reset(0, 0, 0)
	h.noShares(t, 2)
	h.after = hung
	dir, err := h.perform(t, "found", finding, "", on)
	if err != nil {
		t.Fatal(err)
	}
	h.after = ""
	h.cosign(t, dir, "witness2")
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if k := v.Charter.Keys["traveller"]; k.Token.Label != "tok-2" {
		t.Errorf("the charter has it in %s", k.Token.Label)
	}
}

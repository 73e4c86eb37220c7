package actions

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/artifact/trace"
)

// inField takes the lines of a shipped script that tell the field of new keys.
func inField(text string) string { return strings.ReplaceAll(text, "#+field ", "") }

// statement is the binding that continues the newest succession statement.
func (f *founded) statement() func(*Bind) {
	file := filepath.Join(f.newest, record.OutputsDir, "succession.json")
	return func(b *Bind) { b.Successions = file }
}

// TestNewKeyIsKnownInTheField makes a release key for one product: verifiers that
// hold the anchors of the genesis know it by a statement of both root tokens, and by
// nothing less.
func TestNewKeyIsKnownInTheField(t *testing.T) {
	t.Parallel()
	f := found(t)
	one := func(text string) string { return cutLines(oneLineSafes(inField(text)), "root2", "succession-2") }
	if _, err := f.try(t, plan{kind: "new-key", record: "one", edit: one}); causeOf(err) != fault.Quorum || !strings.Contains(err.Error(), "both") {
		t.Errorf("one succession key brings in a key: %v", err)
	}
	v := f.later(t, plan{kind: "new-key", edit: inField})
	data := f.output(t, "succession.json")
	s, err := succession.Verify(data, f.anchors)
	if err != nil || len(s.Added) != 1 || s.Counter != 1 || !slices.Equal(s.Signers(), []string{"succession", "succession-2"}) || v.Succession == nil {
		t.Fatalf("statement: %+v, %v", s, err)
	}
	eff, err := succession.Apply(f.anchors, s)
	if err != nil {
		t.Fatal(err)
	}
	k, _, err := eff.Key("firmware-gw200", "dsse")
	if err != nil || string(k.Public) != string(v.Keys[0].Key.Public) {
		t.Errorf("%v, %v", k, err)
	}
	trust, err := firmware.TrustOf(eff)
	if err != nil || len(trust.Products) != 1 || trust.Products["gw200"] == nil {
		t.Errorf("%+v, %v", trust, err)
	}
	flipOutputs(t, f)
	// A record that hides the key, or says that a statement told of more, does not hold.
	hide := entries(t, f.newest)
	for i := range hide {
		if hide[i].Type == "succession" {
			delete(hide[i].Data, "added")
		}
	}
	dir := f.path("hidden")
	if err := os.CopyFS(dir, os.DirFS(f.newest)); err != nil {
		t.Fatal(err)
	}
	f.forgeAs(t, dir, hide, "witness1", "witness2", "master1", "master2", "master3")
	if _, err := record.Verify(os.DirFS(dir), f.anchors); err == nil || !strings.Contains(err.Error(), "made here") && !strings.Contains(err.Error(), "proof of possession") {
		t.Errorf("a record that hides the key: %v", err)
	}
	// The next statement must continue this one.
	for name, bind := range map[string]func(*Bind){"none": nil} {
		_, err := f.try(t, plan{kind: "succession", record: "forgets-" + name, bind: bind})
		if fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), "succession statement") { // before ARMED: not VOID
			t.Errorf("a succession that forgets the new key: %v", err)
		}
	}
}

// decide has both approvers append a statement to the newest charter, outside any
// ceremony, and writes it to charter.jsonl.
func (f *founded) decide(t *testing.T, typ string, body any) {
	t.Helper()
	lines := f.output(t, "charter.jsonl")
	state, err := charter.Fold(lines, f.anchors.World, f.anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "charter.jsonl", append(append(lines, f.approved(t, state, typ, body)...), '\n'))
}

func spkiOf(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(data)
	return b.Bytes
}

// causeOf is the class of an error, or of what made the ceremony void.
func causeOf(err error) fault.Class {
	got := fault.ClassOf(err)
	if c, ok := err.(interface{ FaultCause() string }); ok && got == fault.Void {
		return fault.Class(c.FaultCause())
	}
	return got
}

// TestTraceOverSeveralRecords walks from keys of a genesis, a new-key ceremony and a
// succession back to the genesis, and refuses records that tell no one history.
func TestTraceOverSeveralRecords(t *testing.T) {
	t.Parallel()
	foreign := genesis(t).closed
	f := found(t)
	read := func(dir string) *record.Verified {
		t.Helper()
		v, err := record.Verify(os.DirFS(dir), f.anchors)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	genesis := read(f.newest)
	fork := f.fork(t)
	other := fork.later(t, plan{kind: "new-key", record: "record-other"})

	made := f.later(t, plan{kind: "new-key", edit: inField})
	first := f.statement()
	next := f.later(t, plan{kind: "succession", bind: first})
	data := f.output(t, "succession.json")
	st, err := succession.Verify(data, f.anchors)
	if err != nil {
		t.Fatal(err)
	}
	eff, err := succession.Apply(f.anchors, st)
	if err != nil {
		t.Fatal(err)
	}
	walk := func(id string, records ...*record.Verified) string {
		t.Helper()
		x, err := trace.New(eff, st, records)
		if err != nil {
			t.Fatal(err)
		}
		links, err := x.Key(id)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, l := range links {
			mark := "+"
			if !l.Proven {
				mark = "?"
			}
			text.WriteString(mark + l.What + ": " + l.Is + " (" + l.Shown + ")\n")
		}
		return text.String()
	}
	all := []*record.Verified{genesis, made, next}
	shape := func(text string) string {
		var out []string
		for l := range strings.Lines(text) {
			out = append(out, l[:strings.Index(l, ":")])
		}
		return strings.Join(out, " ")
	}
	for id, want := range map[string]string{
		"log":            "+key +record +birth +script +people",
		"firmware":       "+key +end +record +birth +script +people",
		"firmware-2":     "+key +record +birth +script +people",
		"firmware-gw200": "+key +record +birth +script +people +genesis +founders",
		"firmware-3":     "+key +record +birth +script +people +before +genesis +founders",
	} {
		text := walk(id, all...)
		if shape(text) != want {
			t.Errorf("%s: got %s, want %s\n%s", id, shape(text), want, text)
		}
		if swapped := walk(id, next, genesis, made); swapped != text {
			t.Errorf("%s: in another order of records:\n%s\nnot\n%s", id, swapped, text)
		}
	}
	if text := walk("firmware-gw200", all...); !strings.Contains(text, "made known by succession statement") || !strings.Contains(text, "signed by succession and succession-2") {
		t.Error(text)
	}
	if text := walk("firmware-2", all...); !strings.Contains(text, "put in force by succession statement") {
		t.Error(text)
	}
	if text := walk("firmware", all...); !strings.Contains(text, "gave way by") || !strings.Contains(text, "firmware is compromised since") {
		t.Error(text)
	}
	// What is missing is a gap, never a proof.
	for _, x := range []struct {
		name, id, want string
		records        []*record.Verified
	}{
		{"the middle", "firmware-3", "+key +record +birth +script +people ?before +genesis +founders", []*record.Verified{genesis, next}},
		{"the genesis", "firmware-3", "+key +record +birth +script +people +before ?before", []*record.Verified{made, next}},
		{"all before", "firmware-3", "+key +record +birth +script +people ?before", []*record.Verified{next}},
		{"the birth", "firmware-gw200", "+key ?record", []*record.Verified{genesis, next}},
		{"everything", "firmware-gw200", "+key ?record", nil},
	} {
		if text := walk(x.id, x.records...); shape(text) != x.want {
			t.Errorf("without %s: %s\n%s", x.name, shape(text), text)
		}
	}
	v, err := verifyOwn(foreign)
	if err != nil {
		t.Fatal(err)
	}
	renamed := *made
	renamed.Open.World = "rehearsal:zzzzzzzz"
	open := *made
	open.State = "VOID"
	for name, x := range map[string]struct {
		class   fault.Class
		records []*record.Verified
	}{
		"twice":          {fault.Usage, []*record.Verified{genesis, made, made}},
		"two histories":  {fault.Verify, []*record.Verified{genesis, made, other}},
		"two geneses":    {fault.Policy, []*record.Verified{genesis, v}},
		"other vault":    {fault.Policy, []*record.Verified{v}},
		"other world":    {fault.Policy, []*record.Verified{genesis, &renamed}},
		"void":           {fault.Verify, []*record.Verified{genesis, &open}},
		"only the other": {fault.Verify, []*record.Verified{other, next}},
	} {
		if _, err := trace.New(eff, st, x.records); fault.ClassOf(err) != x.class {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What the approvers decide without a ceremony is no gap; what only a ceremony makes is.
	f.decide(t, charter.TypePipeline, charter.Pipeline{ID: "pipeline9", Key: spkiOf(t, f.path("pipeline1.pem")), Products: []string{"gw300"}})
	bind := f.statement()
	last := f.later(t, plan{kind: "new-key", record: "record-last", bind: func(b *Bind) { bind(b); b.Charter = f.path("charter.jsonl") }, edit: func(text string) string {
		return strings.ReplaceAll(inField(text), "firmware-gw200", "firmware-gw300")
	}})
	data = f.output(t, "succession.json")
	if st, err = succession.Verify(data, f.anchors); err == nil {
		eff, err = succession.Apply(f.anchors, st)
	}
	if err != nil {
		t.Fatal(err)
	}
	if text := walk("firmware-gw300", genesis, made, next, last); shape(text) != "+key +record +birth +script +people +before +before +before +genesis +founders" || !strings.Contains(text, ": pipeline (signed by the approvers") {
		t.Errorf("with a decision between: %s\n%s", shape(text), text)
	}
	if text := walk("firmware-gw300", genesis, made, last); shape(text) != "+key +record +birth +script +people ?before +before +genesis +founders" {
		t.Errorf("with a decision and a ceremony between: %s\n%s", shape(text), text)
	}
	// A key of the charter that the field was never told of has no way back.
	x, err := trace.New(f.anchors, nil, all)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Key("firmware-gw200"); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a key that the anchors do not know: %v", err)
	}
}

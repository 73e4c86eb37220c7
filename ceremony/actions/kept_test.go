package actions

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
)

const keptOutput = record.OutputsDir + "/" + record.AdmissionsFile

// kept are the reports that a record hands on.
func kept(t *testing.T, dir string) *admission.Kept {
	t.Helper()
	var k admission.Kept
	data, err := os.ReadFile(filepath.Join(dir, keptOutput))
	if err == nil {
		err = jcs.Unmarshal(data, &k)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

// What a ceremony hands on to admit tokens is signed by somebody in the charter, or
// the record that it stands in does not hold, whoever signed that (R-CER-1).
func TestForgedKeptAdmissionsAreRefused(t *testing.T) {
	t.Parallel()
	m := genesis(t)
	stranger := &house{dir: t.TempDir(), people: m.people}
	stranger.person(t, "stranger")
	again := func(k *admission.Kept, by string) {
		env, err := envelope.Sign(admission.PayloadType, k.Envelopes[0].Payload, m.people[by].Signer())
		if err != nil {
			t.Fatal(err)
		}
		k.Envelopes[0] = *env
	}
	for name, tt := range map[string]struct {
		edit func(k *admission.Kept) any
		text string
	}{
		"nothing changed":  {func(k *admission.Kept) any { return k }, ""},
		"by another of us": {func(k *admission.Kept) any { again(k, "witness1"); return k }, ""},
		"by a stranger":    {func(k *admission.Kept) any { again(k, "stranger"); return k }, "may not sign this"},
		"by nobody":        {func(k *admission.Kept) any { k.Envelopes[0].Signatures = []envelope.Signature{}; return k }, "too few signatures"},
		"of another world": {func(k *admission.Kept) any { k.World = "rehearsal:bbbbbbbb"; return k }, "world"},
		"without an envelope": {func(k *admission.Kept) any {
			return map[string]any{"format": k.Format, "reports": []any{}, "world": k.World}
		}, "reports"},
		"one of them repeated":  {func(k *admission.Kept) any { k.Envelopes = slices.Insert(k.Envelopes, 1, k.Envelopes[0]); return k }, "twice"},
		"altered by its signer": {func(k *admission.Kept) any { k.Envelopes[0].Payload[50] ^= 1; return k }, "does not hold"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(dir, os.DirFS(m.closed)); err != nil {
				t.Fatal(err)
			}
			data, err := jcs.Marshal(tt.edit(kept(t, dir)))
			if err != nil {
				t.Fatal(err)
			}
			list := entries(t, dir)
			m.put(t, dir, list, keptOutput, data)
			m.forge(t, dir, list)
			_, err = verifyOwn(dir)
			if tt.text == "" && err != nil || tt.text != "" && (fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), tt.text)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The conductor who signed the reports leaves: they are signed again, and the record
// of that ceremony alone is enough to go on from. The record of before is not.
func TestReportsOutliveTheirSigner(t *testing.T) {
	t.Parallel()
	f := found(t)
	genesis := f.newest
	f.person(t, "conductor2")
	answers, err := os.ReadFile(f.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "answers.yaml", append(answers, "  conductor2: conductor2.pass\n"...))
	data, err := os.ReadFile(f.path("bind.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "bind.yaml", []byte(strings.ReplaceAll(string(data), "conductor.", "conductor2.")))
	v := f.later(t, plan{kind: "reshare", bind: func(b *Bind) { b.Leaves = []string{"conductor"} }})
	for _, x := range v.Admissions {
		if x.Report.Token.Label == "founded-root" && !slices.Contains(x.By, "conductor") && !slices.Contains(x.By, "conductor2") {
			t.Errorf("signed by %v", x.By)
		}
	}
	b, state, module, work := f.workToken(t)
	if _, err := b.Reports(state).Admit(module, work, time.Now()); err != nil {
		t.Errorf("the record after the change: %v", err)
	}
	b.Records = []string{genesis}
	if _, err := b.Reports(state).Admit(module, work, time.Now()); fault.ClassOf(err) != fault.Token || !strings.Contains(err.Error(), "may not sign this") {
		t.Errorf("a report of somebody who left: %v", err)
	}
}

// A binding is named by a path from where one stands, and the record beside it, which
// it does not name, is found there.
func TestRecordBesideARelativeBinding(t *testing.T) {
	f := found(t)
	_, state, module, work := f.workToken(t)
	if err := os.Rename(f.newest, f.path(besideBind)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(f.dir))
	b, err := LoadBind(filepath.Join(filepath.Base(f.dir), "bind.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Reports(state).Admit(module, work, time.Now()); err != nil {
		t.Error(err)
	}
	b.Records = []string{besideBind}
	if _, err := b.Reports(state).Admit(module, work, time.Now()); err != nil {
		t.Errorf("named in it: %v", err)
	}
}

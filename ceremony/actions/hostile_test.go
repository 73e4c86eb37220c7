package actions

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
)

func verifyOwn(dir string) (*record.Verified, error) { return record.VerifyOwn(os.DirFS(dir)) }

// A genesis in real tokens closes, verifies, and lists what it made; the void
// one is void and left nothing (R-CER-1, R-CER-12, R-CER-14, R-CER-15).
func TestGenesisVerifies(t *testing.T) {
	t.Parallel()
	m := genesis(t)
	v, err := verifyOwn(m.closed)
	if err != nil {
		t.Fatal(err)
	}
	if v.State != "CLOSED" || len(v.Keys) != 22 || len(v.Certificates) != 7 || len(v.Incidents) != 0 || len(v.People) != 10 || len(v.Missing) != 0 {
		t.Errorf("%s, %d keys, %d certificates, missing %v", v.State, len(v.Keys), len(v.Certificates), v.Missing)
	}
	v, err = record.Verify(os.DirFS(m.void), v.Anchors)
	if fault.ClassOf(err) != fault.Void || !strings.Contains(err.Error(), "the seal of bag 7 was broken") {
		t.Fatal(err)
	}
	cleaned := 0
	for _, l := range v.Timeline {
		if c, ok := l.Data.(*record.Cleanup); ok {
			cleaned++
			if c.Left != 0 || len(c.Burned) != 1 {
				t.Errorf("clean-up of %s: %+v", c.Safe, c)
			}
		}
	}
	if cleaned != 4 || len(v.Incidents) != 1 || v.Incidents[0].Envelope == nil {
		t.Errorf("%d tokens cleaned, incidents %+v", cleaned, v.Incidents)
	}
}

// Whatever is done to the files of a closed record from outside, it is refused,
// and the entry concerned is named (R-CER-12).
func TestAlteredRecordIsRefused(t *testing.T) {
	t.Parallel()
	m := genesis(t)
	line := func(n int, text []byte) [][]byte { return bytes.SplitAfter(text, []byte("\n"))[n:] }
	transcript := func(edit func(lines [][]byte) [][]byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			p := filepath.Join(dir, record.TranscriptFile)
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			write(t, p, bytes.Join(edit(line(0, data)), nil))
		}
	}
	edit := func(name string, f func(data []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			p := filepath.Join(dir, name)
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			write(t, p, f(data))
		}
	}
	cosignature := func(data []byte) []byte { // the last line
		lines := bytes.SplitAfter(data, []byte("\n"))
		return lines[len(lines)-2]
	}
	tests := []struct {
		name string
		do   func(t *testing.T, dir string)
		text string
	}{
		{"entry dropped", transcript(func(l [][]byte) [][]byte { return slices.Delete(l, 41, 42) }), "entry 41"},
		{"first entry dropped", transcript(func(l [][]byte) [][]byte { return l[1:] }), "entry 0"},
		{"last entry dropped", transcript(func(l [][]byte) [][]byte { return l[:len(l)-2] }), "no end"},
		{"entry twice", transcript(func(l [][]byte) [][]byte { return slices.Insert(l, 41, l[40]) }), "entry 41"},
		{"cut in an entry", transcript(func(l [][]byte) [][]byte { l[41] = l[41][:50]; return l[:42] }), "entry 41 is cut off"},
		{"emptied", transcript(func([][]byte) [][]byte { return nil }), "empty"},
		{"blank line", transcript(func(l [][]byte) [][]byte { return slices.Insert(l, 41, []byte("\n")) }), "entry 41"},
		{"Windows line ends", transcript(func(l [][]byte) [][]byte { l[41] = append(l[41][:len(l[41])-1], "\r\n"...); return l }), "entry 41"},
		{"script altered", edit("script.yaml", func(b []byte) []byte { return append(b, "# x\n"...) }), "script.yaml is not the script that ran"},
		{"output altered", edit("outputs/factory-ca.cert.pem", func(b []byte) []byte { b[60] ^= 1; return b }), "factory-ca.cert.pem"},
		{"charter altered", edit("outputs/charter.jsonl", func(b []byte) []byte { return b[:len(b)-1] }), "charter.jsonl"},
		{"person altered", edit("people/master1.person", func(b []byte) []byte { b[30] ^= 1; return b }), "master1.person was altered"},
		{"anchors of another vault inside", edit("outputs/anchors.json", func(b []byte) []byte { return other(t, b) }), "anchors.json was altered"},
		{"output missing", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "outputs/log.pub.pem")) }, "log.pub.pem is missing"},
		{"file that is not listed", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "outputs/extra"), []byte("x")) }, `"outputs/extra" is not listed`},
		{"hidden file", func(t *testing.T, dir string) { write(t, filepath.Join(dir, ".x"), []byte("x")) }, `".x" is not listed`},
		{"link out of the record", func(t *testing.T, dir string) {
			p := filepath.Join(dir, "outputs/log.pub.pem")
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "..", "elsewhere"), data)
			remove(t, p)
			if err := os.Symlink("../../elsewhere", p); err != nil {
				t.Fatal(err)
			}
		}, "no regular file"},
		{"checkpoint missing", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "checkpoint")) }, "no usable checkpoint"},
		{"signature line twice", edit("checkpoint", func(b []byte) []byte { return append(b, cosignature(b)...) }), "repeated signature line"},
		{"signature by nobody here", edit("checkpoint", func(b []byte) []byte {
			return append(b, bytes.Replace(cosignature(b), []byte("witness2"), []byte("stranger"), 1)...)
		}), ""},
		{"line behind the signatures", edit("checkpoint", func(b []byte) []byte { return append(b, "— x\n"...) }), ""},
		{"checkpoint of the void attempt", func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(m.void, "checkpoint"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "checkpoint"), data)
		}, ""},
	}
	v, err := verifyOwn(m.closed)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(dir, os.DirFS(m.closed)); err != nil {
				t.Fatal(err)
			}
			tt.do(t, dir)
			_, err := record.Verify(os.DirFS(dir), v.Anchors)
			if fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (class %s), want %q", err, fault.ClassOf(err), tt.text)
			}
		})
	}
	t.Run("anchors of another vault", func(t *testing.T) {
		data, err := os.ReadFile(filepath.Join(m.closed, "outputs/anchors.json"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := anchor.Parse(other(t, data))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := record.Verify(os.DirFS(m.closed), a); fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), "not the ones you trust") {
			t.Error(err)
		}
		a.World = world.Live
		if _, err := record.Verify(os.DirFS(m.closed), a); fault.ClassOf(err) != fault.Policy {
			t.Error(err)
		}
	})
}

// other changes the vault id of an anchors file.
func other(t *testing.T, data []byte) []byte {
	t.Helper()
	m := regexp.MustCompile(`"vault":"[0-9a-f]{64}"`).Find(data)
	if m == nil {
		t.Fatal("no vault id")
	}
	return bytes.Replace(data, m, []byte(`"vault":"`+strings.Repeat("ab", 32)+`"`), 1)
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A conductor, with every witness and key master on his side, writes a record
// anew with a correct chain and signs it again: what the script did not say, or
// what a key or another person did not sign, is refused all the same (R-CER-2,
// R-CER-10, R-CER-11).
func TestForgedRecordIsRefused(t *testing.T) {
	t.Parallel()
	m := genesis(t)
	find := func(t *testing.T, list []entry, typ string, is func(e entry) bool) int {
		t.Helper()
		for i, e := range list {
			if e.Type == typ && (is == nil || is(e)) {
				return i
			}
		}
		t.Fatalf("no entry %s", typ)
		return 0
	}
	set := func(typ string, is func(e entry) bool, edit func(e *entry)) func(*testing.T, []entry) ([]entry, int) {
		return func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, typ, is)
			edit(&l[n])
			return l, n
		}
	}
	drop := func(typ string, is func(e entry) bool) func(*testing.T, []entry) ([]entry, int) {
		return func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, typ, is)
			return slices.Delete(l, n, n+1), -1
		}
	}
	step := func(id string) func(e entry) bool { return func(e entry) bool { return e.Step == id } }
	key := func(id string) func(e entry) bool {
		return func(e entry) bool {
			k, _ := e.Data["key"].(map[string]any)
			return e.Data["key"] == id || k["id"] == id
		}
	}
	attribute := func(e *entry, name, member, value string) {
		for _, a := range e.Data["attributes"].([]any) {
			if a := a.(map[string]any); a["name"] == name && a["half"] == "private" {
				a[member] = value
			}
		}
	}
	wholeStep := func(id string) func(*testing.T, []entry) ([]entry, int) {
		return func(_ *testing.T, l []entry) ([]entry, int) {
			return slices.DeleteFunc(l, func(e entry) bool { return e.Step == id }), -1
		}
	}
	report := func(edit func(r map[string]any)) func(e *entry) {
		return func(e *entry) { signReport(t, e, m.people["conductor"], edit) }
	}
	tests := []struct {
		name string
		void bool
		edit func(*testing.T, []entry) ([]entry, int) // returns the entry to be named, -1 for none
		text string
	}{
		{"nothing changed", false, func(_ *testing.T, l []entry) ([]entry, int) { return l, -1 }, ""},
		{"nothing changed in the void one", true, func(_ *testing.T, l []entry) ([]entry, int) { return l, -1 }, ""},
		{"loosened attribute, found", false, set("key", key("firmware"), func(e *entry) { attribute(e, "CKA_EXTRACTABLE", "got", "true") }), "CKA_EXTRACTABLE"},
		{"loosened attribute, wanted too", false, set("key", key("firmware"), func(e *entry) {
			attribute(e, "CKA_EXTRACTABLE", "got", "true")
			attribute(e, "CKA_EXTRACTABLE", "wanted", "true")
		}), "CKA_EXTRACTABLE true"},
		{"attribute left out", false, set("key", key("firmware"), func(e *entry) { attribute(e, "CKA_SENSITIVE", "name", "CKA_LABEL") }), "not read back whole"},
		{"key without an intent", false, drop("intent", key("firmware")), "without an intent"},
		{"key under another intent", false, set("intent", key("firmware"), func(e *entry) { e.Data["key"] = "log" }), "key firmware was made without an intent"},
		{"other public key when stored", false, set("key", func(e entry) bool { return key("firmware")(e) && e.Data["stage"] == "stored" }, func(e *entry) {
			e.Data["key"].(map[string]any)["public"] = pemBase64(t, m, "acceptance")
		}), "is not the one born"},
		{"proof of another key", false, func(t *testing.T, l []entry) ([]entry, int) {
			a, b := find(t, l, "possession", key("firmware")), find(t, l, "possession", key("acceptance"))
			l[a].Data["signature"] = l[b].Data["signature"]
			return l, a
		}, "proof of possession of key firmware"},
		{"proof over another transcript", false, set("possession", key("firmware"), func(e *entry) { e.Data["root"] = strings.Repeat("0", 64) }), "another transcript"},
		{"proof missing", false, drop("possession", key("log")), ""},
		{"receipt missing", false, drop("receipt", nil), "gave a receipt"},
		{"receipt of another", false, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "receipt", nil)
			l[n].Data["envelope"] = l[n+1].Data["envelope"]
			return l, -1
		}, ""},
		{"admission case failed", false, set("admission", nil, report(func(r map[string]any) { r["cases"].([]any)[0].(map[string]any)["pass"] = false })), "is not admitted: readback-born"},
		{"admission of one case", false, set("admission", nil, report(func(r map[string]any) { r["cases"] = r["cases"].([]any)[:1] })), "at least 25"},
		{"admission of no algorithm", false, set("admission", nil, report(func(r map[string]any) { r["algorithms"] = []any{} })), "at least one"},
		{"admission for RSA alone", false, func(t *testing.T, l []entry) ([]entry, int) {
			report(func(r map[string]any) { r["algorithms"] = []any{"rsa3072"} })(&l[find(t, l, "admission", nil)])
			return l, -1
		}, "not admitted for keys of algorithm"},
		{"admission of another token", false, set("admission", nil, report(func(r map[string]any) { r["token"].(map[string]any)["serial"] = "666" })), "is of another token"},
		{"admission of another module", false, set("admission", nil, report(func(r map[string]any) { r["module"].(map[string]any)["sha256"] = strings.Repeat("0", 64) })), "is of another module"},
		{"admission of the year before", false, set("admission", nil, report(func(r map[string]any) {
			r["made"], r["expires"] = "2020-01-01T00:00:00Z", "2020-03-31T00:00:00Z"
		})), "it is good from"},
		{"admission of another world", false, set("admission", nil, report(func(r map[string]any) { r["world"] = "rehearsal:bbbbbbbb" })), "does not hold"},
		{"admission that says only what failed", false, set("admission", nil, func(e *entry) {
			e.Data["cases"] = []any{}
			delete(e.Data, "envelope")
		}), ""},
		{"admission of a record elsewhere", false, set("admission", nil, func(e *entry) {
			e.Data["from"] = "keyrite/record/0123456789abcdef"
		}), ""},
		{"another module admitted", false, set("admission", nil, func(e *entry) {
			e.Data["module"].(map[string]any)["sha256"] = strings.Repeat("0", 64)
		}), "another module was admitted"},
		{"key announced in another token", false, set("intent", key("firmware"), func(e *entry) {
			e.Data["token"].(map[string]any)["serial"] = "666"
		}), "outside the token"},
		{"intent without an object", false, set("intent", key("firmware"), func(e *entry) { e.Data["object"] = "" }), "repeats an object"},
		{"stored key that can be modified", false, set("key", func(e entry) bool { return key("firmware")(e) && e.Data["stage"] == "stored" }, func(e *entry) {
			attribute(e, "CKA_MODIFIABLE", "got", "true")
			attribute(e, "CKA_MODIFIABLE", "wanted", "true")
		}), "not in the place of its stage"},
		{"PINs of another epoch", false, set("pins-changed", nil, func(e *entry) { e.Data["epoch"] = 99 }), "are of epoch 99"},
		{"dealt twice", false, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "dealt", nil)
			return slices.Insert(l, n, l[n]), n + 1
		}, "is out of order"},
		{"receipt outside its step", false, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "receipt", nil)
			late := l[n]
			return slices.Insert(l, n-4, late), -1
		}, ""},
		{"statement told otherwise", false, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "statement", func(e entry) bool { return e.Data["type"] == "pipeline" })
			l[n].Data["signers"] = []any{"conductor", "master1"}
			return l, -1 // the first proof of possession after it no longer holds
		}, "another transcript"},
		{"clean-up in a closed record", false, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "possession", nil)
			return slices.Insert(l, n, entry{Type: "cleanup", Step: l[n].Step, Time: l[n].Time, Mono: l[n].Mono, Data: map[string]any{
				"burned": []any{}, "destroyed": []any{}, "left": 7, "safe": "work", "tainted": "x",
			}}), n
		}, "clean-up in state SEALING"},
		{"no admission", false, drop("admission", nil), "is out of order"},
		{"pins never changed", false, drop("pins-changed", nil), ""},
		{"two tokens for a safe", false, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "token", nil)
			return slices.Insert(l, n, l[n]), n + 1
		}, "is out of order"},
		{"never armed", true, drop("state", func(e entry) bool { return e.Data["state"] == "ARMED" }), "RUNNING\" after SUMMONED"},
		{"entry after the end", false, func(_ *testing.T, l []entry) ([]entry, int) {
			late := l[len(l)-3]
			late.Mono = l[len(l)-1].Mono
			return append(l, late), len(l)
		}, "follows the end"},
		{"entry between CLOSED and the end", false, func(_ *testing.T, l []entry) ([]entry, int) {
			n := len(l) - 1
			late := l[n-2]
			late.Mono = l[n].Mono
			return slices.Insert(l, n, late), n
		}, "follows the state CLOSED"},
		{"incident in a closed record", false, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "state", func(e entry) bool { return e.Data["state"] == "CLOSED" })
			return slices.Insert(l, n, entry{Type: "incident", Time: l[n].Time, Mono: l[n].Mono, Data: map[string]any{"by": "engine", "class": "void", "envelope": nil, "reason": "x"}}), -1
		}, "in spite of an incident"},
		{"no incident in a void record", true, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "incident", nil)
			l[n].Data["reason"] = "somebody sneezed"
			return l, n
		}, "the signed incident is another one"},
		{"other words read aloud", false, set("words", nil, func(e *entry) { e.Data["words"] = "aardvark" + e.Data["words"].(string)[8:] }), "not those of anchors.json"},
		{"step left out", true, wholeStep("4.2"), ""},
		{"documents never seen", true, wholeStep("1.3"), ""},
		{"steps exchanged", true, func(t *testing.T, l []entry) ([]entry, int) {
			n := find(t, l, "begin", step("3.2"))
			l[n].Data["title"] = "Something else"
			return l, n
		}, "not the next step"},
		{"witness left out", true, drop("confirm", func(e entry) bool { return e.Step == "2.1" && e.Data["who"] == "witness2" }), "went on without witness2"},
		{"witness said no", true, set("confirm", func(e entry) bool { return e.Step == "2.1" && e.Data["who"] == "witness2" }, func(e *entry) { e.Data["answer"] = "no" }), `witness2 answered "no"`},
		{"documents signed for another ceremony", true, set("documents", nil, func(e *entry) {
			env := e.Data["envelope"].(map[string]any)
			env["payload"] = "e30="
		}), ""},
		{"another person file", true, set("identified", nil, func(e *entry) { e.Data["fingerprint"] = strings.Repeat("0", 64) }), "person file of conductor is another one"},
		{"wrong world", true, set("open", nil, func(e *entry) { e.Data["world"] = "live" }), ""},
		{"end that lies", true, set("end", nil, func(e *entry) { e.Data["state"] = "CLOSED" }), "ends CLOSED in state VOID"},
		{"time that runs backwards", true, func(_ *testing.T, l []entry) ([]entry, int) { l[50].Mono = 0; return l, 50 }, "timed before"},
		{"member that is not in the format", true, set("done", nil, func(e *entry) { e.Data["x"] = 1 }), ""},
		{"type that is not in the format", true, set("done", nil, func(e *entry) { e.Type = "shell" }), "unknown type"},
	}
	v, err := verifyOwn(m.closed)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			from := m.closed
			if tt.void {
				from = m.void
			}
			if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			list, n := tt.edit(t, entries(t, dir))
			m.forge(t, dir, list)
			_, err := record.Verify(os.DirFS(dir), v.Anchors)
			switch {
			case strings.HasPrefix(tt.name, "nothing changed"):
				if want := map[bool]fault.Class{false: "", true: fault.Void}[tt.void]; fault.ClassOf(err) != want {
					t.Errorf("the forger's own tools break it: %v", err)
				}
				return
			case tt.name == "wrong world":
				if fault.ClassOf(err) != fault.Policy && fault.ClassOf(err) != fault.Verify {
					t.Errorf("got %v", err)
				}
				return
			}
			if fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v (class %s), want %q", err, fault.ClassOf(err), tt.text)
			}
			if tt.name == "key under another intent" {
				n++ // the key is wrong, not the intent
			}
			if n >= 0 && !strings.Contains(err.Error(), "entry "+itoa(n)) {
				t.Errorf("%v does not name entry %d", err, n)
			}
		})
	}
}

// signReport edits the report of an admission entry and has by sign it, alone.
func signReport(t *testing.T, e *entry, by *person.Key, edit func(r map[string]any)) {
	t.Helper()
	env, err := envelope.Sign(admission.PayloadType, payloadOf(t, e, edit), by.Signer())
	if err != nil {
		t.Fatal(err)
	}
	e.Data["envelope"] = env
}

// payloadOf is the report of an admission entry, edited.
func payloadOf(t *testing.T, e *entry, edit func(r map[string]any)) []byte {
	t.Helper()
	var report map[string]any
	raw, err := base64.StdEncoding.DecodeString(e.Data["envelope"].(map[string]any)["payload"].(string))
	if err == nil {
		err = json.Unmarshal(raw, &report)
	}
	if err != nil {
		t.Fatal(err)
	}
	edit(report)
	payload, err := jcs.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func pemBase64(t *testing.T, m *twoRecords, id string) any {
	t.Helper()
	return pemOf(t, m.closed, "outputs/"+id+".pub.pem")
}

// A public key or certificate written out must be the one made, whoever signs.
func TestForgedOutputIsRefused(t *testing.T) {
	t.Parallel()
	m := genesis(t)
	swap := func(a, b string) func(t *testing.T, dir string, l []entry) []entry {
		return func(t *testing.T, dir string, l []entry) []entry {
			data, err := os.ReadFile(filepath.Join(m.closed, b))
			if err != nil {
				t.Fatal(err)
			}
			m.put(t, dir, l, a, data)
			return l
		}
	}
	// more is a further output, of a void record that this one does not adopt.
	more := func(a, b string) func(t *testing.T, dir string, l []entry) []entry {
		return func(t *testing.T, dir string, l []entry) []entry {
			i := slices.IndexFunc(l, func(e entry) bool { return e.Data["path"] == b })
			e := l[i]
			e.Data = maps.Clone(e.Data)
			e.Data["path"] = a
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, a)), 0o755); err != nil {
				t.Fatal(err)
			}
			l = slices.Insert(l, i+1, e)
			return swap(a, b)(t, dir, l)
		}
	}
	for name, do := range map[string]func(t *testing.T, dir string, l []entry) []entry{
		"public key of another":    swap("outputs/firmware.pub.pem", "outputs/log.pub.pem"),
		"certificate of another":   swap("outputs/factory-ca.cert.pem", "outputs/relay-ca.cert.pem"),
		"certificate in a request": swap("outputs/factory-ca.cert.pem", "outputs/log.pub.pem"),
		"key of a void record":     more(record.AfterDir+"/outputs/log.pub.pem", "outputs/log.pub.pem"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(dir, os.DirFS(m.closed)); err != nil {
				t.Fatal(err)
			}
			m.forge(t, dir, do(t, dir, entries(t, dir)))
			says := "is not the one made here"
			if name == "key of a void record" {
				says = "of which the opening entry says nothing"
			}
			if _, err := verifyOwn(dir); fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A second genesis over the same tokens or media is refused before ARMED, when
// it costs nothing.
func TestUsedNamesAreRefusedBeforeArmed(t *testing.T) {
	t.Parallel()
	h := found(t).house
	if err := os.Rename(h.path("record-founded"), h.path("away")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.rehearse(t, "founded", "", nil); fault.ClassOf(err) != fault.Exists || !strings.Contains(err.Error(), "token founded-root already") {
		t.Errorf("same tokens: %v", err)
	}
	if err := os.MkdirAll(h.path("shares-two/work"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.write(t, "shares-two/work/master1.share", []byte("old"))
	if _, err := h.rehearse(t, "two", "", nil); fault.ClassOf(err) != fault.Exists || !strings.Contains(err.Error(), "shares-two/work") {
		t.Errorf("same media: %v", err)
	}
}

package actions

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/signer"
)

// fork is a founded house over a copy of its tokens, so that one genesis serves
// many ceremonies that cannot follow each other.
func (f *founded) fork(t *testing.T) *founded {
	t.Helper()
	h := copied(t, f.dir, f.env.TokenDir, f.people)
	return &founded{h, f.anchors, filepath.Join(h.dir, filepath.Base(f.newest))}
}

// output reads a file among the outputs of the newest ceremony.
func (f *founded) output(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.newest, record.OutputsDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tokenFolder is the folder of the token with that label.
func (f *founded) tokenFolder(t *testing.T, label string) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(f.env.TokenDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		data, err := os.ReadFile(filepath.Join(d, "token.object"))
		if err == nil && strings.Contains(string(data), label+" ") { // padded with spaces
			return d
		}
	}
	t.Fatalf("no token %s in %v", label, dirs)
	return ""
}

func rootOf(f *founded, name string) func(*Bind) {
	file := filepath.Join(f.newest, record.OutputsDir, name)
	return func(b *Bind) { b.Root = file }
}

// TestLaterCeremonies holds each kind that ends or replaces keys, or signs with
// keys that exist, on the tokens of one genesis.
func TestLaterCeremonies(t *testing.T) {
	t.Parallel()
	f := found(t)
	t.Run("hsm-lost", func(t *testing.T) { testHSMLost(t, f.fork(t)) })
	t.Run("root lost", func(t *testing.T) { testRootLost(t, f.fork(t)) })
	t.Run("succession", func(t *testing.T) { testSuccession(t, f.fork(t)) })
	t.Run("sign-offline and enrol", func(t *testing.T) { testOffline(t, f.fork(t)) })
	t.Run("retire", func(t *testing.T) { testRetire(t, f.fork(t)) })
}

// The first work token is gone for good: the standby's keys take over in charter,
// succession statement and update root.
func testHSMLost(t *testing.T, f *founded) {
	if err := os.RemoveAll(f.tokenFolder(t, "founded-work")); err != nil {
		t.Fatal(err)
	}
	root := rootOf(f, "1.root.json")
	for name, b := range map[string]func(*Bind){
		"unsaid":  func(b *Bind) { root(b); b.Released = nil },
		"missing": func(b *Bind) { root(b); b.Released = []string{"nowhere.jsonl"} },
		"garbage": func(b *Bind) { root(b); b.Released = []string{"conductor.person"} },
	} {
		dir, err := f.try(t, plan{kind: "hsm-lost", record: "released-" + name, bind: b})
		if err == nil {
			t.Errorf("what was released is %s, and the ceremony was held", name)
		}
		if _, serr := os.Stat(dir); dir != "" && serr == nil {
			t.Errorf("%s: a refusal before the ceremony left %s", name, dir)
		}
	}
	released := f.released(t, 7)
	v := f.later(t, plan{kind: "hsm-lost", bind: func(b *Bind) { root(b); b.Released = released }})
	if f := v.Charter.Floors["gw100"]; f.SecurityVersion != 7 || f.Record != record.Origin(v.Open.Record) {
		t.Errorf("carried over: %+v", f)
	}
	for _, id := range []string{"firmware", "acceptance", "provision-a", "provision-b", "relay-ca", "tuf-targets", "tuf-online", "log"} {
		k, _, err := f.anchors.Key(id, v.Charter.Keys[id].Domain)
		if err != nil {
			t.Fatal(err)
		}
		now, err := v.Charter.Key(id, k.Domain)
		if err != nil || now.ID != id+"-2" || v.Charter.Retired[id].Reason != charter.ReasonLost {
			t.Errorf("%s: %v, %v, %+v", id, now, err, v.Charter.Retired[id])
		}
		if name, ok := v.Charter.SafeOf(now); !ok || name != "work2" {
			t.Errorf("%s lies in safe %q", id, name)
		}
	}
	if _, ok := v.Charter.People.Safe("work"); ok {
		t.Error("the lost safe is still a safe")
	}
	s, err := succession.Verify(f.output(t, "succession.json"), f.anchors)
	if err != nil || len(s.Entries) != 8 || !slices.Equal(s.Signers(), []string{"succession"}) {
		t.Errorf("statement: %+v, %v", s, err)
	}
	if len(f.output(t, "2.root.json")) == 0 {
		t.Error("no root 2")
	}
	// The shares of the lost token open nothing any more, and it cannot be lost twice.
	if _, err := f.try(t, plan{kind: "hsm-lost", record: "again", bind: rootOf(f, "2.root.json")}); err == nil {
		t.Error("the same loss again")
	}
	flipOutputs(t, f)
}

// The root token is gone: its twins take over, the statement is signed by the
// other succession key, and those who trust root 1 take root 2.
func testRootLost(t *testing.T, f *founded) {
	if err := os.RemoveAll(f.tokenFolder(t, "founded-root")); err != nil {
		t.Fatal(err)
	}
	ids := []string{"birth-root", "tuf-root", "succession"}
	v := f.later(t, plan{kind: "hsm-lost", bind: rootOf(f, "1.root.json"), edit: func(text string) string {
		var existing, successions string
		for _, id := range ids {
			existing += "  - {id: " + id + "}\n  - {id: " + id + "-2, safe: root2}\n"
			successions += "  - {id: " + id + ", by: " + id + "-2, reason: lost}\n"
		}
		from, to := strings.Index(text, "safes:\n"), strings.Index(text, "# What people predictably do")
		text = text[:from] + "safes:\n  - {name: root2, token: founded-root-2, state: existing, dormant: true}\nexisting:\n" + existing + "successions:\n" + successions + "\n" + text[to:]
		text = cutLines(text, "do: cert.issue", "safe: work2")
		text = strings.Replace(text, "safe: root,", "safe: root2,", 1)
		return strings.Replace(text, "  - {id: birth-root-2, safe: root2}", "  - {id: birth-root-2, safe: root2, domain: x509}", 1)
	}})
	s, err := succession.Verify(f.output(t, "succession.json"), f.anchors)
	if err != nil || !slices.Equal(s.Signers(), []string{"succession-2"}) || len(s.Entries) != 3 {
		t.Errorf("statement: %+v, %v", s, err)
	}
	if k, err := v.Charter.Key("tuf-root", "tuf-root"); err != nil || k.ID != "tuf-root-2" {
		t.Errorf("%v, %v", k, err)
	}
	if _, ok := v.Charter.People.Safe("root"); ok {
		t.Error("the lost safe is still a safe")
	}
	if len(f.output(t, "2.root.json")) == 0 {
		t.Error("no root 2")
	}
}

// released writes a ledger in which gw100 has reached that security version: with its
// release key born in a token, only the release itself is not at hand here.
func (f *founded) released(t *testing.T, security int64) []string {
	t.Helper()
	lines, err := os.ReadFile(filepath.Join(f.newest, "outputs/charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	state, err := charter.Fold(lines, f.anchors.World, f.anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	l, err := signer.OpenLedger(f.path("signer"), state, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := f.path("signer/ledger.jsonl")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var first map[string]any
	if err := json.Unmarshal(data, &first); err != nil {
		t.Fatal(err)
	}
	hash := sum(bytes.TrimSuffix(data, []byte("\n")))
	first["body"] = map[string]any{"approvals": []string{hash, sum([]byte("b"))}, "product": "gw100", "request": hash, "security_version": security, "statement": "e30=", "version": "1.0"}
	first["kind"], first["prev"], first["seq"] = "intent", hash, 1
	line, err := jcs.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "signer/ledger.jsonl", append(append(data, line...), '\n'))
	return []string{path}
}

// flipOutputs alters statement, root and charter of the newest record.
func flipOutputs(t *testing.T, f *founded) {
	t.Helper()
	for _, name := range []string{"succession.json", "charter.jsonl", "anchors.json"} {
		p := filepath.Join(f.newest, record.OutputsDir, name)
		good, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		bad := slices.Clone(good)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := record.Verify(os.DirFS(f.newest), f.anchors); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s altered: %v", name, err)
		}
		if err := os.WriteFile(p, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The firmware key is compromised: its twin takes over, a new twin is born, the
// key is destroyed.
func testSuccession(t *testing.T, f *founded) {
	void, err := f.try(t, plan{kind: "succession", record: "void", incident: "incident: {step: \"4.2\", by: witness1, reason: the bag was open}\n"})
	if fault.ClassOf(err) != fault.Void {
		t.Fatalf("incident: %v", err)
	}
	if _, err := os.Stat(filepath.Join(void, record.OutputsDir, "succession.json")); err == nil {
		t.Error("a void ceremony left a succession statement")
	}
	// The key is gone all the same; the next attempt finds it so and goes on.
	v := f.later(t, plan{kind: "succession"})
	k, err := v.Charter.Key("firmware", "dsse")
	if err != nil || k.ID != "firmware-2" || v.Charter.Retired["firmware"].Reason != charter.ReasonCompromised {
		t.Errorf("%v, %v, %+v", k, err, v.Charter.Retired["firmware"])
	}
	if d := v.Charter.Dormant("firmware"); len(d) != 1 || d[0].ID != "firmware-3" {
		t.Errorf("dormant: %v", d)
	}
	data := f.output(t, "succession.json")
	s, err := succession.Verify(data, f.anchors)
	if err != nil || len(s.Dormant) != 1 || !slices.Equal(s.Signers(), []string{"succession", "succession-2"}) {
		t.Fatalf("statement: %+v, %v", s, err)
	}
	// Once more: the new twin takes over from the one in force, under one key.
	statement := filepath.Join(f.newest, record.OutputsDir, "succession.json")
	v = f.later(t, plan{kind: "succession", record: "third", bind: func(b *Bind) { b.Successions = statement }, edit: func(text string) string {
		cut := strings.Index(text, "# The new twin lies")
		end := strings.Index(text, "existing:")
		text = text[:cut] + text[end:]
		for _, r := range [][2]string{
			{"  - name: root2\n    token: founded-root-2\n    state: existing\n    dormant: true\n", ""},
			{"  - {id: firmware, safe: work, domain: dsse}\n  - {id: firmware-2, safe: work2, domain: dsse}", "  - {id: firmware-2, safe: work2, domain: dsse}\n  - {id: firmware-3, safe: work, domain: dsse}"},
			{"  - {id: succession-2, safe: root2, domain: dsse}\n", ""},
			{"{id: firmware, by: firmware-2,", "{id: firmware-2, by: firmware-3,"},
			{`  - {id: "2.2", do: safe.open, safe: root2, title: Open the second root safe, limit: 60m, minutes: 15, planned: [spare-share]}` + "\n", ""},
			{`  - {id: "3.1", do: key.generate, key: firmware-3, title: New twin, limit: 10m, minutes: 2, confirm: [witness], say: "The next twin is born, so that this can be done once more."}` + "\n", ""},
			{"do: key.destroy, key: firmware,", "do: key.destroy, key: firmware-2,"},
			{`  - {id: "5.1", do: keys.store, safe: work, title: Store the new twin, limit: 10m, minutes: 2}` + "\n", ""},
			{`  - {id: "5.3", do: births.sign, title: The birth, limit: 60m, minutes: 10, say: "Whoever watched the key being born signs for it: both witnesses, and the key masters. Sign only for what you saw."}` + "\n", ""},
			{`  - {id: "5.2", do: keys.prove, safe: work, title: The new twin signs, limit: 10m, minutes: 2}` + "\n", ""},
		} {
			if !strings.Contains(text, r[0]) {
				t.Fatalf("the script has no %q", r[0])
			}
			text = strings.Replace(text, r[0], r[1], 1)
		}
		return text
	}})
	next, err := succession.Verify(f.output(t, "succession.json"), f.anchors)
	if err != nil || !slices.Equal(next.Signers(), []string{"succession"}) {
		t.Fatalf("second statement: %+v, %v", next, err)
	}
	if err := next.Follow(s); err != nil {
		t.Error(err)
	}
	if k, err := v.Charter.Key("firmware", "dsse"); err != nil || k.ID != "firmware-3" {
		t.Errorf("%v, %v", k, err)
	}
}

// The offline root certifies a factory, lists what is revoked, renews the update
// root; then somebody new enters the charter.
func testOffline(t *testing.T, f *founded) {
	for _, n := range []string{"f2.csr", "f3.csr", "r3.csr", "a3.csr", "p3.pem"} {
		f.request(t, n)
	}
	requests := func(b *Bind) {
		b.Requests["factory2-ca"], b.Requests["factory3-ca"], b.Requests["report3"], b.Requests["relay-access3"] = "f2.csr", "f3.csr", "r3.csr", "a3.csr"
		b.Keys["pipeline3"] = "p3.pem"
	}
	root := rootOf(f, "1.root.json")
	v := f.later(t, plan{kind: "sign-offline", bind: func(b *Bind) { requests(b); root(b) }})
	if v.Charter.Factories["factory2"].SerialFrom != 1001 {
		t.Errorf("%+v", v.Charter.Factories)
	}
	crl := filepath.Join(f.newest, record.OutputsDir, "birth-root.crl.pem")
	checkCRL(t, f, crl)
	// The next list counts further and forgets nothing.
	older := f.newest
	root = rootOf(f, "2.root.json")
	short := func(number, serial string) func(string) string {
		return func(text string) string {
			text = strings.Replace(text, "    number: 1\n", "    number: "+number+"\n", 1)
			text = strings.Replace(text, "4a5f00000000000000000000000000ff", serial, 1)
			for _, r := range [][2]string{{"certificates:\n", "existing:\n"}} {
				i, j := strings.Index(text, r[0]), strings.Index(text, "# The serial numbers")
				text = text[:i] + text[j:]
			}
			text = strings.Replace(text, "  - {id: \"3.1\", do: cert.issue", "  - {id: \"3.9\", do: pause, title: Pause, limit: 1m}\n  #", 1)
			return cutLines(text, "do: charter.append", "do: pause")
		}
	}
	for name, edit := range map[string]func(string) string{"same number": short("1", "4a5f00000000000000000000000000ff"), "forgets": short("2", "4a5f00000000000000000000000000fe")} {
		_, err := f.try(t, plan{kind: "sign-offline", record: "crl-" + strings.ReplaceAll(name, " ", "-"), edit: edit, bind: func(b *Bind) {
			root(b)
			b.CRLs = map[string]string{"birth-root": crl}
		}})
		if fault.ClassOf(err) != fault.Void || !strings.Contains(err.Error(), "revocation list") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.newest = older
	v = f.later(t, plan{kind: "enrol", bind: requests})
	if v.Charter.Factories["factory3"].Product != "gw200" || v.Charter.Stations["station3"].Factory != "factory3" || len(v.Charter.Pipelines["pipeline3"].Products) != 1 || v.Charter.Relays["relay-access3"].Role != "access" {
		t.Errorf("%+v", v.Charter)
	}
	if _, err := f.try(t, plan{kind: "enrol", record: "again", bind: requests}); err == nil {
		t.Error("the same factory again")
	}
}

func cutLines(text string, with ...string) string {
	var out []string
	for l := range strings.SplitSeq(text, "\n") {
		if !slices.ContainsFunc(with, func(w string) bool { return strings.Contains(l, w) }) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// checkCRL has Go and openssl verify the list.
func checkCRL(t *testing.T, f *founded, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(data)
	l, err := x509.ParseRevocationList(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	root, err := f.anchors.Certificate("birth-root")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckSignatureFrom(root); err != nil || l.Number.Int64() != 1 || len(l.RevokedCertificateEntries) != 1 {
		t.Errorf("%v, number %v", err, l.Number)
	}
	ca := f.path("birth-root.pem")
	f.write(t, "birth-root.pem", pemBlock("CERTIFICATE", root.Raw))
	out, err := exec.CommandContext(t.Context(), "openssl", "crl", "-verify", "-CAfile", ca, "-in", path, "-noout").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "verify OK") {
		t.Errorf("openssl: %v, %s", err, out)
	}
}

// A token ends: every key is destroyed and sought in vain, the token erased.
func testRetire(t *testing.T, f *founded) {
	v := f.later(t, plan{kind: "retire"})
	destroyed := 0
	for _, l := range v.Timeline {
		if d, ok := l.Data.(*record.Retired); ok {
			destroyed++
			if d.Left != 0 {
				t.Errorf("%+v", d)
			}
		}
	}
	if destroyed != 9 || v.Charter.Retired["firmware-2"].Reason != charter.ReasonDestroyed {
		t.Errorf("%d destroyed, %+v", destroyed, v.Charter.Retired)
	}
	if _, ok := v.Charter.People.Safe("work2"); ok {
		t.Error("the safe is still there")
	}
	if len(v.Charter.Dormant("firmware")) != 0 {
		t.Error("a destroyed twin may still take over")
	}
	objects, err := filepath.Glob(filepath.Join(f.tokenFolder(t, "founded-work-2"), "*.object"))
	if err != nil || len(objects) != 1 { // token.object itself
		t.Errorf("left in the token: %v, %v", objects, err)
	}
	if _, err := f.try(t, plan{kind: "retire", record: "again"}); err == nil {
		t.Error("the same token again")
	}
}

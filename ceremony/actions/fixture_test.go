package actions

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/tlog"
	"keyrite/ceremony"
	"keyrite/ceremony/console"
	"keyrite/ceremony/script"
	"keyrite/hsm/hsmtest"
	"keyrite/vault/quorum"
)

// TestMain lets the test program stand in for keyrite as the share child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == quorum.ChildCommand {
		if err := quorum.Child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		syscall.Exit(0) // os.Exit waits a second under the race detector, and a ceremony starts a hundred children
	}
	os.Exit(run(m))
}

const testWorld = "rehearsal:abcdefgh"

// house is a folder with people, requests, a binding and answers, over a SoftHSM
// store of its own.
type house struct {
	dir    string
	env    *hsmtest.Env
	people map[string]*person.Key
	after  string // record of a void ceremony that the next one performed here adopts, or ""
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{dir: folder(t), env: hsmtest.NewStore(t), people: map[string]*person.Key{}}
	bind := "format: keyrite/bind/v1\nworld: " + testWorld + "\nmodule: " + h.env.Config.Module + "\ntokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}\npeople:\n"
	answers := "format: keyrite/answers/v1\nyes: [all]\ndocuments: {all: passport}\nelsewhere: [witness2]\npassphrases:\n"
	for _, x := range []struct {
		role string
		n    int
	}{{charter.RoleConductor, 0}, {charter.RoleKeyMaster, 5}, {charter.RoleWitness, 2}, {charter.RoleApprover, 2}} {
		for i := range max(x.n, 1) {
			name := strings.TrimPrefix(x.role, "key-")
			if x.n > 0 {
				name += itoa(i + 1)
			}
			h.person(t, name)
			bind += fmt.Sprintf("  - {person: %s.person, key: %s.key, role: %s}\n", name, name, x.role)
			answers += fmt.Sprintf("  %s: %s.pass\n", name, name)
		}
	}
	bind += "requests: {factory-ca: a.csr, report: b.csr, relay-access: c.csr, relay-vpn: d.csr}\nkeys: {pipeline1: pipeline1.pem}\nshares: shares\n"
	for _, n := range []string{"a.csr", "b.csr", "c.csr", "d.csr", "pipeline1.pem"} {
		h.request(t, n)
	}
	h.write(t, "bind.yaml", []byte(bind))
	h.write(t, "answers.yaml", []byte(answers))
	return h
}

// bind is a binding of the house, for modules that look into its store.
func (h *house) bind(t testing.TB, name string) *Bind {
	t.Helper()
	b, err := LoadBind(h.path(name))
	if err != nil {
		t.Fatal(err)
	}
	b.env = h.env.Config.Env
	return b
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

func (h *house) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(h.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func passphrase(name string) string { return "canary-passphrase-of-" + name }

func (h *house) person(t testing.TB, name string) {
	t.Helper()
	k, err := person.New(name, testWorld)
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal([]byte(passphrase(name)))
	if err != nil {
		t.Fatal(err)
	}
	h.people[name] = k
	h.write(t, name+".person", public)
	h.write(t, name+".key", sealed)
	h.write(t, name+".pass", []byte(passphrase(name)+"\n"))
}

func (h *house) request(t testing.TB, name string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	typ := "CERTIFICATE REQUEST"
	if strings.HasSuffix(name, ".pem") {
		der, err = x509.MarshalPKIXPublicKey(k.Public())
		typ = "PUBLIC KEY"
	}
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, name, pemBlock(typ, der))
}

// script is a shipped script for this build; edit may change its text.
func (h *house) script(t testing.TB, kind, label string, edit func(string) string) (*script.Script, []byte) {
	t.Helper()
	programs, err := Programs(h.env.Config.HSMD, h.env.Config.Module)
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile("../../scripts/ceremonies/" + kind + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@TITLE@", "Test "+kind, "@KEYRITE@", programs[0].SHA256, "@HSMD@", programs[1].SHA256, "@MODULE@", programs[2].SHA256,
		"@NETWORK@", "any", "@SWAP@", "any", "@DUMPS@", "any", "@CLOCK@", "any", "@ROOT@", label+"-root", "@WORK@", label+"-work").Replace(string(shipped))
	if edit != nil {
		text = edit(text)
	}
	s, err := script.Parse(kind+".yaml", []byte(text))
	if err == nil {
		err = s.Lint()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, []byte(text)
}

// plan is one ceremony that a test holds.
type plan struct {
	kind     string                                  // default genesis
	label    string                                  // of its tokens
	record   string                                  // folder's name, default record-LABEL
	incident string                                  // the line of the answers file that spoils it, or ""
	edit     func(text string) string                // of the script, or nil
	bind     func(b *Bind)                           // changes the binding, or nil
	around   func(ceremony.Actions) ceremony.Actions // wraps the actions, or nil
	after    *record.Ref
}

// rehearse holds a genesis in this process.
func (h *house) rehearse(t testing.TB, label, incident string, around func(ceremony.Actions) ceremony.Actions) (string, error) {
	t.Helper()
	return h.hold(t, plan{label: label, incident: incident, around: around})
}

// hold holds a ceremony in this process.
func (h *house) hold(t testing.TB, p plan) (string, error) {
	t.Helper()
	if p.kind == "" {
		p.kind = "genesis"
	}
	if p.record == "" {
		p.record = "record-" + p.label
	}
	s, text := h.script(t, p.kind, p.label, p.edit)
	bind := h.bind(t, "bind.yaml")
	bind.Shares = "shares-" + p.label
	if p.bind != nil {
		p.bind(bind)
	}
	answers, err := os.ReadFile(h.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "answers-"+p.record+".yaml", append(answers, p.incident...))
	cons, err := console.LoadAnswers(h.path("answers-"+p.record+".yaml"), console.NewLine(io.Discard, nil))
	if err != nil {
		t.Fatal(err)
	}
	people, err := bind.Participants(s)
	if err != nil {
		t.Fatal(err)
	}
	programs, err := Programs(h.env.Config.HSMD, bind.Module)
	if err != nil {
		t.Fatal(err)
	}
	self, err := quorum.Self()
	if err != nil {
		t.Fatal(err)
	}
	verbs, err := New(s, bind, self, h.env.Config.HSMD)
	if err != nil {
		return "", err
	}
	acts := ceremony.Actions(verbs)
	if p.around != nil {
		acts = p.around(acts)
	}
	env, err := Environment(bind)
	if err != nil {
		t.Fatal(err)
	}
	dir := h.path(p.record)
	_, err = ceremony.Execute(context.Background(), ceremony.Config{
		Script: s, ScriptBytes: text, BindHash: bind.Hash(), Dir: dir, World: bind.World, People: people, Programs: programs,
		Environment: env, Media: Media(s), Console: cons, Clock: ceremony.SystemClock(), Actions: acts, Base: verbs.Base(), After: p.after,
	})
	return dir, err
}

// twoRecords is a genesis that closed, cosigned by all, and one that a witness spoiled
// after the first keys were born. Tests work on copies.
type twoRecords struct {
	*house
	closed, void string
}

var shared struct {
	sync.Mutex
	files  map[string]map[string][]byte // record → path → bytes
	people map[string]*person.Key
}

// genesis returns copies of the two records, which are made once per test run.
func genesis(t testing.TB) *twoRecords {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.files == nil {
		h := newHouse(t)
		closed, err := h.rehearse(t, "one", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.cosign(t, closed, "witness2")
		void, err := h.rehearse(t, "two", "incident: {step: \"5.3\", by: witness1, reason: the seal of bag 7 was broken}\n", nil)
		if fault.ClassOf(err) != fault.Void {
			t.Fatal(err)
		}
		shared.people = h.people
		shared.files = map[string]map[string][]byte{"closed": slurp(t, closed), "void": slurp(t, void)}
	}
	m := &twoRecords{house: &house{dir: t.TempDir(), people: maps.Clone(shared.people)}}
	m.closed, m.void = m.path("closed"), m.path("void")
	for name, files := range shared.files {
		for p, data := range files {
			full := filepath.Join(m.path(name), p)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

func slurp(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		out[rel], err = os.ReadFile(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (h *house) cosign(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		v, err := record.VerifyOwn(os.DirFS(dir))
		if v == nil {
			t.Fatal(err)
		}
		note, err := record.Cosign(v, h.people[n], time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, record.CheckpointFile), note, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// entry is a transcript entry as a test edits it.
type entry struct {
	Step, Time, Type string
	Mono             int64
	Data             map[string]any
}

// entries reads the transcript of a record.
func entries(t testing.TB, dir string) []entry {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	var out []entry
	for line := range bytes.Lines(data) {
		var e entry
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.UseNumber()
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// forge writes a transcript with a correct chain over whatever list says, and
// has the conductor and everybody else sign its end: only the verifier's own
// rules can refuse it.
func (m *twoRecords) forge(t testing.TB, dir string, list []entry) {
	t.Helper()
	m.forgeAs(t, dir, list, everybody()...)
}

// everybody are those who cosign a genesis of the fixture.
func everybody() []string { return []string{"witness1", "witness2", "master1", "master2", "master3"} }

// forgeAs is forge with those cosigners.
func (h *house) forgeAs(t testing.TB, dir string, list []entry, cosigners ...string) {
	t.Helper()
	var text []byte
	tree := &tlog.Tree{}
	prev := strings.Repeat("0", 64)
	for i, e := range list {
		line, err := json.Marshal(map[string]any{"data": e.Data, "mono": e.Mono, "prev": prev, "seq": i, "step": e.Step, "time": e.Time, "type": e.Type})
		if err != nil {
			t.Fatal(err)
		}
		if line, err = jcs.Marshal(json.RawMessage(line)); err != nil {
			t.Fatal(err)
		}
		if err := tree.Append(line); err != nil {
			t.Fatal(err)
		}
		prev = sum(line)
		text = append(append(text, line...), '\n')
	}
	if err := os.WriteFile(filepath.Join(dir, record.TranscriptFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	id, _ := list[0].Data["record"].(string)
	note, err := tlog.Sign(tlog.Checkpoint{Origin: record.Origin(id), World: testWorld, Size: tree.Size(), Root: tree.Root()}, "conductor", h.people["conductor"].Signer())
	for _, n := range cosigners {
		if err == nil {
			note, err = tlog.Cosign(note, n, h.people[n].Signer(), time.Now())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, record.CheckpointFile), note, 0o600); err != nil {
		t.Fatal(err)
	}
}

// put replaces a file of the record and its output entry.
func (m *twoRecords) put(t testing.TB, dir string, list []entry, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, path), data, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if list[i].Type == "output" && list[i].Data["path"] == path {
			list[i].Data["sha256"], list[i].Data["size"] = sum(data), len(data)
		}
	}
}

func pemOf(t testing.TB, dir, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(data)
	return b.Bytes
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

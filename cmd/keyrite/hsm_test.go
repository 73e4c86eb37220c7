package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/inspection"
	"keyrite/artifact/person"
	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

const (
	testPIN        = "0123456789abcdef"
	testPassphrase = "correct horse battery"
)

// workbench is the program beside its keyrite-hsmd, a token and a person.
type workbench struct {
	dir, program string
	env          *hsmtest.Env
	key          *person.Key
}

func newBench(t *testing.T) *workbench {
	t.Helper()
	b := &workbench{dir: t.TempDir(), env: hsmtest.New(t)}
	b.program = filepath.Join(b.dir, "keyrite")
	for _, name := range []string{"keyrite", "keyrite-hsmd"} {
		if err := os.Link(hsmtest.Program(t, name), filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	id, err := b.env.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	b.env.SetPINs(t, id, "so"+testPIN, testPIN)
	if b.key, err = person.New("conductor", "rehearsal:abcdefgh"); err != nil {
		t.Fatal(err)
	}
	data, err := b.key.Seal([]byte(testPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, "conductor.key", string(data))
	return b
}

func (b *workbench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *workbench) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run starts the program with PIN and passphrase on descriptors 3 and 4.
func (b *workbench) run(t *testing.T, pin, pass string, args ...string) (int, string, string) {
	t.Helper()
	b.write(t, "pin", pin+"\n")
	b.write(t, "pass", pass+"\n")
	cmd := exec.Command(b.program, args...)
	cmd.Env = []string{"SOFTHSM2_CONF=" + b.env.Conf}
	for _, n := range []string{"pin", "pass"} {
		f, err := os.Open(b.path(n))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code is looked at
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func (b *workbench) admitArgs(t *testing.T, edit ...string) []string {
	t.Helper()
	args := map[string]string{
		"--module": hsmtest.Module(t), "--token": "work", "--pin-fd": "3",
		"--signer": b.path("conductor.key"), "--passphrase-fd": "4", "--out": b.path("report"),
	}
	for i := 0; i+1 < len(edit); i += 2 {
		args[edit[i]] = edit[i+1]
	}
	out := []string{"hsm", "admit", "--json"}
	for k, v := range args {
		out = append(out, k, v)
	}
	return append(out, "--algorithm", "p256", "--algorithm", "rsa3072-pss")
}

func TestHSMAdmit(t *testing.T) {
	b := newBench(t)
	for _, tc := range []struct {
		name, pin, pass string
		edit            []string
		exit            int
	}{
		{"wrong PIN", "9999999999", testPassphrase, nil, 12},
		{"wrong passphrase", testPIN, "wrong horse battery", nil, 12},
		{"no such token", testPIN, testPassphrase, []string{"--token", "other"}, 12},
		{"no such module", testPIN, testPassphrase, []string{"--module", "/nonexistent.so"}, 2},
		{"not a module", testPIN, testPassphrase, []string{"--module", b.program}, 2},
		{"relative module", testPIN, testPassphrase, []string{"--module", "x.so"}, 2},
		{"no signer", testPIN, testPassphrase, []string{"--signer", "/nonexistent"}, 2},
		{"closed descriptor", testPIN, testPassphrase, []string{"--pin-fd", "77"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := b.run(t, tc.pin, tc.pass, b.admitArgs(t, tc.edit...)...)
			if code != tc.exit || out != "" || !strings.HasPrefix(errs, `{"error":`) {
				t.Errorf("exit %d (want %d), stdout %q, stderr %q", code, tc.exit, out, errs)
			}
			if _, err := os.Stat(b.path("report")); err == nil {
				t.Error("a report was left")
			}
		})
	}

	code, out, errs := b.run(t, testPIN, testPassphrase, b.admitArgs(t)...)
	if code != 0 || errs != "" {
		t.Fatalf("exit %d, stderr %q", code, errs)
	}
	var res hsmAdmitResult
	if err := json.Unmarshal([]byte(out), &res); err != nil || res.Schema != "keyrite/hsm-admit/v1" || len(res.Cases) < 25 {
		t.Errorf("result %v: %s", err, out)
	}
	b.checkReport(t)
	if code, _, errs := b.run(t, testPIN, testPassphrase, b.admitArgs(t)...); code != 16 {
		t.Errorf("second report: exit %d, %s", code, errs)
	}
}

// A module that does not withstand the attacks is refused, and each case that it failed
// is named in the error; no report is left. The first lies about one attribute of its
// private keys, the second is another maker's.
func TestHSMAdmitRefuses(t *testing.T) {
	b := newBench(t)
	liar := b.env.Liar(t)
	nss := hsmtest.NSS(t)
	for _, tc := range []struct {
		name, pin string
		args      []string
		failed    []string
	}{
		{"a liar", testPIN, []string{"--module", liar.Module, "--module-folder", b.env.Dir}, []string{"readback-stored", "algorithm-ecdsa-p256"}},
		{"NSS", nss.PIN, []string{"--module", nss.Config.Module, "--module-args", nss.Config.ModuleArgs, "--token", nss.Label, "--state-dir", b.path("state")}, []string{"readback-stored"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			liar.Lie("CKO_PRIVATE_KEY", "CKA_EXTRACTABLE")
			code, out, errs := b.run(t, tc.pin, testPassphrase, b.admitArgs(t, tc.args...)...)
			var got struct {
				Error struct {
					Class string
					Exit  int
					Cases []admission.Case
				}
			}
			if err := json.Unmarshal([]byte(errs), &got); err != nil || code != 12 || out != "" || got.Error.Exit != 12 {
				t.Fatalf("exit %d, %v, stdout %q, stderr %s", code, err, out, errs)
			}
			var failed []string
			for _, c := range got.Error.Cases {
				if c.Pass || c.Title == "" || c.Expected == "" || c.Got == "" {
					t.Errorf("in error.cases: %+v", c)
				}
				failed = append(failed, c.ID)
			}
			for _, want := range tc.failed {
				if !slices.Contains(failed, want) {
					t.Errorf("%s is not among the failed cases %v", want, failed)
				}
			}
			if left, err := filepath.Glob(b.path("report*")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	liar.Honest()
	if code, _, errs := b.run(t, testPIN, testPassphrase, b.admitArgs(t, "--module", liar.Module, "--module-folder", b.env.Dir)...); code != 0 {
		t.Errorf("without the lie: exit %d, %s", code, errs)
	}
}

// checkReport reads the report as a ceremony does.
func (b *workbench) checkReport(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(b.path("report"))
	if err != nil {
		t.Fatal(err)
	}
	people := &charter.People{Roster: []charter.Member{{Person: *b.key.Public(), Role: charter.RoleConductor}}}
	x, err := admission.Open(data, people)
	if err != nil {
		t.Fatal(err)
	}
	r := x.Report
	if err := r.CheckTime(b.key.Public().World, time.Now()); err != nil {
		t.Error(err)
	}
	if !slices.Equal(x.By, []string{"conductor"}) || r.Token.Label != "work" || !slices.Equal(r.Algorithms, []string{"p256", "rsa3072-pss"}) {
		t.Errorf("report %+v by %s for %v", r.Token, x.By, r.Algorithms)
	}
}

func TestHSMInspect(t *testing.T) {
	b := newBench(t)
	module := hsmtest.Module(t)
	id, err := b.env.Supervisor.Find(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	s := b.env.Open(t, id)
	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	sp := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, 1), Label: "firmware"}
	if _, err := s.Generate(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := b.run(t, "", "", "hsm", "inspect", "--module", module); code != 0 || !strings.Contains(out, `token "work"`) {
		t.Errorf("list: exit %d, %s, %s", code, out, errs)
	}
	code, out, errs := b.run(t, testPIN, "", "hsm", "inspect", "--module", module, "--token", "work", "--pin-fd", "3", "--json")
	var res hsmInspectResult
	if err := json.Unmarshal([]byte(out), &res); code != 0 || err != nil {
		t.Fatalf("exit %d, %v, %s", code, err, errs)
	}
	if len(res.Objects) != 2 || len(res.Keys) != 1 || res.Keys[0].ID != sp.KeyID.String() || len(res.Keys[0].Attributes.Private) == 0 {
		t.Errorf("%d objects, keys %+v", len(res.Objects), res.Keys)
	}
	// What is signed of the token names what is not ours, too.
	pkcs11Tool(t, b.env.Conf, "work", "--login", "--pin", testPIN, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "0102", "--label", "back-door")
	pkcs11Tool(t, b.env.Conf, "work", "--login", "--pin", testPIN, "--write-object", b.path("pass"), "--type", "data", "--label", "note")
	if code, _, errs := b.run(t, testPIN, testPassphrase, "hsm", "inspect", "--module", module, "--token", "work", "--pin-fd", "3",
		"--out", b.path("work.inspection"), "--signer", b.path("conductor.key"), "--signer-fd", "4"); code != 0 {
		t.Fatalf("signed: exit %d, %s", code, errs)
	}
	signed, err := os.ReadFile(b.path("work.inspection"))
	if err != nil {
		t.Fatal(err)
	}
	i, _, err := inspection.Open(signed, &charter.People{Roster: []charter.Member{{Person: *b.key.Public(), Role: charter.RoleWitness}}})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(i.Others, func(a, b inspection.Object) int { return strings.Compare(a.Class, b.Class) })
	if want := []inspection.Object{{Class: "CKO_DATA", Label: "note", Object: "(not reported)"}, {Class: "CKO_PRIVATE_KEY", Label: "back-door", Object: "0102"}, {Class: "CKO_PUBLIC_KEY", Label: "back-door", Object: "0102"}}; len(i.Keys) != 1 || !slices.Equal(i.Others, want) {
		t.Errorf("%d keys, others %+v, want %+v", len(i.Keys), i.Others, want)
	}
	if code, out, _ := b.run(t, "wrongwrong", "", "hsm", "inspect", "--module", module, "--token", "work", "--pin-fd", "3"); code != 12 || out != "" {
		t.Errorf("wrong PIN: exit %d, %q", code, out)
	}
}

// pkcs11Tool changes a token behind the back of keyrite.
func pkcs11Tool(t *testing.T, conf, token string, args ...string) {
	t.Helper()
	run := func(args ...string) string {
		cmd := exec.Command("pkcs11-tool", append([]string{"--module", hsmtest.Module(t)}, args...)...)
		cmd.Env = []string{"SOFTHSM2_CONF=" + conf, "PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("pkcs11-tool (OpenSC): %v\n%s", err, out)
		}
		return string(out)
	}
	// By its slot: a label also finds a token whose label begins with it.
	slot := ""
	for line := range strings.Lines(run("--list-slots")) {
		if _, rest, ok := strings.Cut(line, "(0x"); ok && strings.HasPrefix(line, "Slot ") {
			slot, _, _ = strings.Cut(rest, ")")
		}
		if name, label, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "token label" && strings.TrimSpace(label) == token {
			run(append([]string{"--slot", "0x" + slot}, args...)...)
			return
		}
	}
	t.Fatalf("there is no token %s", token)
}

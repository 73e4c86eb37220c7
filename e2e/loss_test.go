package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/person"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/update"
	"keyrite/hsm/hsmtest"
)

const shopWorld = "rehearsal:lossofwork"

// shop is a folder with the built programs, people, requests and a binding, over a
// SoftHSM store of its own.
type shop struct {
	dir   string
	env   *hsmtest.Env
	names []string
}

func newShop(t *testing.T) *shop {
	t.Helper()
	h := &shop{dir: t.TempDir(), env: hsmtest.NewStore(t)}
	if err := os.Mkdir(h.path("bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	hsmtest.Programs(t, h.path("bin"), "keyrite", "keyrite-hsmd", "keyrite-verify")
	bind := "format: keyrite/bind/v1\nworld: " + shopWorld + "\nmodule: " + h.env.Config.Module + "\ntokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}\nshares: shares-one\npeople:\n"
	for _, name := range []string{"conductor", "master1", "master2", "master3", "master4", "master5", "witness1", "witness2", "approver1", "approver2"} {
		role := strings.Replace(strings.TrimRight(name, "12345"), "master", "key-master", 1)
		h.person(t, name)
		bind += fmt.Sprintf("  - {person: %s.person, key: %s.key, role: %s}\n", name, name, role)
	}
	bind += "requests: {factory-ca: a.csr, report: b.csr, relay-access: c.csr, relay-vpn: d.csr}\nkeys: {pipeline1: pipeline1.key.pub}\n"
	for _, n := range []string{"a.csr", "b.csr", "c.csr", "d.csr"} {
		h.request(t, n)
	}
	h.write(t, "bind-one.yaml", bind)
	answers := "format: keyrite/answers/v1\ndocuments: {all: passport}\nelsewhere: [witness2]\nyes: [all]\npassphrases:\n"
	for _, n := range h.names {
		answers += "  " + n + ": " + n + ".pass\n"
	}
	h.write(t, "answers.yaml", answers)
	return h
}

func (h *shop) path(name string) string { return filepath.Join(h.dir, name) }

func (h *shop) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func phrase(name string) string { return "passphrase of " + name }

func (h *shop) person(t *testing.T, name string) {
	t.Helper()
	k, err := person.New(name, shopWorld)
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal([]byte(phrase(name)))
	if err != nil {
		t.Fatal(err)
	}
	h.names = append(h.names, name)
	h.write(t, name+".person", string(public))
	h.write(t, name+".key", string(sealed))
	h.write(t, name+".pass", phrase(name)+"\n")
}

func (h *shop) request(t *testing.T, name string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, name, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
}

func (h *shop) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.path("bin/keyrite"), args...)
	if strings.HasPrefix(args[0], "keyrite-") {
		cmd = exec.Command(h.path("bin/"+args[0]), args[1:]...)
	}
	cmd.Dir = h.dir
	cmd.Env = []string{"SOFTHSM2_CONF=" + h.env.Conf}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no controlling terminal
	return cmd
}

func (h *shop) run(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	cmd := h.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code is looked at
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// must runs a program that has to end well.
func (h *shop) must(t *testing.T, stdin []string, args ...string) string {
	t.Helper()
	cmd := h.command(args...)
	if stdin != nil { // passphrases by descriptor 3
		h.write(t, "pass", strings.Join(stdin, "\n")+"\n")
		f, err := os.Open(h.path("pass"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
		cmd.Args = append(cmd.Args, "--passphrase-fd", "3")
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args[:2], " "), err, out.String(), errs.String())
	}
	return out.String()
}

// released takes a release from request to .krf under the charter and anchors of
// a record, opened by three shares of safe.
func (h *shop) released(t *testing.T, name, version, security, safe string, trust []string) string {
	t.Helper()
	args, phrases := h.prepared(t, name, version, security, safe, trust)
	h.must(t, phrases, args...)
	return strings.TrimSuffix(name, ".img") + ".krf"
}

// prepared does all of a release but the signing, whose command it returns with the
// passphrases of those who open the safe.
func (h *shop) prepared(t *testing.T, name, version, security, safe string, trust []string) (args, phrases []string) {
	t.Helper()
	return h.preparedFor(t, "gw100", name, version, security, safe, trust)
}

func (h *shop) preparedFor(t *testing.T, product, name, version, security, safe string, trust []string) (args, phrases []string) {
	t.Helper()
	h.write(t, name, "\x7fimage "+version+strings.Repeat(" and the rest of it", 999))
	h.must(t, nil, append([]string{"release", "request", name, "--product", product, "--version", version, "--security-version", security, "--pipeline-key", "pipeline1.key", "--out", name + ".request"}, trust...)...)
	args = []string{"release", "sign", name + ".request", "--image", name, "--bind", "bind-one.yaml", "--state-dir", "signer-" + safe, "--out-dir", "."}
	for _, who := range []string{"approver1", "approver2"} {
		h.must(t, []string{phrase(who)}, append([]string{"release", "approve", name + ".request", "--image", name, "--key", who + ".key", "--out", name + "." + who}, trust...)...)
		args = append(args, "--approval", name+"."+who)
	}
	openers, phrases := h.three(safe)
	return append(append(args, openers...), trust...), phrases
}

// three are three key masters with their shares of a safe.
func (h *shop) three(safe string) (openers, phrases []string) {
	for _, m := range []string{"master1", "master3", "master5"} {
		openers = append(openers, "--opener", m+".key:shares-one/"+safe+"/"+m+".share")
		phrases = append(phrases, phrase(m))
	}
	return openers, phrases
}

// TestLossOfTheWorkToken: the first work token is gone with its folder. A quorum
// opens the standby in a ceremony, releases and publishes with it, all with the
// programs as they are shipped; the release verifies under the succession
// statement, and the old key's does no more (R-CER-24). A gateway that was never touched
// follows.
func TestLossOfTheWorkToken(t *testing.T) {
	h := newShop(t)
	h.must(t, nil, "release", "pipeline-key", "--out", "pipeline1.key")
	h.must(t, nil, "ceremony", "new", "genesis", "--module", h.env.Config.Module, "--enforce=false", "--defaults", "--break=no", "--printer=no", "--root-token", "one-root", "--work-token", "one-work", "--out", "one.yaml")
	h.must(t, nil, "ceremony", "rehearse", "one.yaml", "--bind", "bind-one.yaml", "--answers", "answers.yaml", "--record", "record-one")
	genesis := []string{"--anchor", "record-one/outputs/anchors.json", "--charter", "record-one/outputs/charter.jsonl"}
	h.must(t, []string{phrase("witness2")}, "keyrite-verify", "cosign", "record-one", "--key", "witness2.key", "--anchor", "record-one/outputs/anchors.json")
	old := h.released(t, "old.img", "1.0", "3", "work", genesis)
	openers, phrases := h.three("work")
	h.must(t, phrases, append(append([]string{"release", "publish", old, "--repo", "repo", "--root", "record-one/outputs/1.root.json", "--bind", "bind-one.yaml"}, openers...), genesis...)...)

	if err := os.RemoveAll(filepath.Dir(h.tokenObject(t, "one-work"))); err != nil {
		t.Fatal(err)
	}
	h.must(t, nil, "ceremony", "new", "hsm-lost", "--module", h.env.Config.Module, "--enforce=false", "--defaults", "--root-token", "one-root", "--work-token", "one-work", "--out", "lost.yaml")
	base, err := os.ReadFile(h.path("bind-one.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(base), "tokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}\n", "", 1)
	h.write(t, "bind-lost.yaml", text+"anchors: record-one/outputs/anchors.json\ncharter: record-one/outputs/charter.jsonl\nrecords: [record-one]\nroot: record-one/outputs/1.root.json\nreleased: [signer-work/ledger.jsonl, old.img.sigstore.json]\n")
	h.must(t, nil, "ceremony", "rehearse", "lost.yaml", "--bind", "bind-lost.yaml", "--answers", "answers.yaml", "--record", "record-lost")
	h.must(t, []string{phrase("witness2")}, "keyrite-verify", "cosign", "record-lost", "--key", "witness2.key", "--anchor", "record-one/outputs/anchors.json")
	h.must(t, nil, "keyrite-verify", "record", "record-lost", "--anchor", "record-one/outputs/anchors.json")

	statement := []string{"--succession", "record-lost/outputs/succession.json"}
	after := append([]string{"--anchor", "record-one/outputs/anchors.json", "--charter", "record-lost/outputs/charter.jsonl"}, statement...)
	// The new signer begins with an empty ledger, and is held to what was reached.
	lower, _ := h.prepared(t, "lower.img", "1.1", "2", "work2", after)
	if code, _, errs := h.run(t, lower...); code != 13 || !strings.Contains(errs, "3 is signed") {
		t.Errorf("a lower security version by the standby: exit %d, %s", code, errs)
	}
	fresh := h.released(t, "new.img", "1.1", "4", "work2", after)
	openers, phrases = h.three("work2")
	h.must(t, phrases, append(append([]string{"release", "publish", fresh, "--repo", "repo", "--root", "record-lost/outputs/2.root.json", "--bind", "bind-one.yaml"}, openers...), after...)...)
	h.must(t, nil, append([]string{"keyrite-verify", "firmware", fresh, "--anchor", "record-one/outputs/anchors.json"}, statement...)...)
	if code, _, errs := h.run(t, append([]string{"keyrite-verify", "firmware", old, "--anchor", "record-one/outputs/anchors.json"}, statement...)...); code != 13 || !strings.Contains(errs, "replaced") {
		t.Errorf("the old key's release: exit %d, %s", code, errs)
	}
	if code, _, errs := h.run(t, "keyrite-verify", "firmware", fresh, "--anchor", "record-one/outputs/anchors.json"); code != 14 || !strings.Contains(errs, "--succession") {
		t.Errorf("without the statement: exit %d, %s", code, errs)
	}
	// From the standby's release back to the genesis where its key was born.
	way := h.must(t, nil, append([]string{"trace", fresh, "--anchor", "record-one/outputs/anchors.json", "--record", "record-one"}, statement...)...)
	if !strings.Contains(way, "firmware-2") || !strings.Contains(way, "born in entry") {
		t.Errorf("trace: %s", way)
	}
	offered, err := filepath.Glob(h.path("repo/targets/*.succession.json"))
	if err != nil || len(offered) != 1 {
		t.Errorf("the repository offers %v, %v", offered, err)
	}
	if out, err := exec.Command("grep", "-c", "succession.json", h.path("repo/metadata/2.targets.json")).CombinedOutput(); err != nil {
		t.Errorf("targets: %s", out)
	}
	h.gatewayFollows(t)
}

// tokenObject finds the token.object of the token with that label.
func (h *shop) tokenObject(t *testing.T, label string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.env.TokenDir, "*/token.object"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && bytes.Contains(data, []byte(label+" ")) {
			return f
		}
	}
	t.Fatalf("no token %s", label)
	return ""
}

// gatewayFollows has a gateway that was born under the genesis, and never touched
// since, update itself from the repository.
func (h *shop) gatewayFollows(t *testing.T) {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(h.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	file := read("record-one/outputs/anchors.json")
	a, err := anchor.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := a.Key("firmware", "dsse")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(file)
	e := &element{birth: secureelement.Birth{Anchors: hex.EncodeToString(sum[:]), Vault: a.Vault, World: a.World}, key: key.(*ecdsa.PublicKey)}
	device := update.Device{Product: "gw100", Hardware: "gw100"}
	slots, err := update.OpenSlots(h.path("gateway"), e, device)
	if err != nil {
		t.Fatal(err)
	}
	defer slots.Close()
	c := &update.Client{
		Source: update.NewFolder(h.path("repo")), Dir: h.path("gateway-tuf"), Root: read("record-one/outputs/1.root.json"), Anchors: a,
		Element: e, Device: device, Now: time.Now, Succession: slots.Succession(),
	}
	offer, err := c.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := offer.Statement.Predicate; p.Version != "1.1" || p.Key.ID != "firmware-2" {
		t.Errorf("offered %s by %s", p.Version, p.Key.ID)
	}
	if _, err := slots.Install(t.Context(), offer); err != nil {
		t.Fatal(err)
	}
	if _, err := slots.Boot(); err != nil {
		t.Fatal(err)
	}
	if _, err := slots.Confirm(); err != nil {
		t.Fatal(err)
	}
	if e.follows != 17 { // eight keys replaced, and the way back closed
		t.Errorf("the element counts %d", e.follows)
	}
}

// element stands for a gateway's TPM, which gateway/update has its own tests with.
type element struct {
	birth             secureelement.Birth
	key               *ecdsa.PublicKey
	security, follows int64
	floor             time.Time
}

func (e *element) Birth() (*secureelement.Birth, error)   { return &e.birth, nil }
func (e *element) FirmwareKey() (*ecdsa.PublicKey, error) { return e.key, nil }
func (e *element) SecurityVersion() (int64, error)        { return e.security, nil }
func (e *element) RaiseSecurityVersion(v int64) error     { e.security = v; return nil }
func (e *element) TimeFloor() (time.Time, error)          { return e.floor, nil }
func (e *element) RaiseTimeFloor(at time.Time) error      { e.floor = at; return nil }
func (e *element) Succession() (int64, bool, error)       { return e.follows, true, nil }
func (e *element) RaiseSuccession(v int64) error          { e.follows = v; return nil }

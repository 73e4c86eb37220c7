package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/clitest"
	"keyrite/scripts/ceremonies"
	"keyrite/vault/quorum"
)

const houseWorld = "rehearsal:abcdefgh"

// house is the room of a ceremony: the real programs, ten people, requests, a
// SoftHSM store, and a script.
type house struct {
	dir, program string
	env          *hsmtest.Env
	people       map[string]*person.Key
	names        []string
	extra        []string // further environment of its programs
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{dir: t.TempDir(), env: hsmtest.NewStore(t), people: map[string]*person.Key{}}
	h.program = h.path("bin/keyrite")
	if err := os.Mkdir(h.path("bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"keyrite", "keyrite-verify"} {
		cmd := exec.Command("go", "build", "-o", h.path("bin/"+name), "../"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	data, err := os.ReadFile(hsmtest.HSMD(t))
	if err != nil {
		t.Fatal(err)
	}
	// A copy, so that its processes can be told from those of other tests.
	if err := os.WriteFile(h.path("bin/keyrite-hsmd"), data, 0o700); err != nil {
		t.Fatal(err)
	}
	bind := "format: keyrite/bind/v1\nworld: " + houseWorld + "\nmodule: " + h.env.Config.Module + "\ntokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}\npeople:\n"
	for _, name := range []string{"conductor", "master1", "master2", "master3", "master4", "master5", "witness1", "witness2", "approver1", "approver2"} {
		role := strings.TrimRight(name, "12345")
		if role == "master" {
			role = charter.RoleKeyMaster
		}
		h.person(t, name)
		bind += fmt.Sprintf("  - {person: %s.person, key: %s.key, role: %s}\n", name, name, role)
	}
	bind += "requests: {factory-ca: a.csr, report: b.csr, relay-access: c.csr, relay-vpn: d.csr}\nkeys: {pipeline1: pipeline1.pem}\n"
	for _, n := range []string{"a.csr", "b.csr", "c.csr", "d.csr", "pipeline1.pem"} {
		h.request(t, n)
	}
	h.write(t, "bind-base.yaml", bind)
	h.write(t, "answers.yaml", h.answers())
	return h
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

func (h *house) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func phrase(name string) string { return "canary of " + name + " 5f1d" }

func (h *house) person(t *testing.T, name string) {
	t.Helper()
	k, err := person.New(name, houseWorld)
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
	h.people[name], h.names = k, append(h.names, name)
	h.write(t, name+".person", string(public))
	h.write(t, name+".key", string(sealed))
	h.write(t, name+".pass", phrase(name)+"\n")
}

func (h *house) request(t *testing.T, name string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	typ := "CERTIFICATE REQUEST"
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if strings.HasSuffix(name, ".pem") {
		typ = "PUBLIC KEY"
		der, err = x509.MarshalPKIXPublicKey(k.Public())
	}
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, name, string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})))
}

// answers prepares everybody but those at the terminal.
func (h *house) answers(atTerminal ...string) string {
	text := "format: keyrite/answers/v1\ndocuments: {all: passport}\nelsewhere: [witness2]\n"
	var yes []string
	phrases := "passphrases:\n"
	for _, n := range h.names {
		if !slices.Contains(atTerminal, n) {
			yes = append(yes, n)
			phrases += "  " + n + ": " + n + ".pass\n"
		}
	}
	return text + "yes: [" + strings.Join(yes, ", ") + "]\n" + phrases
}

// attempt writes script and binding for tokens of that label and returns the
// arguments of a rehearsal into record-LABEL.
func (h *house) attempt(t *testing.T, label, answers string) []string {
	t.Helper()
	base, err := os.ReadFile(h.path("bind-base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind-"+label+".yaml", string(base)+"shares: shares-"+label+"\n")
	code, out, errs := h.run(t, "ceremony", "new", "genesis", "--module", h.env.Config.Module, "--enforce=false", "--break=no", "--printer=no", "--root-token", label+"-root", "--work-token", label+"-work", "--out", label+".yaml")
	if code != 0 {
		t.Fatalf("new: exit %d, %s%s", code, out, errs)
	}
	return []string{"ceremony", "rehearse", label + ".yaml", "--bind", "bind-" + label + ".yaml", "--answers", answers, "--record", "record-" + label}
}

func (h *house) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.program, args...)
	if strings.HasPrefix(args[0], "keyrite-") {
		cmd = exec.Command(h.path("bin/"+args[0]), args[1:]...)
	}
	cmd.Dir = h.dir
	cmd.Env = append([]string{"SOFTHSM2_CONF=" + h.env.Conf}, h.extra...)
	// No controlling terminal, whoever runs the tests.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func (h *house) run(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	cmd := h.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code is looked at
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// processes lists what still runs of this house's programs.
func (h *house) processes() []string {
	var out []string
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && strings.HasPrefix(exe, h.dir) {
			out = append(out, l+" "+exe)
		}
	}
	return out
}

func (h *house) noOrphans(t *testing.T) {
	t.Helper()
	if !clitest.Await(10*time.Second, func() bool { return len(h.processes()) == 0 }) {
		t.Fatalf("left running: %v", h.processes())
	}
}

// kill -9 at any moment: the record says where it stopped, recover takes it to
// VOID, nothing goes on in the folder, the next attempt names it, and no process
// is left (R-CER-14, R-CER-15).
func TestKilledCeremony(t *testing.T) { killed(t, 4) }

func TestLongKilledCeremony(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: set KEYRITE_TEST_LONG=1")
	}
	killed(t, 60)
}

func killed(t *testing.T, times int) {
	h := newHouse(t)
	// The transcript's length is the clock: kills spread over all entries.
	const entries = 450
	after := ""
	for i := range times {
		label := "k" + strconv.Itoa(i)
		args := h.attempt(t, label, "answers.yaml")
		if after != "" {
			args = append(args, "--after", after)
		}
		cmd := h.command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		at := 35 + (2*i+1)*(entries-35)/(2*times)
		h.waitForEntries(t, label, at)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		h.noOrphans(t)
		t.Run(fmt.Sprintf("at entry %d", at), func(t *testing.T) {
			if h.afterKill(t, label, i%2 == 0) {
				after = "record-" + label
			}
		})
	}
	args := h.attempt(t, "last", "answers.yaml")
	if code, out, errs := h.run(t, append(args, "--after", after)...); code != 0 || !strings.HasPrefix(out, "CLOSED") {
		t.Fatalf("the next attempt: exit %d, %s%s", code, out, errs)
	}
	first, err := os.ReadFile(h.path("record-last/transcript.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := ceremony.ReadState(h.path(after))
	if err != nil || !bytes.Contains(first, []byte(`"after":{"record":"`+st.Record+`"`)) {
		t.Errorf("it does not name the void attempt: %v", err)
	}
}

func (h *house) waitForEntries(t *testing.T, label string, n int) {
	t.Helper()
	came := clitest.Await(time.Minute, func() bool {
		data, _ := os.ReadFile(h.path("record-" + label + "/transcript.jsonl"))
		return bytes.Count(data, []byte("\n")) >= n
	})
	if !came {
		t.Fatalf("the ceremony did not come to entry %d", n)
	}
}

// afterKill says whether the attempt is void; one killed at its very end may
// have closed.
func (h *house) afterKill(t *testing.T, label string, withShares bool) bool {
	dir := "record-" + label
	st, err := ceremony.ReadState(h.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := h.run(t, "ceremony", "status", "--record", dir, "--json")
	var res struct{ Schema, State string }
	if err := json.Unmarshal([]byte(out), &res); code != 0 || err != nil || res.Schema != "keyrite/ceremony-status/v1" || res.State != st.State {
		t.Errorf("status: exit %d, %s%s", code, out, errs)
	}
	again := []string{"ceremony", "rehearse", label + ".yaml", "--bind", "bind-" + label + ".yaml", "--answers", "answers.yaml", "--record", dir}
	if code, _, errs := h.run(t, again...); code != 11 && st.State != "CLOSED" {
		t.Errorf("going on after a kill in %s: exit %d, %s", st.State, code, errs)
	}
	args := []string{"ceremony", "recover", "--record", dir, "--bind", "bind-" + label + ".yaml"}
	pass := ""
	for _, safe := range []string{"root", "work", "root2", "work2"} {
		for _, m := range []string{"master1", "master3", "master5"} {
			if file := "shares-" + label + "/" + safe + "/" + m + ".share"; withShares && st.PINsChanged[safe] {
				args = append(args, "--opener", safe+"="+m+".key:"+file)
				pass += phrase(m) + "\n"
			}
		}
	}
	h.write(t, "pass", pass)
	recoverIt := func(args ...string) (int, string) {
		f, err := os.Open(h.path("pass"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd := h.command(append(args, "--passphrase-fd", "3")...)
		cmd.ExtraFiles = []*os.File{f}
		text, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(text)
	}
	code, text := recoverIt(args...)
	if code == 10 && !withShares && len(st.PINsChanged) > 0 {
		// Tokens that shares open may hold keys: nothing is decided without
		// them, until somebody says that their holders cannot come.
		if now, err := ceremony.ReadState(h.path(dir)); err != nil || now.Ended {
			t.Errorf("decided without the key masters: %v", err)
		}
		code, text = recoverIt(append(args, "--abandon")...)
	}
	if code == 0 && st.State == "CLOSED" {
		return false
	}
	if code != 11 {
		t.Fatalf("recover after a kill in %s: exit %d, %s", st.State, code, text)
	}
	v, err := record.Read(os.DirFS(h.path(dir)))
	if v == nil || v.State != "VOID" {
		t.Fatalf("%s", err)
	}
	cleaned, announced := 0, 0
	for _, l := range v.Timeline {
		if i, ok := l.Data.(*record.Intent); ok && i.Effect == "init-token" {
			announced++
		}
		if c, ok := l.Data.(*record.Cleanup); ok {
			cleaned++
			if c.Tainted == "" {
				t.Errorf("token of %s is not named", c.Safe)
			}
			if withShares && st.PINsChanged[c.Safe] && c.Left != 0 {
				t.Errorf("%d objects left in the token of %s: %s", c.Left, c.Safe, c.Tainted)
			}
		}
	}
	if cleaned != announced {
		t.Errorf("%d of %d tokens are spoken of", cleaned, announced)
	}
	if code, _, errs := h.run(t, "keyrite-verify", "record", dir, "--anchor", "nothing"); code == 0 {
		t.Errorf("the verifier accepts it: %s", errs)
	}
	return true
}

// A token that is taken away in the middle makes the ceremony void, and is named
// as never to be used again (R-CER-14).
func TestTokenTakenAway(t *testing.T) {
	h := newHouse(t)
	cmd := h.command(h.attempt(t, "gone", "answers.yaml")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.waitForEntries(t, "gone", 120)
	if err := os.Rename(h.env.TokenDir, h.env.TokenDir+".away"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 11 || !strings.Contains(errs.String(), "never use this token again") {
		t.Errorf("exit %d, %s", code, errs.String())
	}
	h.noOrphans(t)
	if st, err := ceremony.ReadState(h.path("record-gone")); err != nil || st.State != "VOID" || !st.Ended {
		t.Errorf("%+v, %v", st, err)
	}
}

// A pipe that breaks on stderr must not kill the engine on the spot.
func TestBrokenPipe(t *testing.T) {
	h := newHouse(t)
	cmd := h.command(h.attempt(t, "pipe", "answers.yaml")...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go func() {
		_, _ = io.CopyN(io.Discard, r, 6000)
		_ = r.Close()
	}()
	_ = cmd.Wait()
	if st, err := ceremony.ReadState(h.path("record-pipe")); err != nil || st.State != "VOID" || !st.Ended || cmd.ProcessState.ExitCode() != 11 {
		t.Errorf("exit %d, state %s, %v", cmd.ProcessState.ExitCode(), st.State, err)
	}
	h.noOrphans(t)
}

// No secret stands in the record, in what is printed, or in the arguments and
// environment of any process while the ceremony runs (R-CER-4, R-CER-13).
func TestNoSecretShows(t *testing.T) {
	h := newHouse(t)
	cmd := h.command(h.attempt(t, "one", "answers.yaml")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var seen map[string]bool
	var wg sync.WaitGroup
	wg.Go(func() { seen = watch(h.dir, stop) })
	err := cmd.Wait()
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(seen) < 4 {
		t.Fatalf("only %d process pages were seen", len(seen))
	}
	places := map[string][]byte{"what is printed": out.Bytes()}
	for s := range seen {
		places["a process: "+s] = []byte(s)
	}
	err = filepath.WalkDir(h.path("record-one"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			places[p], err = os.ReadFile(p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets := h.secrets(t, "one")
	if len(secrets) != 10+10+20+4 {
		t.Fatalf("%d secrets", len(secrets))
	}
	search(t, places, secrets)
	// The search finds what is there: the names of the files with passphrases.
	if !bytes.Contains(places["what is printed"], []byte("conductor")) {
		t.Error("the search is broken")
	}
}

// watch collects arguments and environment of every process below dir.
func watch(dir string, stop <-chan struct{}) map[string]bool {
	seen := map[string]bool{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return seen
		case <-tick.C:
		}
		links, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, l := range links {
			if exe, err := os.Readlink(l); err != nil || !strings.HasPrefix(exe, dir) {
				continue
			}
			for _, f := range []string{"cmdline", "environ"} {
				if data, err := os.ReadFile(filepath.Join(filepath.Dir(l), f)); err == nil {
					seen[f+" "+string(data)] = true
				}
			}
		}
	}
}

// secrets are all that the closed ceremony had: passphrases, seeds, shares, PINs.
func (h *house) secrets(t *testing.T, label string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for n, k := range h.people {
		out["passphrase of "+n] = []byte(phrase(n))
		seed, ok := k.Signer().(interface{ Seed() []byte })
		if !ok {
			t.Fatalf("signer of type %T", k.Signer())
		}
		out["seed of "+n] = seed.Seed()
	}
	lines, err := os.ReadFile(h.path("record-" + label + "/outputs/charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := record.VerifyOwn(os.DirFS(h.path("record-" + label)))
	if v == nil {
		t.Fatal(err)
	}
	state, err := charter.Fold(lines, v.Charter.World, v.Charter.Vault)
	if err != nil {
		t.Fatal(err)
	}
	for _, safe := range []string{"root", "work", "root2", "work2"} {
		p := quorum.OpenParams{State: state, Safe: safe, Operation: strings.Repeat("ab", 32), Nonce: make([]byte, 32)}
		var pass string
		for _, e := range state.Epochs[safe].Shares {
			data, err := os.ReadFile(h.path("shares-" + label + "/" + safe + "/" + e.Holder + ".share"))
			if err != nil {
				t.Fatal(err)
			}
			place, pub, err := share.PlaceOf(state, safe, e.Holder)
			if err != nil {
				t.Fatal(err)
			}
			raw, _, err := share.Open(data, h.people[e.Holder].Identity(), place, pub)
			if err != nil {
				t.Fatal(err)
			}
			out["share of "+e.Holder+" for "+safe] = raw
			key, err := os.ReadFile(h.path(e.Holder + ".key"))
			if err != nil {
				t.Fatal(err)
			}
			p.Openers = append(p.Openers, quorum.Opener{Key: key, Share: data})
			pass += phrase(e.Holder) + "\n"
		}
		out["PIN of "+safe] = h.pin(t, p, pass)
	}
	return out
}

func (h *house) pin(t *testing.T, p quorum.OpenParams, pass string) []byte {
	t.Helper()
	h.write(t, "pass", pass)
	f, err := os.Open(h.path("pass"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.Passphrases = f
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = quorum.Config{Executable: h.program}.Open(context.Background(), p, w)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	frame, err := io.ReadAll(r)
	if err != nil || len(frame) < 2+16 {
		t.Fatalf("%d bytes of PIN, %v", len(frame), err)
	}
	return frame[2:]
}

// terminal is a rehearsal at a terminal of its own.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	ptmx *os.File
	mu   sync.Mutex
	text bytes.Buffer
	from int // how far the test has read
}

func (h *house) terminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	ptmx, tty, err := clitest.OpenPTY(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	x := &terminal{t: t, cmd: h.command(args...), ptmx: ptmx}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.cmd.Process.Kill(); _ = ptmx.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptmx.Read(buf)
			x.mu.Lock()
			x.text.Write(buf[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return x
}

func (x *terminal) all() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.text.String()
}

// expect waits until text appears after what was expected before.
func (x *terminal) expect(text string) {
	x.t.Helper()
	came := clitest.Await(30*time.Second, func() bool {
		i := strings.Index(x.all()[x.from:], text)
		if i >= 0 {
			x.from += i + len(text)
		}
		return i >= 0
	})
	if !came {
		x.t.Fatalf("%q never appeared in:\n%s", text, x.all())
	}
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.ptmx, text); err != nil {
		x.t.Fatal(err)
	}
}

// signs says yes to each signature that is asked for.
func (x *terminal) signs(what ...string) {
	x.t.Helper()
	for _, w := range what {
		x.expect("Sign " + w + "?")
		x.send("yes\n")
	}
}

func (x *terminal) exit() int {
	_ = x.cmd.Wait()
	return x.cmd.ProcessState.ExitCode()
}

// A person at the terminal: the passphrase is not shown, a wrong one may be
// repeated, and the word incident ends it all (R-CER-13, R-CER-14).
func TestAtTheTerminal(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers-w1.yaml", h.answers("witness1"))
	x := h.terminal(t, h.attempt(t, "tty", "answers-w1.yaml")...)
	const prompt = "passphrase of your key: "
	x.expect(prompt)
	x.send("not the passphrase\n")
	x.expect("wrong passphrase")
	x.expect(prompt)
	x.send(phrase("witness1") + "\n")
	// Unlocked once: from here on a yes is enough.
	x.signs("which documents you saw", "the founding statement")
	x.expect("Do you agree with step 2.1?")
	x.send("\n") // Enter means yes
	x.expect("Do you agree with step 5.1?")
	x.send("incident\n")
	x.expect("who calls it")
	x.send("witness1\n")
	x.expect("what happened?")
	x.send("the door \x1b]52;c;eA== stood open\n")
	x.expect("VOID. Nothing of this attempt may be used.")
	if code := x.exit(); code != 11 {
		t.Errorf("exit %d", code)
	}
	if strings.Contains(x.all(), phrase("witness1")) || strings.Contains(x.all(), "not the passphrase") {
		t.Error("a passphrase was shown")
	}
	v, err := record.Read(os.DirFS(h.path("record-tty")))
	if v == nil || len(v.Incidents) != 1 || v.Incidents[0].By != "witness1" || v.Incidents[0].Envelope == nil {
		t.Errorf("%+v, %v", v, err)
	}
	h.noOrphans(t)
}

// Ctrl-C asks for the word VOID; anything else goes on.
func TestCtrlCAtTheTerminal(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers-w1.yaml", strings.Replace(h.answers("witness1"), "passphrases:\n", "passphrases:\n  witness1: witness1.pass\n", 1))
	x := h.terminal(t, h.attempt(t, "int", "answers-w1.yaml")...)
	x.signs("which documents you saw", "the founding statement")
	for range 2 {
		x.expect("Do you agree with step 2.1?")
		x.send("\x03")
		x.expect("Type VOID")
		x.send("\n")
		x.expect("going on")
	}
	x.expect("Do you agree with step 2.1?")
	x.send("yes\n")
	x.expect("Do you agree with step 5.1?")
	x.send("\x03")
	x.expect("Type VOID")
	x.send("VOID\n")
	if code := x.exit(); code != 11 || !strings.Contains(x.all(), "signal: interrupt") {
		t.Errorf("exit %d, %s", code, x.all())
	}
	// The same before ARMED ends the command and nothing else.
	h.write(t, "answers-c.yaml", h.answers("conductor"))
	x = h.terminal(t, h.attempt(t, "early", "answers-c.yaml")...)
	x.expect("Begin step 1.1?")
	x.send("\x03")
	if code := x.exit(); code != 130 {
		t.Errorf("before ARMED: exit %d, %s", code, x.all())
	}
	h.noOrphans(t)
}

// What needs no token: the commands' results, errors and exit codes.
func TestCeremonyScripts(t *testing.T) {
	template, _ := ceremonies.Text("genesis")
	h := strings.Repeat("ab", 32)
	text, err := script.Fill(template, nil, map[string]string{"KEYRITE": h, "HSMD": h, "MODULE": h, "NETWORK": "any", "SWAP": "any"})
	if err != nil {
		t.Fatal(err)
	}
	clitest.Run(t, "testdata/ceremony", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "genesis.yaml"), []byte(text), 0o600); err != nil {
			return err
		}
		return syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600)
	})
}

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/person"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/clitest"
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
	hsmtest.Programs(t, h.path("bin"), "keyrite", "keyrite-hsmd", "keyrite-verify")
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

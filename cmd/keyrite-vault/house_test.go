package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/clitest"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) {
	vaulttest.Child()
	os.Exit(m.Run())
}

// house is a vault's host and the homes of its key masters: the real programs over a
// founded vault.
type house struct {
	*vaulttest.Vault
	t    *testing.T
	dir  string
	said bytes.Buffer // by the host's programs
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{Vault: vaulttest.New(t), t: t, dir: t.TempDir()}
	if err := os.Mkdir(h.path("bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	hsmtest.Programs(t, h.path("bin"), "keyrite", "keyrite-hsmd", "keyrite-vault", "keyrite-verify")
	anchors, err := h.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	h.write("anchors.json", anchors)
	h.write("report.json", h.Report)
	for name, file := range h.Shares {
		sealed, err := h.People[name].Seal([]byte(phrase(name)))
		if err != nil {
			t.Fatal(err)
		}
		h.write(name+".share", file)
		h.write(name+".key", sealed)
		h.write(name+".pass", []byte(phrase(name)+"\n"))
	}
	h.write("charter.jsonl", h.Charter)
	h.bind("head: {file: head.json}\n")
	return h
}

// bind writes the binding; head is its last lines.
func (h *house) bind(head string) {
	h.write("vault.yaml", fmt.Appendf(nil, `format: keyrite/vault-bind/v1
world: %s
host: vault9
safe: work
module: %s
admissions: [report.json]
anchors: anchors.json
charter: charter.jsonl
sandbox: {folders: [%s], state_dir: %s}
%s`, h.World.World, h.HSM.Config.Module, h.HSM.Dir, h.HSM.Config.StateDir, head))
}

func phrase(name string) string { return "canary of " + name + " 7b20" }

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

func (h *house) write(name string, data []byte) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), data, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) read(name string) []byte {
	h.t.Helper()
	data, err := os.ReadFile(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

func (h *house) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.path("bin/"+args[0]), args[1:]...)
	cmd.Dir = h.dir
	cmd.Env = []string{"SOFTHSM2_CONF=" + h.HSM.Conf, "HOME=" + h.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no controlling terminal
	return cmd
}

// run runs a program of the host to its end.
func (h *house) run(args ...string) (int, string, string) {
	h.t.Helper()
	cmd := h.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code is looked at
	h.said.Write(out.Bytes())
	h.said.Write(errs.Bytes())
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// vault runs keyrite-vault with binding and state folder, and wants that exit code.
func (h *house) vault(want int, args ...string) (string, string) {
	h.t.Helper()
	code, out, errs := h.run(append([]string{"keyrite-vault"}, append(args, "--bind", "vault.yaml", "--state-dir", "state")...)...)
	if code != want {
		h.t.Fatalf("%v: exit %d, want %d: %s%s", args, code, want, out, errs)
	}
	return out, errs
}

// host makes the state folder and puts the host into the charter.
func (h *house) host() {
	h.t.Helper()
	h.vault(0, "create")
	key, err := loadKey(h.path("state"), hostKeyFile)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Keys["vault9"] = key
	h.Approve(charter.TypeHost, charter.Host{ID: "vault9", Key: h.SPKI("vault9")})
	h.write("charter.jsonl", h.Charter)
}

// answer is a key master at home: keyrite share open.
func (h *house) answer(request, name, out string) (int, string) {
	h.t.Helper()
	return h.answerWith(request, name, name+".share", out)
}

// answerWith is answer with that share.
func (h *house) answerWith(request, name, share, out string) (int, string) {
	h.t.Helper()
	r, err := os.Open(h.path(name + ".pass"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	cmd := h.command("keyrite", "share", "open", request, "--key", name+".key", "--share", share,
		"--anchor", "anchors.json", "--charter", "charter.jsonl", "--out", out, "--passphrase-fd", "3", "--yes-words", h.words(request))
	cmd.ExtraFiles = []*os.File{r}
	text, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(text)
}

// words are those of a request, as keyrite-verify tells them.
func (h *house) words(request string) string {
	h.t.Helper()
	_, out, _ := h.run("keyrite-verify", "open-request", request, "--anchor", "anchors.json", "--charter", "charter.jsonl")
	_, words, _ := strings.Cut(out, "request in words: ")
	words, _, _ = strings.Cut(words, "\n")
	return words
}

// serving is a running keyrite-vault serve.
type serving struct {
	h    *house
	cmd  *exec.Cmd
	errs bytes.Buffer
	out  *bufio.Reader
}

func (h *house) serve() *serving { h.t.Helper(); return h.serveWith() }

func (h *house) serveWith(args ...string) *serving {
	h.t.Helper()
	s := &serving{h: h, cmd: h.command(append([]string{"keyrite-vault", "serve", "--bind", "vault.yaml", "--state-dir", "state"}, args...)...)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	s.cmd.Stderr, s.out = &s.errs, bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() })
	s.ready()
	return s
}

func (s *serving) ready() {
	s.h.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil || line != "ready control state/control.sock\n" {
		_ = s.cmd.Wait()
		s.h.t.Fatalf("serve says %q (%v): %s", line, err, s.errs.String())
	}
}

// stop ends it with SIGTERM.
func (s *serving) stop() {
	s.h.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.h.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, s.out)
	if err := s.cmd.Wait(); err != nil {
		s.h.t.Fatalf("%v: %s", err, s.errs.String())
	}
}

// open has these key masters open the vault.
func (h *house) open(operation string, names ...string) {
	h.t.Helper()
	request := operation + ".request"
	_ = os.Remove(h.path(request))
	h.vault(0, "unseal", "--new-attempt", "--operation", operation, "--out", request)
	args := []string{"unseal"}
	for _, n := range names {
		answer := operation + "." + n
		_ = os.Remove(h.path(answer))
		if code, text := h.answer(request, n, answer); code != 0 {
			h.t.Fatalf("%s: exit %d: %s", n, code, text)
		}
		args = append(args, "--answer", answer)
	}
	if out, _ := h.vault(0, args...); !strings.Contains(out, "OPEN") {
		h.t.Fatalf("not open: %s", out)
	}
}

func (h *house) status() *statusResult {
	h.t.Helper()
	out, _ := h.vault(0, "status", "--json")
	var s statusResult
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	return &s
}

// alone waits until no program of the house runs but those.
func (h *house) alone(left int) {
	h.t.Helper()
	var found []string
	if !clitest.Await(20*time.Second, func() bool { found = h.processes(); return len(found) == left }) {
		h.t.Fatalf("%d are to run: %v", left, found)
	}
}

func (h *house) processes() []string {
	var out []string
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && strings.HasPrefix(exe, h.dir) {
			out = append(out, l+" "+filepath.Base(exe))
		}
	}
	return out
}

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"keyrite/ceremony"
)

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

// started runs a rehearsal in the background until it has n entries.
func (h *house) started(t *testing.T, label string, n int) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := h.command(h.attempt(t, label, "answers.yaml")...)
	errs := &bytes.Buffer{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.waitForEntries(t, label, n)
	return cmd, errs
}

// void wants the attempt ended as void for a reason, and no process left.
func (h *house) void(t *testing.T, label string, cmd *exec.Cmd, errs fmt.Stringer, text string) *ceremony.Status {
	t.Helper()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 11 || !strings.Contains(errs.String(), text) {
		t.Errorf("exit %d, %s", code, errs.String())
	}
	h.noOrphans(t)
	st, err := ceremony.ReadState(h.path("record-" + label))
	if err != nil || st.State != "VOID" || !st.Ended {
		t.Fatalf("%+v, %v", st, err)
	}
	if code, _, _ := h.run(t, "keyrite-verify", "record", "record-"+label, "--anchor", "nothing"); code == 0 {
		t.Error("the verifier accepts it")
	}
	return st
}

// Another token under the label of ours is not taken for it: the serial counts.
// Nothing happens to it (R-CER-14).
func TestTokenReplacedByAnother(t *testing.T) {
	h := newHouse(t)
	cmd, errs := h.started(t, "swap", 120)
	st, err := ceremony.ReadState(h.path("record-swap"))
	if err != nil || len(st.Tokens) == 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	if err := os.Rename(h.env.TokenDir, h.env.TokenDir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.env.TokenDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tok := range st.Tokens {
		util := exec.Command("softhsm2-util", "--init-token", "--free", "--label", tok.Token.Label, "--pin", "11112222", "--so-pin", "33334444")
		util.Env = []string{"SOFTHSM2_CONF=" + h.env.Conf, "PATH=/usr/bin:/bin"}
		if out, err := util.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	before := tree(t, h.env.TokenDir)
	h.void(t, "swap", cmd, errs, "never use this token again")
	// A token of a safe whose turn came later may have been made beside them.
	after := tree(t, h.env.TokenDir)
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			t.Errorf("another token was touched: %safter:\n%s", line, after)
		}
	}
}

// tree is every file below dir with its hash; SoftHSM's own locks left out.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, ".lock") {
			return err
		}
		data, err := os.ReadFile(p)
		fmt.Fprintf(&out, "%s %x\n", p, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A second process is turned away from the record, and from the tokens; the first
// one closes.
func TestSecondProcess(t *testing.T) {
	h := newHouse(t)
	args := h.attempt(t, "two", "answers.yaml")
	cmd := h.command(args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.waitForEntries(t, "two", 60)
	if code, _, errs := h.run(t, args...); code != 15 {
		t.Errorf("the same record: exit %d, %s", code, errs)
	}
	if code, _, errs := h.run(t, "ceremony", "recover", "--record", "record-two", "--abandon"); code != 15 {
		t.Errorf("recover while it runs: exit %d, %s", code, errs)
	}
	other := append(slices.Clone(args[:len(args)-1]), "record-other")
	if code, _, errs := h.run(t, other...); code != 16 || !strings.Contains(errs, "there is a token two-root already") {
		t.Errorf("the same tokens: exit %d, %s", code, errs)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A full disk in the middle voids; there was room for the end of the record.
func TestFullDisk(t *testing.T) {
	h := newHouse(t)
	args := h.attempt(t, "full", "answers.yaml")
	if err := os.Mkdir(h.path("disk"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", h.path("disk"), "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(h.path("disk"), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Symlink("disk/record", h.path("record-full")); err != nil {
		t.Fatal(err)
	}
	args[len(args)-1] = "disk/record"
	cmd := h.command(args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.waitForEntries(t, "full", 60)
	f, err := os.Create(h.path("disk/ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 16, 4096} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	_ = f.Close()
	h.void(t, "full", cmd, &errs, "no space left on device")
}

// A step that takes longer than its limit voids, while a person thinks.
func TestTimeOut(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers-w1.yaml", strings.Replace(h.answers("witness1"), "passphrases:\n", "passphrases:\n  witness1: witness1.pass\n", 1))
	args := h.attempt(t, "slow", "answers-w1.yaml")
	text, err := os.ReadFile(h.path("slow.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	short := regexp.MustCompile(`(title: Founding statement.*)limit: [0-9]+m(, minutes: [0-9]+)?`).ReplaceAllString(string(text), "${1}limit: 5s")
	if short == string(text) {
		t.Fatal("the script has another step 2.1")
	}
	h.write(t, "slow.yaml", short)
	x := h.terminal(t, args...)
	x.signs("which documents you saw")
	x.expect("Sign the founding statement?")
	x.expect("step 2.1 (Founding statement): the time limit passed")
	x.expect("VOID. Nothing of this attempt may be used.")
	if code := x.exit(); code != 11 {
		t.Errorf("exit %d", code)
	}
	h.noOrphans(t)
}

// A terminal that is closed voids at once; nobody is left to ask.
func TestTerminalClosed(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers-w1.yaml", strings.Replace(h.answers("witness1"), "passphrases:\n", "passphrases:\n  witness1: witness1.pass\n", 1))
	x := h.terminal(t, h.attempt(t, "hup", "answers-w1.yaml")...)
	x.signs("which documents you saw", "the founding statement")
	x.expect("Do you agree with step 2.1?")
	if err := x.ptmx.Close(); err != nil {
		t.Fatal(err)
	}
	if code := x.exit(); code != 11 {
		t.Errorf("exit %d", code)
	}
	st, err := ceremony.ReadState(h.path("record-hup"))
	if err != nil || st.State != "VOID" || !st.Ended || !strings.Contains(st.Cause, "hangup") && !strings.Contains(st.Cause, "terminal was closed") {
		t.Errorf("%+v, %v", st, err)
	}
	h.noOrphans(t)
}

// A disk that is mounted in the middle, and that no step takes in, voids. The
// program has a mount namespace of its own here; the disk is a real one, a loop
// device under another name, since /dev/loopN is no medium.
func TestUnlistedMedium(t *testing.T) {
	h := newHouse(t)
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	h.write(t, "stick.img", "")
	if err := os.Truncate(h.path("stick.img"), 4<<20); err != nil {
		t.Fatal(err)
	}
	run("mkfs.ext4", "-q", h.path("stick.img"))
	loop := run("losetup", "--find", "--show", h.path("stick.img"))
	t.Cleanup(func() { run("losetup", "--detach", loop) })
	var dev unix.Stat_t
	if err := unix.Stat(loop, &dev); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(h.path("stick"), unix.S_IFBLK|0o600, int(dev.Rdev)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.path("mnt"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := h.command(h.attempt(t, "stick", "answers.yaml")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // private: see syscall.SysProcAttr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.waitForEntries(t, "stick", 60)
	run("nsenter", "-t", strconv.Itoa(cmd.Process.Pid), "-m", "mount", h.path("stick"), h.path("mnt"))
	h.void(t, "stick", cmd, &errs, "that the script does not list: mount "+h.path("stick"))
}

package main

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"maps"
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

	"keyrite/internal/clitest"
)

// search looks for every secret, in every form that a mistake could give it, in
// every place.
func search(t *testing.T, places, secrets map[string][]byte) {
	t.Helper()
	for what, s := range secrets {
		upper := strings.ToUpper(hex.EncodeToString(s))
		for _, form := range []string{string(s), hex.EncodeToString(s), upper, base64.StdEncoding.EncodeToString(s), base64.RawURLEncoding.EncodeToString(s), base32.StdEncoding.EncodeToString(s)} {
			for where, data := range places {
				if bytes.Contains(data, []byte(form)) {
					t.Errorf("%s stands in %.200s", what, where)
				}
			}
		}
	}
}

// files reads every file below the folders, but those in which the test itself
// keeps passphrases.
func files(t *testing.T, folders ...string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, dir := range folders {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasSuffix(p, ".pass") || d.Name() == "pass" || filepath.Base(filepath.Dir(p)) == "bin" {
				return err
			}
			out[p], err = os.ReadFile(p)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Canary passphrases, right and wrong, are typed at the full screen; they, the
// people's keys, the shares and the PINs stand nowhere afterwards: not in what was
// sent to the terminal, in the record, the shares, the tokens, a temporary file,
// nor in the arguments and environment of any process (R-CER-4, R-CER-13).
func TestCanaries(t *testing.T) {
	h := newHouse(t)
	tmp := h.path("tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	const wrong = "mistyped canary 77aa"
	missed := false
	reply := func(_, question string) (string, bool) {
		if missed || !strings.Contains(question, "passphrase") || !strings.HasPrefix(question, "master2") {
			return "", false
		}
		missed = true
		return wrong + "\r", true
	}
	stop := make(chan struct{})
	var seen map[string]bool
	var wg sync.WaitGroup
	wg.Go(func() { seen = watch(h.dir, stop) })
	x := h.play(t, 80, 24, []string{"TMPDIR=" + tmp}, reply, withoutAnswers(h.attempt(t, "canary", "answers.yaml"))...)
	code := x.exit()
	close(stop)
	wg.Wait()
	if code != 0 || !missed {
		t.Fatalf("exit %d, mistyped %v, %s", code, missed, x.output())
	}
	secrets := h.secrets(t, "canary")
	if len(secrets) != 10+10+4*5+4 {
		t.Fatalf("%d secrets", len(secrets))
	}
	secrets["mistyped passphrase"] = []byte(wrong)
	places := files(t, h.dir, filepath.Dir(h.env.TokenDir))
	places["the terminal"] = []byte(x.output())
	for s := range seen {
		places["a process: "+s] = []byte(s)
	}
	if len(seen) < 4 || len(places) < 60 || !strings.Contains(x.output(), "master2: wrong passphrase") {
		t.Fatalf("%d process pages, %d places", len(seen), len(places))
	}
	search(t, places, secrets)
	if len(x.vt.Strange) > 0 {
		t.Errorf("sent to the terminal: %q", x.vt.Strange)
	}
	// The search finds what is there.
	probe := &testing.T{}
	search(probe, map[string][]byte{"x": []byte("..." + base64.StdEncoding.EncodeToString(secrets["PIN of root"]) + "...")}, secrets)
	if !probe.Failed() {
		t.Error("the search is broken")
	}
}

// No process of a ceremony leaves a core file, even where the shell allows them
// and the Go runtime is told to make one (R-CER-4). Root may still read memory.
func TestNoCoreFile(t *testing.T) {
	h := newHouse(t)
	cores := h.path("cores")
	if err := os.Mkdir(cores, 0o700); err != nil {
		t.Fatal(err)
	}
	dumps := func(dir string) []string {
		var found []string
		for p, data := range files(t, dir) {
			if bytes.HasPrefix(data, []byte("\x7fELF")) {
				found = append(found, p)
			}
		}
		return found
	}
	allowed := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command("sh", append([]string{"-c", `ulimit -c unlimited; exec "$@"`, "sh", program}, args...)...)
		cmd.Dir = cores
		return cmd
	}
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	sleep := allowed("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	clitest.Await(5*time.Second, func() bool {
		exe, _ := os.Readlink("/proc/" + strconv.Itoa(sleep.Process.Pid) + "/exe")
		return strings.HasSuffix(exe, "sleep")
	})
	_ = sleep.Process.Signal(syscall.SIGABRT)
	_ = sleep.Wait()
	if found := dumps(cores); len(found) == 0 && !bytes.ContainsAny(pattern, "|/") {
		t.Errorf("core files do not come at all here (%s): the test shows nothing", pattern)
	}
	if err := os.RemoveAll(cores); err != nil {
		t.Fatal(err)
	}
	args := h.attempt(t, "core", "answers.yaml")
	cmd := allowed(h.program, args...)
	cmd.Dir = h.dir
	cmd.Env = append(h.command(args...).Env, "GOTRACEBACK=crash")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.waitForEntries(t, "core", 130)
	killed := map[string]bool{}
	for _, p := range h.processes() {
		pid, exe, _ := strings.Cut(p, " ")
		n := mustPID(t, pid)
		limits, err := os.ReadFile("/proc/" + strconv.Itoa(n) + "/limits")
		if err != nil {
			continue // it ended by itself
		}
		for l := range strings.Lines(string(limits)) {
			if f := strings.Fields(l); strings.HasPrefix(l, "Max core file size") && (f[4] != "0" || f[5] != "0") {
				t.Errorf("%s: %s", exe, l)
			}
		}
		if syscall.Kill(n, syscall.SIGABRT) == nil {
			killed[filepath.Base(exe)] = true
		}
	}
	_ = cmd.Wait()
	h.noOrphans(t)
	if len(killed) < 2 {
		t.Errorf("only %v were there", slices.Collect(maps.Keys(killed)))
	}
	if found := dumps(h.dir); len(found) > 0 {
		t.Errorf("core files: %v", found)
	}
	secrets := map[string][]byte{}
	for _, n := range h.names {
		secrets["passphrase of "+n] = []byte(phrase(n))
	}
	search(t, map[string][]byte{"the stack traces": out.Bytes()}, secrets)
}

// mustPID is the number in /proc/NUMBER/exe.
func mustPID(t *testing.T, link string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.Split(link, "/")[2])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/firmware"
	"keyrite/signer"
)

// A signer killed at any of its durable writes leaves nothing half done: the
// same command run again either releases, or says that the approvals are spent;
// there is one signature at most, and no file without a proof.
func TestReleaseSurvivesKills(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := artifacttest.New(t)
	seed := t.TempDir()
	seedRelease(t, w, seed)
	program := filepath.Join(seed, "keyrite-softkeys")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"sign", "r.request", "--image", "firmware.img", "--approval", "1.approval", "--approval", "2.approval",
		"--charter", "charter.jsonl", "--anchor", "anchors.json", "--state-dir", "state", "--out-dir", "out",
	}
	outcomes := map[string]int{}
	// strace counts the calls of each thread, and a goroutine moves between threads,
	// so where a kill falls is chance: sweep again until every outcome was met.
	for range 5 {
		for _, call := range []string{"fdatasync", "fsync", "linkat", "renameat", "pwrite64"} {
			for n, killed := 1, true; killed && n <= 61; n++ {
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(seed)); err != nil {
					t.Fatal(err)
				}
				trace := append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), program}, args...)
				c := exec.CommandContext(t.Context(), "strace", trace...)
				c.Dir, c.Env = dir, append(os.Environ(), "GOMAXPROCS=1")
				killed = c.Run() != nil
				outcomes[finish(t, w, dir, program, args, fmt.Sprintf("%s %d", call, n))]++
			}
		}
		if outcomes["released"] >= 10 && outcomes["spent"] >= 1 {
			break
		}
	}
	t.Logf("%v", outcomes)
	if outcomes["released"] < 10 || outcomes["spent"] < 1 {
		t.Errorf("the sweep met too few points: %v", outcomes)
	}
}

// finish runs the command again and checks what there is then.
func finish(t *testing.T, w *artifacttest.World, dir, program string, args []string, at string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	code := 0
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	krf, kerr := os.Open(filepath.Join(dir, "out", "firmware.krf"))
	if kerr == nil {
		defer krf.Close()
		if _, err := firmware.VerifyKRF(krf, w.Trust()); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
	ledger, err := os.ReadFile(filepath.Join(dir, "state", "ledger.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(ledger, []byte(`"kind":"result"`)); n > 1 {
		t.Errorf("%s: %d signatures", at, n)
	}
	switch {
	case code == 0 && kerr == nil:
		return "released"
	case code == 13 && bytes.Contains(ledger, []byte(`"kind":"lost"`)) && kerr != nil:
		return "spent"
	// Killed after the last line of the ledger: everything was done.
	case code == 13 && bytes.Contains(ledger, []byte(`"kind":"published"`)) && kerr == nil:
		return "released"
	}
	t.Errorf("%s: exit %d, .krf %v: %s", at, code, kerr, strings.TrimSpace(string(out)))
	return "wrong"
}

// seedRelease puts everything for one release into dir.
func seedRelease(t *testing.T, w *artifacttest.World, dir string) {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(name string, data []byte, err error) {
		t.Helper()
		check(err)
		check(os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	check(errors.Join(os.Mkdir(filepath.Join(dir, "keys"), 0o700), os.Mkdir(filepath.Join(dir, "out"), 0o700)))
	putKeys(t, w, func(name string, data []byte, err error) { put(name, data, err) })
	anchors, err := w.Anchors.Marshal()
	put("anchors.json", anchors, err)
	put("charter.jsonl", w.Charter, nil)
	put("firmware.img", bytes.Repeat([]byte("image\n"), 5000), nil)
	f, err := os.Open(filepath.Join(dir, "firmware.img"))
	check(err)
	defer f.Close()
	sum, size, err := firmware.Measure(f)
	check(err)
	wish := signer.Wish{Product: "gw100", Version: "1", Channel: "release", File: "firmware.img", Hardware: []string{"gw100"}, SecurityVersion: 1}
	now := time.Now()
	req, err := signer.NewRequest(w.State, wish, sum, size, w.Keys["pipeline1"], now)
	put("r.request", req, err)
	q, err := signer.OpenRequest(req, w.State, now)
	check(err)
	for i, name := range []string{"approver1", "approver2"} {
		a, err := signer.Approve(q, sum, size, w.People[name], now)
		put(fmt.Sprintf("%d.approval", i+1), a, err)
	}
}

package enginetest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Points of a call, in their order: where Bench.Reached is called.
const (
	Planned  = "planned"  // nothing was done yet
	Reserved = "reserved" // the intent is on the disk
	Worked   = "worked"   // the token has done it
	Applied  = "applied"  // the result is on the disk

	// Where the head did not get to know of the intent, or the work failed.
	Unconfirmed = "unconfirmed" // the intent is on the disk, and nobody else knows
	Undone      = "undone"      // what was taken is given back, on the disk
)

// Environment of a process that kills itself.
const (
	killPoint  = "KEYRITE_KILL_AT"
	killFolder = "KEYRITE_KILL_DIR"
)

// Child says at which point this process kills itself, and the folder in which it
// leaves what the next one needs; "" if it is the parent.
func Child() (point, dir string) { return os.Getenv(killPoint), os.Getenv(killFolder) }

// KillAt is a Bench.Reached that ends the process at the point.
func KillAt(point string) func(string, *engine.Plan) {
	return func(p string, _ *engine.Plan) {
		if p == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

// Kill runs the test that calls it in a process of its own until that kills itself at
// the point, and returns its folder.
func Kill(t *testing.T, point string) string {
	t.Helper()
	dir := t.TempDir()
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), killPoint+"="+point, killFolder+"="+dir)
	out, err := cmd.CombinedOutput()
	token, rerr := os.ReadFile(filepath.Join(dir, "token"))
	if rerr != nil {
		t.Fatalf("%v\n%s", rerr, out)
	}
	t.Cleanup(func() { clearAway(t, string(token)) })
	if x, ok := errors.AsType[*exec.ExitError](err); !ok || x.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	return dir
}

// clearAway takes the child's token away, as soon as its module process has ended.
func clearAway(t *testing.T, dir string) {
	t.Helper()
	var err error
	for range 100 {
		if err = os.RemoveAll(dir); err == nil {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Error(err)
}

// Leave leaves a file for the process that comes after this one.
func Leave(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// LeaveToken names the folder of the child's token, which the parent clears away. It
// comes first: what fails later leaves the token, too.
func LeaveToken(t *testing.T, dir, token string) {
	t.Helper()
	Leave(t, dir, "token", []byte(token))
}

// LeaveCharter leaves the charter of the child's world.
func LeaveCharter(t *testing.T, dir string, w *artifacttest.World) {
	t.Helper()
	for name, data := range map[string][]byte{"charter": w.Charter, "vault": []byte(w.State.Vault), "world": []byte(w.World)} {
		Leave(t, dir, name, data)
	}
}

// StoreIn makes a store in the child's folder, with a keeper that can be out of reach;
// nil is none.
func StoreIn(t *testing.T, dir string, away *Away) *seal.Store {
	t.Helper()
	if err := create(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	s, err := OpenWith(dir, away)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ReadLeft reads a file that the child left.
func ReadLeft(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Left is a bench over what a killed process left, without a token: its store, and its
// charter, which is also returned.
func Left(t *testing.T, dir, kind, mount string) (*Bench, *charter.State) {
	t.Helper()
	st, err := charter.Fold(ReadLeft(t, dir, "charter"), world.World(ReadLeft(t, dir, "world")), string(ReadLeft(t, dir, "vault")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b := New(t, kind, mount)
	b.Store, b.Journal = s, audit.NewJournal(s)
	b.Host.View, b.Host.Charter = s.View, func() *charter.State { return st }
	return b, st
}

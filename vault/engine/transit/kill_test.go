package transit_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/trail"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/transit"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

// killPoints are where the process is killed, and what the next one then says of the
// release.
func killPoints() map[string]string {
	return map[string]string{"planned": "approved", "begun": "lost", "signed": "lost", "kept": "signed"}
}

// TestKilledWhileSigning: killed at any point of a release's signature, the next
// process knows what became of it and never has the token sign a second time.
func TestKilledWhileSigning(t *testing.T) {
	if point := os.Getenv("KEYRITE_KILL_AT"); point != "" {
		signUntilKilled(t, point, os.Getenv("KEYRITE_KILL_DIR"))
	}
	for point, want := range killPoints() {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWhileSigning$")
			cmd.Env = append(os.Environ(), "KEYRITE_KILL_AT="+point, "KEYRITE_KILL_DIR="+dir)
			out, err := cmd.CombinedOutput()
			if hsmDir, rerr := os.ReadFile(filepath.Join(dir, "hsm")); rerr == nil {
				defer clearAway(t, string(hsmDir))
			}
			if x, ok := errors.AsType[*exec.ExitError](err); !ok || x.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v\n%s", err, out)
			}
			afterKill(t, dir, want)
		})
	}
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

var killSecret = []byte("the secret of a safe that is NOT SECRET")

// killConfig is a store in dir whose head is beside it.
func killConfig(t *testing.T, dir string, p seal.Place) seal.Config {
	t.Helper()
	head, err := seal.NewFileKeeper(filepath.Join(dir, "head"), p.World)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return seal.Config{Dir: filepath.Join(dir, "store"), Place: p, Head: head, Check: seal.Guard(exe)}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// killPlace is the same in both processes: the store is not what is tested here.
func killPlace(w world.World) seal.Place { return seal.Place{Vault: [32]byte{7}, World: w, Epoch: 1} }

// signUntilKilled founds a vault with a release key, leaves behind what the parent
// needs to go on, and kills itself.
func signUntilKilled(t *testing.T, point, dir string) {
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "image", Algorithm: "p256", Domain: "raw-image"}})
	write(t, filepath.Join(dir, "hsm"), []byte(v.HSM.Dir))
	v.Approve(charter.TypeMount, charter.Mount{Engine: "transit", ID: "transit"})
	v.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "image", TokenKey: "image"})
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	p := killPlace(v.World.World)
	wrapped, err := k.Wrap(killSecret, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := killConfig(t, dir, p)
	if err := seal.Create(t.Context(), c, k, map[string]string{"did": "create"}); err != nil {
		t.Fatal(err)
	}
	s, err := seal.Open(t.Context(), c, k)
	if err != nil {
		t.Fatal(err)
	}
	b := enginetest.Over(t, v.World, s, "transit")
	b.Host.Token = v.Open()
	r := &room{b, transit.New(b.Host), t}
	r.approve("r1", "image", 1, []byte("an image"))
	for name, data := range map[string][]byte{"charter": v.Charter, "wrapped": wrapped, "vault": []byte(v.State.Vault), "world": []byte(v.World.World)} {
		write(t, filepath.Join(dir, name), data)
	}
	r.signTo(point)
	t.Fatal("the child is still there")
}

// signTo goes as far as point and is killed there.
func (r *room) signTo(point string) {
	t := r.t
	reach := func(p string) {
		if p == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	q := r.Request(engine.Write, "sign/image", body{"input": b64([]byte("an image"))})
	plan, err := r.e.Plan(q)
	if err != nil {
		t.Fatal(err)
	}
	reach("planned")
	e := &audit.Entry{Kind: audit.Intent, Operation: "update", Path: q.Path.String(), Params: plan.Shown, Request: "1", Time: trail.FormatTime(r.Now)}
	n, err := r.Journal.Do(t.Context(), seal.Strict, e, plan.Reserve)
	if err != nil {
		t.Fatal(err)
	}
	reach("begun")
	if err := plan.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	reach("signed")
	result := *e
	result.Kind, result.Intent = audit.Result, &n
	_, err = r.Journal.Do(t.Context(), seal.Strict, &result, func(tx *seal.Tx) error {
		_, err := plan.Apply(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	reach("kept")
}

// afterKill opens what the child left and asks again, without any token: whatever is
// answered was signed before.
func afterKill(t *testing.T, dir, want string) {
	w := world.World(read(t, filepath.Join(dir, "world")))
	st, err := charter.Fold(read(t, filepath.Join(dir, "charter")), w, string(read(t, filepath.Join(dir, "vault"))))
	if err != nil {
		t.Fatal(err)
	}
	p := killPlace(w)
	k, err := seal.Unwrap(read(t, filepath.Join(dir, "wrapped")), killSecret, p)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Wipe()
	s, err := seal.Open(context.WithoutCancel(t.Context()), killConfig(t, dir, p), k)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := enginetest.New(t, "transit", "transit")
	b.Store, b.Journal = s, audit.NewJournal(s)
	b.Host.View, b.Host.Charter = s.View, func() *charter.State { return st }
	r := &room{b, transit.New(b.Host), t}
	if got := r.states("image"); got["r1"] != want {
		t.Errorf("the release is %q, want %q", got["r1"], want)
	}
	open, err := r.Journal.Open()
	if err != nil || (len(open) == 1) != slices.Contains([]string{"lost"}, want) {
		t.Errorf("%d open intents: %v", len(open), err)
	}
	out, err := r.try("sign/image", body{"input": b64([]byte("an image"))})
	switch want {
	case "lost":
		if !errors.Is(err, transit.ErrLost) {
			t.Errorf("asked again: %v", err)
		}
	case "signed":
		if sig, _ := out["signature"].(string); err != nil || !strings.HasPrefix(sig, "vault:v1:") {
			t.Errorf("asked again: %v %v", out, err)
		}
	default:
		r.refused("without a token", "sealed", err)
	}
}

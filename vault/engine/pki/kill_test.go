package pki_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/trail"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/pki"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

// TestKilledWhileIssuing: killed at any point, a certificate is either recorded and
// good, or its number stands in the list, or nothing was signed at all.
func TestKilledWhileIssuing(t *testing.T) {
	if point := os.Getenv("KEYRITE_KILL_AT"); point != "" {
		issueUntilKilled(t, point, os.Getenv("KEYRITE_KILL_DIR"))
	}
	for point, want := range map[string]string{"planned": "unknown", "taken": "revoked", "signed": "revoked", "given": "good"} {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWhileIssuing$")
			cmd.Env = append(os.Environ(), "KEYRITE_KILL_AT="+point, "KEYRITE_KILL_DIR="+dir)
			out, err := cmd.CombinedOutput()
			hsmDir, rerr := os.ReadFile(filepath.Join(dir, "hsm"))
			if rerr != nil {
				t.Fatalf("%v\n%s", rerr, out)
			}
			defer clearAway(t, string(hsmDir))
			if x, ok := errors.AsType[*exec.ExitError](err); !ok || x.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v\n%s", err, out)
			}
			if got := afterKill(t, dir); got != want {
				t.Errorf("the certificate is %s, want %s", got, want)
			}
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

func killConfig(t *testing.T, dir string, w world.World) seal.Config {
	t.Helper()
	head, err := seal.NewFileKeeper(filepath.Join(dir, "head"), w)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return seal.Config{Dir: filepath.Join(dir, "store"), Place: seal.Place{Vault: [32]byte{7}, World: w, Epoch: 1}, Head: head, Check: seal.Guard(exe)}
}

func save(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// issueUntilKilled founds a vault with a CA, leaves behind what the parent needs to go
// on, and kills itself.
func issueUntilKilled(t *testing.T, point, dir string) {
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "plant-ca", Algorithm: anchor.P256, Domain: "x509"}})
	save(t, dir, "hsm", []byte(v.HSM.Dir))
	v.Approve(charter.TypeMount, charter.Mount{Engine: "pki", ID: "pki"})
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	c := killConfig(t, dir, v.World.World)
	wrapped, err := k.Wrap(killSecret, c.Place)
	if err == nil {
		err = os.Mkdir(c.Dir, 0o700)
	}
	if err == nil {
		err = seal.Create(t.Context(), c, k, map[string]string{"did": "create"})
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := seal.Open(t.Context(), c, k)
	if err != nil {
		t.Fatal(err)
	}
	b := enginetest.Over(t, v.World, s, "pki")
	b.Host.Token, b.Now = v.Open(), time.Now()
	r := &room{Bench: b, e: pki.New(b.Host), v: v, t: t}
	r.ca = r.authority()
	r.state(func(*charter.PKIRole) {})
	for name, data := range map[string][]byte{"charter": v.Charter, "wrapped": wrapped, "vault": []byte(v.State.Vault), "world": []byte(v.World.World)} {
		save(t, dir, name, data)
	}
	r.issueTo(point, dir)
	t.Fatal("the child is still there")
}

func (r *room) issueTo(point, dir string) {
	t := r.t
	reach := func(p string) {
		if p == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	q := r.Request(engine.Write, "issue/plant", body{"common_name": "mes.example.com"})
	plan, err := r.e.Plan(q)
	if err != nil {
		t.Fatal(err)
	}
	save(t, dir, "serial", []byte(plan.Shown["serial"].(string)))
	reach("planned")
	e := &audit.Entry{Kind: audit.Intent, Operation: "update", Path: q.Path.String(), Params: plan.Shown, Request: "1", Time: trail.FormatTime(r.Now)}
	n, err := r.Journal.Do(t.Context(), seal.Durable, e, plan.Reserve)
	if err != nil {
		t.Fatal(err)
	}
	reach("taken")
	if err := plan.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	reach("signed")
	result := *e
	result.Kind, result.Intent = audit.Result, &n
	_, err = r.Journal.Do(t.Context(), seal.Durable, &result, func(tx *seal.Tx) error {
		_, err := plan.Apply(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	reach("given")
}

// afterKill opens what the child left and says what the store knows of the certificate,
// without a token.
func afterKill(t *testing.T, dir string) string {
	w := world.World(load(t, dir, "world"))
	st, err := charter.Fold(load(t, dir, "charter"), w, string(load(t, dir, "vault")))
	if err != nil {
		t.Fatal(err)
	}
	c := killConfig(t, dir, w)
	k, err := seal.Unwrap(load(t, dir, "wrapped"), killSecret, c.Place)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Wipe()
	s, err := seal.Open(t.Context(), c, k)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	serial := string(load(t, dir, "serial"))
	b := enginetest.New(t, "pki", "pki")
	b.Store, b.Journal, b.Now = s, audit.NewJournal(s), time.Now().Add(time.Hour)
	b.Host.View, b.Host.Charter = s.View, func() *charter.State { return st }
	e := pki.New(b.Host)
	lost := pki.Revoked(e, s, b.Now)
	a, err := b.Do(e, engine.Read, "cert/"+serial, nil)
	switch {
	case err == nil:
		if bytes.Contains(lost, []byte(serial)) {
			t.Error("it is given out and revoked")
		}
		got := parse(t, enginetest.Data(t, a)["certificate"])
		if err := got.CheckSignatureFrom(issuerOf(t, st)); err != nil || hex.EncodeToString(got.SerialNumber.Bytes()) != serial {
			t.Errorf("the recorded certificate: %v", err)
		}
		return "good"
	case !errors.Is(err, engine.ErrNotThere):
		t.Fatal(err)
	case bytes.Contains(lost, []byte(serial)):
		return "revoked"
	}
	return "unknown"
}

func issuerOf(t *testing.T, st *charter.State) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(st.PKIRoles["pki/plant"].Issuer)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

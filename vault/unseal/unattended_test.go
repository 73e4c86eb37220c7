package unseal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/hsm"
	"keyrite/internal/tpm"
	"keyrite/internal/tpm/tpmtest"
	"keyrite/vault/seal"
	"keyrite/vault/unattended"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

var tpmAuth = []byte("0123456789abcdef0123456789abcdef")

// machine is a vault's host with a TPM; processes of it come and go.
type machine struct {
	*vaulttest.Vault
	t *testing.T
	m *tpmtest.TPM
	c unseal.Config
	h *holder
	// now is the clock of the host, ahead of the real one.
	ahead time.Duration
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	x := &machine{Vault: vaulttest.New(t), t: t, m: tpmtest.Start(t), h: &holder{}}
	x.c = x.Unsealing(x.h.take)
	x.c.Now = func() time.Time { return time.Now().Add(x.ahead) }
	x.c.Unattended = &unattended.Place{Dir: x.c.Dir, TPM: x.m.Addr, Auth: tpmAuth}
	d, err := tpm.Open(x.m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Define(unattended.Counter(), tpmAuth, nil); err != nil {
		t.Fatal(err)
	}
	return x
}

// grant lets the host open by itself.
func (x *machine) grant(id string) {
	x.t.Helper()
	x.ApproveAt(charter.TypeUnattended, charter.Unattended{
		Expires: charter.FormatTime(time.Now().Add(24 * time.Hour)), Host: vaulttest.Host, ID: id, PCRs: []int{0, 7},
	}, time.Now())
}

// newGranted is a machine that keeps what a restart needs, with the process that a quorum
// opened.
func newGranted(t *testing.T) (*machine, *unseal.Attempts) {
	t.Helper()
	x := newMachine(t)
	x.grant("nights")
	a := x.process()
	x.Open3(t, a, openrequest.Create)
	return x, a
}

func (x *machine) end(typ, id string) {
	x.t.Helper()
	x.ApproveAt(charter.TypeAccessEnded, charter.AccessEnded{ID: id, Type: typ}, time.Now())
}

// process is a new process of the host.
func (x *machine) process() *unseal.Attempts {
	x.t.Helper()
	a, err := unseal.NewAttempts(x.c)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = a.Close() })
	return a
}

// died is the end of a process without an order to seal: what it had open is gone.
func (x *machine) died(a *unseal.Attempts) {
	x.t.Helper()
	if err := a.Close(); err != nil {
		x.t.Fatal(err)
	}
}

// reboot is a power cut of the whole machine.
func (x *machine) reboot(a *unseal.Attempts) {
	x.t.Helper()
	x.died(a)
	x.m.Restart()
	x.c.Unattended.TPM = x.m.Addr
}

func (x *machine) file() string { return filepath.Join(x.c.Dir, unattended.FileName) }

func (x *machine) kept() []byte {
	x.t.Helper()
	data, err := os.ReadFile(x.file())
	if err != nil {
		x.t.Fatal(err)
	}
	return data
}

// sealed wants a new process of the host to stay sealed, for a reason.
func (x *machine) sealed(why string) {
	x.t.Helper()
	a := x.process()
	err := a.Restart(x.t.Context())
	if err == nil || !a.Sealed() || !strings.Contains(err.Error(), why) {
		x.t.Errorf("sealed %v: %v, want %q", a.Sealed(), err, why)
	}
	x.died(a)
}

// The host opens by itself after a kill and after a power cut, with token and store,
// and the trail says so; nothing of a quorum's secret is kept.
func TestUnattendedRestart(t *testing.T) {
	x := newMachine(t)
	a := x.process()
	x.Open3(t, a, openrequest.Create)
	if _, err := x.h.opened.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "put", tx.Put("kv", "a", []byte("one")) }); err != nil {
		t.Fatal(err)
	}
	x.died(a)
	x.sealed("nothing is kept") // off by default
	x.grant("nights")
	x.sealed("nothing is kept") // a statement alone opens nothing
	a = x.process()
	x.Open3(t, a, openrequest.Unseal)
	if s := a.Status().Unattended; s == nil || !s.Kept || s.Statement != "nights" || s.Why != "" {
		t.Errorf("%+v", s)
	}
	for i := range 3 {
		if i == 1 {
			x.died(a)
		} else {
			x.reboot(a)
		}
		a = x.process()
		if err := a.Restart(t.Context()); err != nil || a.Sealed() {
			t.Fatalf("restart %d: %v", i, err)
		}
		s := a.Status()
		if s.Operation != unseal.OpUnattended || len(s.Holders) != 0 || value(t, x.h.opened.Store) != "one" {
			t.Errorf("%+v", s)
		}
		if _, _, err := x.h.opened.Token.Signer(t.Context(), "image1"); err != nil {
			t.Error(err)
		}
		raw, err := x.h.opened.Store.Entry(uint64(x.h.opened.Store.Head().Size - 1))
		if err != nil || !bytes.Contains(raw, []byte(`"operation":"unattended"`)) || !bytes.Contains(raw, []byte(`"statement":"nights"`)) || !bytes.Contains(raw, []byte("master1")) {
			t.Errorf("the trail: %s %v", raw, err)
		}
	}
	if err := a.Restart(t.Context()); !errors.Is(err, unseal.ErrOpen) {
		t.Errorf("an open vault: %v", err)
	}
	if st, err := os.Stat(x.file()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v", err)
	}
}

// An order to seal is not undone by a restart, nor by whoever copied the file before;
// also where the process dies in the middle, or the TPM does not answer.
func TestSealIsNotUndoneByARestart(t *testing.T) {
	x, a := newGranted(t)
	copied := x.kept()
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	if x.c.Unattended.Holds() {
		t.Error("something is left")
	}
	x.sealed("nothing is kept")
	x.putBack(copied)
	x.sealed("the TPM refused")

	a = x.process()
	x.Open3(t, a, openrequest.Unseal)
	copied = x.kept()
	if err := x.c.Unattended.Begin(); err != nil { // Seal began, and the machine lost its power
		t.Fatal(err)
	}
	x.reboot(a)
	x.sealed("nothing is kept")
	x.putBack(copied)
	x.sealed("the TPM refused")

	a = x.process()
	x.Open3(t, a, openrequest.Unseal)
	copied = x.kept()
	x.m.Stop()
	if err := a.Seal(); fault.ClassOf(err) != fault.Unreachable || !a.Sealed() {
		t.Errorf("without the TPM: %v, sealed %v", err, a.Sealed())
	}
	if s := a.Status().Unattended; s == nil || s.Kept || s.Why == "" {
		t.Errorf("%+v", s)
	}
	x.sealed("does not answer")
	x.reboot(a)
	x.sealed("nothing is kept")
	x.putBack(copied)
	x.sealed("the TPM refused")
}

func (x *machine) putBack(data []byte) {
	x.t.Helper()
	if err := os.WriteFile(x.file(), data, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

// What was kept is destroyed when its statement, its host or its time ends, or another
// one takes its place; and a copy of it is useless then.
func TestUnattendedEnds(t *testing.T) {
	for name, end := range map[string]func(*machine){
		"by a statement": func(x *machine) { x.end(charter.TypeUnattended, "nights") },
		"with its host":  func(x *machine) { x.end(charter.TypeHost, vaulttest.Host) },
		"by its time":    func(x *machine) { x.ahead = 25 * time.Hour },
		"by a later one": func(x *machine) { x.grant("days") },
	} {
		t.Run(name, func(t *testing.T) {
			x, a := newGranted(t)
			copied := x.kept()
			if err := a.Tend(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(x.kept(), copied) {
				t.Error("it changed while it is in force")
			}
			end(x)
			if err := a.Tend(); err != nil || x.c.Unattended.Holds() || a.Sealed() {
				t.Errorf("%v", err)
			}
			x.died(a)
			x.ahead = 0
			// Who runs a program of his own on the host, with a copy.
			f, err := unattended.Parse(copied)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := f.Open(x.m.Addr, tpmAuth); fault.ClassOf(err) != fault.Policy {
				t.Errorf("the copy: %v", err)
			}
			x.putBack(copied)
			a = x.process()
			if err := a.Restart(t.Context()); err == nil || !a.Sealed() {
				t.Errorf("put back: %v", err)
			}
		})
	}
}

// In every other case the vault stays sealed: another boot, no TPM, another one, a
// damaged file, an older store, dead TPM indexes. A quorum still opens it.
func TestUnattendedStaysSealed(t *testing.T) {
	x, a := newGranted(t)
	older, err := os.ReadFile(filepath.Join(x.c.Store.Dir, seal.FileName))
	if err != nil {
		t.Fatal(err)
	}
	kept := x.kept()
	x.reboot(a)
	x.m.Extend(7)
	x.sealed("measured something else")
	x.m.Stop()
	x.sealed("does not answer")
	x.m.Restart()
	x.c.Unattended.TPM = x.m.Addr
	other := tpmtest.Start(t)
	x.c.Unattended.TPM = other.Addr
	x.sealed("") // it has no index, and did not seal it
	x.c.Unattended.TPM = x.m.Addr

	a = x.process()
	if err := a.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.died(a)
	newest, err := os.ReadFile(filepath.Join(x.c.Store.Dir, seal.FileName))
	if err != nil {
		t.Fatal(err)
	}
	x.putStore(older)
	x.sealed("older than its head")
	x.putStore(newest)
	x.putBack(bytes.Replace(kept, []byte(`"safe":"work"`), []byte(`"safe":"root"`), 1))
	x.sealed("") // and it is destroyed, since it is not what was kept
	if x.c.Unattended.Holds() {
		t.Error("a damaged file is left")
	}
	a = x.process()
	x.Open3(t, a, openrequest.Unseal)
	if s := a.Status().Unattended; s == nil || !s.Kept || s.Why != "" {
		t.Errorf("%+v", s)
	}
}

func (x *machine) putStore(data []byte) {
	x.t.Helper()
	if err := os.WriteFile(filepath.Join(x.c.Store.Dir, seal.FileName), data, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

// New shares make what was kept under the old ones useless, and resealing keeps anew.
func TestUnattendedAfterAReshare(t *testing.T) {
	x, a := newGranted(t)
	old := x.kept()
	reshare(t, x.Vault, x.Shares)
	if err := a.Tend(); err != nil || x.c.Unattended.Holds() {
		t.Errorf("after the reshare: %v", err)
	}
	x.Open3(t, a, openrequest.Reseal)
	if bytes.Equal(x.kept(), old) {
		t.Error("nothing was kept anew")
	}
	x.reboot(a)
	a = x.process()
	if err := a.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.died(a)
	x.putBack(old)
	x.sealed("")
}

// That nothing can be kept does not keep a quorum out, and is told.
func TestNothingCanBeKept(t *testing.T) {
	x := newMachine(t)
	x.grant("nights")
	x.m.Stop()
	a := x.process()
	x.Open3(t, a, openrequest.Create)
	if s := a.Status().Unattended; a.Sealed() || s == nil || s.Kept || !strings.Contains(s.Why, "does not answer") {
		t.Errorf("%+v", s)
	}
	x.died(a)
	x.sealed("nothing is kept")
}

// A PIN that the token refuses is given to it once: the shares were dealt anew, and this
// host has not heard of it. Trying again would lock the token.
func TestUnattendedPINIsTriedOnce(t *testing.T) {
	x, a := newGranted(t)
	x.died(a)
	before, err := charter.Fold(x.Charter, x.World.World, x.State.Vault)
	if err != nil {
		t.Fatal(err)
	}
	x.c.Charter = func() *charter.State { return before }
	reshare(t, x.Vault, x.Shares)
	a = x.process()
	err = a.Restart(t.Context())
	if !errors.Is(err, hsm.ErrPIN) || fault.ClassOf(err) != fault.Policy {
		t.Errorf("a PIN of before: %s, %v", fault.ClassOf(err), err)
	}
	x.died(a)
	x.sealed("nothing is kept")
}

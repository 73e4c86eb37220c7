package tpm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"keyrite/internal/tpm"
	"keyrite/internal/tpm/tpmtest"
)

var (
	data    = tpm.Index{Handle: 0x01800300, Bytes: 700}
	counter = tpm.Index{Handle: 0x01800301, Bytes: 8, Counter: true}
	auth    = []byte("authorisation of a test")
)

func open(t *testing.T, m *tpmtest.TPM) *tpm.Device {
	t.Helper()
	d, err := tpm.Open(m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// What is written is there after a power cut, and only for who has the authorisation.
func TestIndexAcrossPowerCut(t *testing.T) {
	m := tpmtest.Start(t)
	d := open(t, m)
	if _, err := d.Read(data, auth); !errors.Is(err, tpm.ErrMissing) {
		t.Errorf("before: %v", err)
	}
	for _, x := range []tpm.Index{data, counter} {
		if err := d.Define(x, auth, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Define(x, auth, nil); !errors.Is(err, tpm.ErrDefined) {
			t.Errorf("twice: %v", err)
		}
	}
	if b, err := d.Read(data, auth); b != nil || err != nil {
		t.Errorf("unwritten: %x %v", b, err)
	}
	whole := bytes.Repeat([]byte{7}, 512)
	if err := d.Write(data, auth, 0, whole); err != nil {
		t.Fatal(err)
	}
	first, err := d.Step(counter, auth)
	if err != nil || first == 0 {
		t.Fatalf("%d %v", first, err)
	}
	m.Restart()
	d = open(t, m)
	if b, err := d.Read(data, auth); err != nil || len(b) != 700 || !bytes.Equal(b[:512], whole) {
		t.Errorf("after the cut: %x %v", b, err)
	}
	if n, err := d.Step(counter, auth); err != nil || n != first+1 {
		t.Errorf("after the cut: %d %v, was %d", n, err, first)
	}
	for _, bad := range [][]byte{nil, []byte("another"), []byte(strings.ToUpper(string(auth)))} {
		if _, err := d.Read(data, bad); !errors.Is(err, tpm.ErrRefused) {
			t.Errorf("auth %q: %v", bad, err)
		}
		if _, err := d.Step(counter, bad); !errors.Is(err, tpm.ErrRefused) {
			t.Errorf("auth %q: %v", bad, err)
		}
	}
}

// A counter that the owner removes and defines anew is never lower than before, also
// after the TPM was cleared; an index of another public area is refused.
func TestIndexDefinedAnew(t *testing.T) {
	m := tpmtest.Start(t)
	d := open(t, m)
	if err := d.Define(counter, auth, nil); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for range 5 {
		n, err := d.Step(counter, auth)
		if err != nil {
			t.Fatal(err)
		}
		last = n
	}
	if err := d.Undefine(counter, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Undefine(counter, nil); !errors.Is(err, tpm.ErrMissing) {
		t.Errorf("twice: %v", err)
	}
	if err := d.Define(counter, []byte("the attacker's"), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Step(counter, []byte("the attacker's")); err != nil || n <= last {
		t.Errorf("defined anew it is at %d (%v), and was at %d", n, err, last)
	}
	if _, err := d.Count(counter, auth); !errors.Is(err, tpm.ErrRefused) {
		t.Errorf("under another authorisation: %v", err)
	}
	clearTPM(t, m)
	if _, err := d.Count(counter, auth); !errors.Is(err, tpm.ErrMissing) {
		t.Errorf("cleared: %v", err)
	}
	if err := d.Define(counter, auth, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Step(counter, auth); err != nil || n <= last {
		t.Errorf("cleared and defined anew it is at %d (%v), and was at %d", n, err, last)
	}
	other := tpm.Index{Handle: data.Handle, Bytes: 8}
	if err := d.Define(other, auth, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(other, auth, 0, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(data, auth); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("of another size: %v", err)
	}
	if _, err := d.Count(tpm.Index{Handle: data.Handle, Bytes: 8, Counter: true}, auth); !errors.Is(err, tpm.ErrForeign) {
		t.Errorf("of another kind: %v", err)
	}
}

// clearTPM is TPM2_Clear, as the firmware's set-up does it.
func clearTPM(t *testing.T, m *tpmtest.TPM) {
	t.Helper()
	w, err := tpm.Dial(m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(w); err != nil {
		t.Fatal(err)
	}
}

// A TPM that is not there says so, also one that goes away, and is found again.
func TestAbsent(t *testing.T) {
	m := tpmtest.Start(t)
	d := open(t, m)
	if err := d.Define(counter, auth, nil); err != nil {
		t.Fatal(err)
	}
	m.Stop()
	if _, err := d.Count(counter, auth); !errors.Is(err, tpm.ErrAbsent) {
		t.Errorf("%v", err)
	}
	if _, err := tpm.Open(m.Addr); !errors.Is(err, tpm.ErrAbsent) {
		t.Errorf("%v", err)
	}
	if _, err := tpm.Open("/dev/null/none"); !errors.Is(err, tpm.ErrAbsent) {
		t.Errorf("%v", err)
	}
	file := t.TempDir() + "/file"
	if _, err := tpm.Open(file); !errors.Is(err, tpm.ErrAbsent) {
		t.Errorf("%v", err)
	}
}

// Processes that were killed between two commands leave sessions and keys in a TPM
// without a resource manager; the next one is not kept out by them.
func TestLeftBehind(t *testing.T) {
	m := tpmtest.Start(t)
	d := open(t, m)
	if err := d.Define(counter, auth, nil); err != nil {
		t.Fatal(err)
	}
	w, err := tpm.Dial(m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for range 16 { // until there is no place
		if _, _, err = tpm2.HMACSession(w, tpm2.TPMAlgSHA256, 16); err != nil {
			break
		}
	}
	if !errors.Is(err, tpm2.TPMRCSessionMemory) {
		t.Fatalf("%v", err)
	}
	if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(w); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := open(t, m).Step(counter, auth); err != nil {
		t.Errorf("the next process: %v", err)
	}
}

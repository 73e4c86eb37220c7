package tpm_test

import (
	"bytes"
	"errors"
	"testing"

	"keyrite/internal/tpm"
	"keyrite/internal/tpm/tpmtest"
)

// A sealed secret opens while PCRs, counter and clock are as they were to be, also
// after a power cut, and in no other case.
func TestSealedOpensWhileItsLockHolds(t *testing.T) {
	m := tpmtest.Start(t)
	d := open(t, m)
	if err := d.Define(counter, auth, nil); err != nil {
		t.Fatal(err)
	}
	at, err := d.Step(counter, auth)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := d.PCRDigest([]int{0, 7})
	if err != nil {
		t.Fatal(err)
	}
	now, err := d.Clock()
	if err != nil {
		t.Fatal(err)
	}
	l := tpm.Lock{PCRs: []int{0, 7}, Digest: digest, Counter: counter, At: at, Until: now + 3_600_000}
	key := bytes.Repeat([]byte{9}, 32)
	x, err := d.Seal(key, l, auth)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(x.Public, key) || bytes.Contains(x.Private, key) {
		t.Error("the secret stands in what was sealed")
	}
	opens := func(why string, l tpm.Lock) {
		t.Helper()
		if got, err := d.Unseal(x, l, auth); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: %x %v", why, got, err)
		}
	}
	refused := func(why string, x *tpm.Sealed, l tpm.Lock, auth []byte) {
		t.Helper()
		got, err := d.Unseal(x, l, auth)
		if !errors.Is(err, tpm.ErrRefused) || got != nil {
			t.Errorf("%s: %x %v", why, got, err)
		}
	}
	opens("at once", l)
	m.Restart()
	d = open(t, m)
	opens("after a power cut", l)
	other := l
	other.Until += 1
	refused("another end", x, other, auth)
	other = l
	other.PCRs = []int{0}
	refused("fewer PCRs", x, other, auth)
	other = l
	other.At++
	refused("another value of the counter", x, other, auth)
	refused("another authorisation", x, l, []byte("another"))
	ended := l
	ended.Until = 1
	y, err := d.Seal(key, ended, auth)
	if err != nil {
		t.Fatal(err)
	}
	refused("past its end", y, ended, auth)
	for name, bad := range map[string]*tpm.Sealed{
		"nothing": {}, "halves exchanged": {Public: x.Private, Private: x.Public},
		"cut": {Public: x.Public[:20], Private: x.Private}, "a tail": {Public: append(bytes.Clone(x.Public), 0), Private: x.Private},
	} {
		if got, err := d.Unseal(bad, l, auth); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
	m.Extend(5)
	opens("a PCR of others", l)
	m.Extend(7)
	refused("another boot", x, l, auth)
	m.Restart()
	d = open(t, m)
	opens("booted as before", l)
	if _, err := d.Step(counter, auth); err != nil {
		t.Fatal(err)
	}
	refused("the counter went on", x, l, auth)
	clearTPM(t, m)
	if _, err := d.Unseal(x, l, auth); err == nil {
		t.Error("opens after the TPM was cleared")
	}
}

// What one TPM sealed no other opens, whatever its counter says.
func TestSealedToOneTPM(t *testing.T) {
	var sealed *tpm.Sealed
	var lock tpm.Lock
	for i := range 2 {
		d := open(t, tpmtest.Start(t))
		if err := d.Define(counter, auth, nil); err != nil {
			t.Fatal(err)
		}
		at, err := d.Step(counter, auth)
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			lock.At = at
			if _, err := d.Unseal(sealed, lock, auth); !errors.Is(err, tpm.ErrRefused) {
				t.Errorf("another TPM: %v", err)
			}
			break
		}
		digest, err := d.PCRDigest([]int{1})
		if err != nil {
			t.Fatal(err)
		}
		lock = tpm.Lock{PCRs: []int{1}, Digest: digest, Counter: counter, At: at, Until: 1 << 40}
		if sealed, err = d.Seal([]byte("x"), lock, auth); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []tpm.Lock{{}, {PCRs: []int{7, 7}}, {PCRs: []int{24}}, {PCRs: []int{-1}}} {
			if _, err := d.Seal([]byte("x"), bad, auth); err == nil {
				t.Errorf("%+v: sealed", bad)
			}
		}
		if _, err := d.Seal(make([]byte, 129), lock, auth); err == nil {
			t.Error("sealed more than fits")
		}
	}
}

package secureelement_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/secureelement/setest"
)

// indexes are the handles of docs/formats/element.md.
func indexes() map[string]tpm2.TPMHandle {
	return map[string]tpm2.TPMHandle{
		"birth record": 0x01800100, "certificate": 0x01800101, "firmware key": 0x01800110, "security version": 0x01800112,
		"policy version": 0x01800113, "succession": 0x01800115, "first policy key": 0x01800120, "second policy key": 0x01800121,
	}
}

func named(t *testing.T, tp transport.TPM, h tpm2.TPMHandle) tpm2.NamedHandle {
	t.Helper()
	r, err := tpm2.NVReadPublic{NVIndex: h}.Execute(tp)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: h, Name: r.NVName}
}

func empty(h tpm2.TPMHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h, Auth: tpm2.PasswordAuth(nil)}
}

// TestAttacksAfterLock tries, with root's access to the TPM, to take back what
// birth wrote: write, define anew, remove, reset, evict.
func TestAttacksAfterLock(t *testing.T) {
	w := artifacttest.New(t)
	b := setest.Birth(t, w, 1)
	if err := b.SetAccount(setest.Key(t).Public()); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"after the lock", "after a restart"} {
		e := b.Element
		if when != "after the lock" {
			b.TPM.Restart()
			e = b.TPM.Open()
		}
		e.Raw(func(tp transport.TPM) {
			for name, h := range indexes() {
				n := named(t, tp, h)
				for by, auth := range map[string]tpm2.AuthHandle{"owner": empty(tpm2.TPMRHOwner), "platform": empty(tpm2.TPMRHPlatform), "index": {Handle: h, Name: n.Name, Auth: tpm2.PasswordAuth(nil)}} {
					if _, err := (tpm2.NVWrite{AuthHandle: auth, NVIndex: n, Data: tpm2.TPM2BMaxNVBuffer{Buffer: make([]byte, 66)}}).Execute(tp); err == nil {
						t.Errorf("%s: %s written with %s authorisation", when, name, by)
					}
					if by == "index" {
						continue
					}
					if _, err := (tpm2.NVUndefineSpace{AuthHandle: auth, NVIndex: n}).Execute(tp); err == nil {
						t.Errorf("%s: %s removed with %s authorisation", when, name, by)
					}
				}
			}
			for _, h := range []tpm2.TPMHandle{tpm2.TPMRHLockout, tpm2.TPMRHPlatform} {
				if _, err := (tpm2.Clear{AuthHandle: empty(h)}).Execute(tp); err == nil {
					t.Fatalf("%s: cleared by %#x", when, h)
				}
			}
			k, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81000100)}.Execute(tp)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tpm2.EvictControl{Auth: empty(tpm2.TPMRHOwner), ObjectHandle: &tpm2.NamedHandle{Handle: 0x81000100, Name: k.Name}, PersistentHandle: 0x81000100}.Execute(tp)
			if err == nil {
				t.Fatalf("%s: device key evicted", when)
			}
		})
	}
}

// TestAttacksBeforeLock: what is written and locked at birth holds against the
// owner as well.
func TestAttacksBeforeLock(t *testing.T) {
	w := artifacttest.New(t)
	e := setest.Start(t).Open()
	if _, err := e.CreateKey(); err != nil {
		t.Fatal(err)
	}
	if err := e.Provision(setest.BirthOf(t, w)); err != nil {
		t.Fatal(err)
	}
	e.Raw(func(tp transport.TPM) {
		for _, name := range []string{"birth record", "firmware key", "first policy key", "second policy key"} {
			n := named(t, tp, indexes()[name])
			if _, err := (tpm2.NVWrite{AuthHandle: empty(tpm2.TPMRHOwner), NVIndex: n, Data: tpm2.TPM2BMaxNVBuffer{Buffer: make([]byte, 66)}}).Execute(tp); err == nil {
				t.Errorf("%s written by the owner", name)
			}
		}
	})
}

func signChange(t *testing.T, k *ecdsa.PrivateKey, slot int, next *ecdsa.PrivateKey) []byte {
	t.Helper()
	msg, err := secureelement.AccountChange(slot, next.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(msg)
	sig, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// TestAccountChain enrols, changes the policy key under the old one, and tries
// everything else.
func TestAccountChain(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	first, second, third, foreign := setest.Key(t), setest.Key(t), setest.Key(t), setest.Key(t)
	if a, err := b.Account(); err != nil || a != nil {
		t.Fatalf("account before enrolment: %v %v", a, err)
	}
	wantClass(t, b.ReplaceAccount(first.Public(), second.Public(), signChange(t, first, 0, second)), fault.Policy)
	if err := errors.Join(b.SetAccount(first.Public()), b.SetAccount(first.Public()), b.CheckAccount(first.Public())); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another first key":     b.SetAccount(foreign.Public()),
		"check of a foreign":    b.CheckAccount(foreign.Public()),
		"foreign signature":     b.ReplaceAccount(first.Public(), second.Public(), signChange(t, foreign, 0, second)),
		"foreign key":           b.ReplaceAccount(foreign.Public(), second.Public(), signChange(t, foreign, 0, second)),
		"signed for another":    b.ReplaceAccount(first.Public(), second.Public(), signChange(t, first, 0, third)),
		"signed for a later":    b.ReplaceAccount(first.Public(), second.Public(), signChange(t, first, 1, second)),
		"signed by the new one": b.ReplaceAccount(first.Public(), second.Public(), signChange(t, second, 0, second)),
	} {
		if fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantClass(t, b.ReplaceAccount(first.Public(), second.Public(), []byte("x")), fault.Verify)
	if err := b.ReplaceAccount(first.Public(), second.Public(), signChange(t, first, 0, second)); err != nil {
		t.Fatal(err)
	}
	b.TPM.Restart()
	e := b.TPM.Open()
	if err := e.CheckAccount(second.Public()); err != nil {
		t.Error(err)
	}
	wantClass(t, e.CheckAccount(first.Public()), fault.Policy)
	wantClass(t, e.SetAccount(first.Public()), fault.Policy)
	wantClass(t, e.ReplaceAccount(first.Public(), second.Public(), signChange(t, first, 0, second)), fault.Policy)
	wantClass(t, e.ReplaceAccount(second.Public(), third.Public(), signChange(t, first, 1, third)), fault.Policy)
	if err := e.ReplaceAccount(second.Public(), third.Public(), signChange(t, second, 1, third)); err != nil {
		t.Error(err)
	}
	if a, err := e.Account(); err != nil || a.Slot != 2 {
		t.Errorf("account %+v, %v", a, err)
	}
}

// TestAccountRawWrite writes slots past the methods, as root would.
func TestAccountRawWrite(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	if err := b.SetAccount(setest.Key(t).Public()); err != nil {
		t.Fatal(err)
	}
	for _, slot := range []tpm2.TPMHandle{0x01800120, 0x01800121} {
		b.Raw(func(tp transport.TPM) {
			n := named(t, tp, slot)
			policy := tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(tp transport.TPM, s tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
				_, err := tpm2.PolicyNVWritten{PolicySession: s}.Execute(tp)
				return err
			})
			_, err := tpm2.NVWrite{AuthHandle: tpm2.AuthHandle{Handle: slot, Name: n.Name, Auth: policy}, NVIndex: n, Data: tpm2.TPM2BMaxNVBuffer{Buffer: make([]byte, 66)}}.Execute(tp)
			if err == nil {
				t.Errorf("slot %#x written by a policy session without the key", slot)
			}
		})
	}
}

// TestRefusalsLeaveNothing: refused changes must not use up the three transient
// objects and few sessions of a TPM.
func TestRefusalsLeaveNothing(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	first, second, foreign := setest.Key(t), setest.Key(t), setest.Key(t)
	if err := b.SetAccount(first.Public()); err != nil {
		t.Fatal(err)
	}
	bad := signChange(t, foreign, 0, second)
	for range 70 {
		wantClass(t, b.ReplaceAccount(first.Public(), second.Public(), bad), fault.Policy)
	}
	if err := b.ReplaceAccount(first.Public(), second.Public(), signChange(t, first, 0, second)); err != nil {
		t.Error(err)
	}
}

func TestVersions(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	type counter struct {
		get   func() (int64, error)
		raise func(int64) error
	}
	for name, c := range map[string]counter{
		"security": {b.SecurityVersion, b.RaiseSecurityVersion}, "policy": {b.PolicyVersion, b.RaisePolicyVersion},
	} {
		if v, err := c.get(); err != nil || v != 0 {
			t.Errorf("%s at birth: %d %v", name, v, err)
		}
		if err := errors.Join(c.raise(3), c.raise(3)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.raise(2); !errors.Is(err, secureelement.ErrRollback) {
			t.Errorf("%s lowered: %v", name, err)
		}
		wantClass(t, c.raise(-1), fault.Policy)
		wantClass(t, c.raise(4+secureelement.MaxStep), fault.Policy)
		if v, err := c.get(); err != nil || v != 3 {
			t.Errorf("%s: %d %v", name, v, err)
		}
	}
	b.TPM.Restart()
	if v, err := b.TPM.Open().SecurityVersion(); err != nil || v != 3 {
		t.Errorf("after a restart: %d %v", v, err)
	}
}

func TestTimeFloor(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	now := artifacttest.Now()
	for _, c := range []struct {
		raise, want time.Time
	}{{now, now}, {now.Add(-time.Hour), now}, {now.Add(time.Minute), now}, {now.Add(2 * time.Hour), now.Add(2 * time.Hour)}} {
		if err := b.RaiseTimeFloor(c.raise); err != nil {
			t.Fatal(err)
		}
		if got, err := b.TimeFloor(); err != nil || !got.Equal(c.want) {
			t.Errorf("floor %v, want %v: %v", got, c.want, err)
		}
	}
}

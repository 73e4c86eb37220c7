package unseal_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

// reshare deals the safe anew, as a ceremony does, while the vault may be open.
func reshare(t *testing.T, v *vaulttest.Vault, shares map[string][]byte) {
	t.Helper()
	// The PINs in force come from the old shares.
	v.Shares = shares
	v.TakePINs(v.HSM.Supervisor)
	v.Deal(v.State.Epochs[vaulttest.Safe].Epoch + 1)
	if err := v.HSM.Supervisor.ChangePINs(t.Context(), v.Token); err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, s *seal.Store) string {
	t.Helper()
	var got []byte
	err := s.View(func(w *seal.View) (err error) {
		got, err = w.Get("kv", "a")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// After a reshare the open vault is resealed by the new shares; then these open it, and
// the old ones, with an old copy of the wrapped key, do not open the new store.
func TestReshareReseals(t *testing.T) {
	v := vaulttest.New(t)
	h := &holder{}
	a, c := start(t, v, h)
	v.Open3(t, a, openrequest.Create)
	if _, err := h.opened.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "put", tx.Put("kv", "a", []byte("one")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Reseal, By: "x"}); fault.ClassOf(err) != fault.Policy {
		t.Errorf("reseal without a reshare: %v", err)
	}
	before, size := h.opened, h.opened.Store.Head().Size
	reshare(t, v, v.Shares)
	v.Open3(t, a, openrequest.Reseal)
	if a.Sealed() || h.opened == before || h.closed != 1 {
		t.Fatalf("sealed %v, closed %d times", a.Sealed(), h.closed)
	}
	if got := value(t, h.opened.Store); got != "one" || h.opened.Store.Head().Size != size+1 {
		t.Errorf("%q, %d entries", got, h.opened.Store.Head().Size)
	}
	if _, _, err := h.opened.Token.Signer(t.Context(), "image1"); err != nil {
		t.Error(err)
	}
	if _, err := before.Pool.Random(t.Context(), 1); err == nil {
		t.Error("the pool of before is open")
	}
	keys, err := filepath.Glob(filepath.Join(c.Dir, "store-key.*"))
	if err != nil || len(keys) != 1 || !strings.HasSuffix(keys[0], "store-key.work.2.json") {
		t.Errorf("%v %v", keys, err)
	}
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	v.Open3(t, a, openrequest.Unseal)
	if got := value(t, h.opened.Store); got != "one" {
		t.Errorf("%q", got)
	}
}

// A reseal whose new user fails leaves a sealed vault that the new shares open; one
// that cannot write leaves the vault open as it was.
func TestFailedResealLosesNothing(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	h := &holder{}
	fail := false
	c := v.Unsealing(func(ctx context.Context, o *unseal.Opened) (io.Closer, error) {
		if fail {
			return nil, fault.New(fault.Verify, "not now")
		}
		return h.take(ctx, o)
	})
	a, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Seal() })
	v.Open3(t, a, openrequest.Create)
	reshare(t, v, v.Shares)
	before := h.opened
	// In the way of the new file: nothing can be written there.
	block := filepath.Join(c.Store.Dir, seal.FileName+".new")
	if err := os.MkdirAll(filepath.Join(block, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	x := begin(t, a, openrequest.Reseal)
	answers := func() (err error) {
		for _, n := range []string{"master1", "master2", "master3"} {
			_, err = a.Answer(t.Context(), v.Answer(t, x.Request, n))
		}
		return err
	}
	if err := answers(); err == nil || a.Sealed() || h.opened != before {
		t.Fatalf("%v, sealed %v", err, a.Sealed())
	}
	if _, err := h.opened.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) { return "put", tx.Put("kv", "a", []byte("two")) }); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	x = begin(t, a, openrequest.Reseal)
	fail = true
	if err := answers(); fault.ClassOf(err) != fault.Verify || !a.Sealed() {
		t.Fatalf("%v, sealed %v", err, a.Sealed())
	}
	fail = false
	v.Open3(t, a, openrequest.Unseal)
	if got := value(t, h.opened.Store); got != "two" {
		t.Errorf("%q", got)
	}
}

// A vault that was sealed when its shares were dealt anew says so. The old shares open
// the key of its store and no token, and then the new ones take it over.
func TestSealedVaultAfterAReshare(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	h := &holder{}
	c := v.Unsealing(h.take)
	expired := 0
	c.Expired = func() { expired++ }
	a, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Seal() })
	v.Open3(t, a, openrequest.Create)
	if _, err := h.opened.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "put", tx.Put("kv", "a", []byte("one")) }); err != nil {
		t.Fatal(err)
	}
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	old := v.Shares
	reshare(t, v, old)
	if bytes.Equal(old["master1"], v.Shares["master1"]) {
		t.Fatal("nothing was dealt")
	}
	_, err = a.New(t.Context(), unseal.Ask{Operation: openrequest.Unseal, By: "x"})
	if !errors.Is(err, unseal.ErrReshared) {
		t.Errorf("%v", err)
	}
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Reseal, By: "x"}); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("reseal without the old shares: %v", err)
	}
	carry := func(shares map[string][]byte) (p *unseal.Progress, err error) {
		x := begin(t, a, openrequest.Carry)
		newest := v.Shares
		defer func() { v.Shares = newest }()
		for _, n := range []string{"master1", "master2", "master4"} {
			v.Shares = old // as keyrite share open finds the share of the epoch that is asked for
			data := v.Answer(t, x.Request, n)
			if ans := parse(t, data); shares != nil {
				ans.Share = shares[n]
				data = rework(t, data, func(a *openrequest.Answer) { *a = *ans })
			}
			if p, err = a.Answer(t.Context(), data); err != nil {
				return nil, err
			}
		}
		return p, err
	}
	if _, err := carry(v.Shares); fault.ClassOf(err) != fault.Verify {
		t.Errorf("carried with shares that are not encrypted to it: %v", err)
	}
	p, err := carry(nil)
	if err != nil || !p.Carried || p.Open || !a.Sealed() || !a.Status().Carried {
		t.Fatalf("%+v %v", p, err)
	}
	if h.closed != 1 {
		t.Errorf("something was opened: closed %d times", h.closed)
	}
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Carry, By: "x"}); fault.ClassOf(err) != fault.Exists {
		t.Errorf("carried again: %v", err)
	}
	if err := a.Seal(); err != nil || a.Status().Carried {
		t.Errorf("the carried key outlives a seal: %v", err)
	}
	if _, err := carry(nil); err != nil {
		t.Fatal(err)
	}
	until, err := charter.ParseTime(a.Status().CarriedUntil)
	if left := time.Until(until); err != nil || left <= 0 || left > unseal.DefaultValid {
		t.Errorf("the carried key is kept until %v: %v", until, err)
	}
	late := begin(t, a, openrequest.Reseal)
	a.CarriedIsOver()
	if a.Status().Carried || expired != 1 {
		t.Errorf("the carried key outlives its time; told %d times", expired)
	}
	if _, err := a.Answer(t.Context(), v.Answer(t, late.Request, "master1")); !errors.Is(err, unseal.ErrNoAttempt) {
		t.Errorf("a reseal begun in time goes on without a key: %v", err)
	}
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Reseal, By: "x"}); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("reseal after its time: %v", err)
	}
	if _, err := carry(nil); err != nil {
		t.Fatal(err)
	}
	v.Open3(t, a, openrequest.Reseal)
	if a.Sealed() || a.Status().Carried || value(t, h.opened.Store) != "one" {
		t.Error("the new shares did not take it over")
	}
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	v.Open3(t, a, openrequest.Unseal)
	if got := value(t, h.opened.Store); got != "one" {
		t.Errorf("%q", got)
	}
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Carry, By: "x"}); fault.ClassOf(err) != fault.Exists {
		t.Errorf("carry of an open vault: %v", err)
	}
}

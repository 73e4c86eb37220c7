package unseal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

// given has master1, master2 and master4 answer an operation with these shares.
func given(t *testing.T, v *vaulttest.Vault, a *unseal.Attempts, operation string, shares map[string][]byte) (p *unseal.Progress, err error) {
	t.Helper()
	x := begin(t, a, operation)
	newest := v.Shares
	defer func() { v.Shares = newest }()
	v.Shares = shares
	for _, n := range []string{"master1", "master2", "master4"} {
		if p, err = a.Answer(t.Context(), v.Answer(t, x.Request, n)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// When the token is lost the shares of its safe open the store's key, and those of the
// safe that took over take the store, also where both safes are in their first epoch and
// the key lies under the name that had no safe in it. Another safe gets nothing.
func TestStandbyTakesTheStoreOver(t *testing.T) {
	v := vaulttest.New(t)
	h := &holder{}
	a, c := start(t, v, h)
	v.Open3(t, a, openrequest.Create)
	if _, err := h.opened.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "put", tx.Put("kv", "a", []byte("one")) }); err != nil {
		t.Fatal(err)
	}
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(c.Dir, "store-key.work.1.json"), filepath.Join(c.Dir, "store-key.1.json")); err != nil {
		t.Fatal(err)
	}
	old := v.Shares
	refused := func(why string, c unseal.Config, operations ...string) {
		t.Helper()
		a, err := unseal.NewAttempts(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range operations {
			if _, err := a.New(t.Context(), unseal.Ask{Operation: o, By: "x"}); err == nil {
				t.Errorf("%s, %s: begun", why, o)
			}
		}
	}
	root := c
	root.Safe = "root"
	refused("a safe that was never dealt", root, openrequest.Operations()...)
	v.Lose()
	refused("the lost safe", c, openrequest.Operations()...)
	refused("a safe that took nothing over", root, openrequest.Operations()...)

	c.Safe, c.Reports = vaulttest.Standby, [][]byte{v.Report}
	a, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Seal() })
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Unseal, By: "x"}); !errors.Is(err, unseal.ErrRetired) {
		t.Errorf("unseal before: %v", err)
	}
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Reseal, By: "x"}); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("reseal without the old shares: %v", err)
	}
	p, err := given(t, v, a, openrequest.Carry, old)
	if err != nil || !p.Carried || !a.Sealed() {
		t.Fatalf("%+v %v", p, err)
	}
	if p, err = given(t, v, a, openrequest.Reseal, v.Shares); err != nil || !p.Open {
		t.Fatalf("%+v %v", p, err)
	}
	if got := value(t, h.opened.Store); got != "one" {
		t.Errorf("%q", got)
	}
	if _, _, err := h.opened.Token.Signer(t.Context(), "image1"); err != nil {
		t.Error(err)
	}
	keys, err := filepath.Glob(filepath.Join(c.Dir, "store-key.*"))
	if err != nil || len(keys) != 1 || filepath.Base(keys[0]) != "store-key.work2.1.json" {
		t.Errorf("%v %v", keys, err)
	}
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	refused("after it", c, openrequest.Carry, openrequest.Reseal)
	v.Open3(t, a, openrequest.Unseal)
	if got := value(t, h.opened.Store); got != "one" {
		t.Errorf("%q", got)
	}
}

package unseal_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

// renamed is a keeper that is out of reach once another file than at first has the
// store's name.
type renamed struct {
	seal.Keeper
	path  string
	first os.FileInfo
	on    atomic.Bool
}

func (k *renamed) Advance(ctx context.Context, h seal.Head, c seal.Chain) error {
	now, err := os.Stat(k.path)
	if err == nil && k.on.Load() && !os.SameFile(now, k.first) {
		return fault.New(fault.Unreachable, "no route to the cosigner")
	}
	return k.Keeper.Advance(ctx, h, c)
}

// A resealing that broke off when the store was under the new key already keeps that
// key, whatever is tried next: it is the only one that opens the store.
func TestBrokenOffResealKeepsItsKey(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	h := &holder{}
	c := v.Unsealing(h.take)
	k := &renamed{Keeper: c.Store.Head, path: filepath.Join(c.Store.Dir, seal.FileName)}
	c.Store.Head = k
	a, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Seal() })
	v.Open3(t, a, openrequest.Create)
	if _, err := h.opened.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "put", tx.Put("kv", "a", []byte("one")) }); err != nil {
		t.Fatal(err)
	}
	reshare(t, v, v.Shares)
	if k.first, err = os.Stat(k.path); err != nil {
		t.Fatal(err)
	}
	k.on.Store(true)
	try := func() (err error) {
		x, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Reseal, By: "test"})
		if err != nil {
			return err
		}
		for _, n := range []string{"master1", "master2", "master3"} {
			if _, err = a.Answer(t.Context(), v.Answer(t, x.Request, n)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := try(); err == nil || !a.Sealed() {
		t.Fatalf("resealed without the keeper: %v, sealed %v", err, a.Sealed())
	}
	keyFile := filepath.Join(c.Dir, "store-key.work.2.json")
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	k.on.Store(false)
	_ = try() // it may be refused, and must not hurt
	if now, err := os.ReadFile(keyFile); err != nil || !bytes.Equal(now, key) {
		t.Fatalf("the wrapped key is another one: %v", err)
	}
	if a.Sealed() {
		v.Open3(t, a, openrequest.Unseal)
	}
	if got := value(t, h.opened.Store); got != "one" {
		t.Errorf("it holds %q", got)
	}
}

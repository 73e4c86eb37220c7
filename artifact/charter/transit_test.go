package charter_test

import (
	"slices"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func software(versions, enc, dec int) charter.TransitKey {
	return charter.TransitKey{Mount: "transit", Name: "orders", Software: &charter.SoftwareKey{MinDecryption: dec, MinEncryption: enc, Type: "ecdsa-p256", Versions: versions}}
}

func withTransit(t *testing.T) *vault {
	t.Helper()
	v := newVault(t)
	v.decide(charter.TypeMount, charter.Mount{Engine: "kv", ID: "kv"})
	v.decide(charter.TypeMount, charter.Mount{Engine: "transit", ID: "transit"})
	return v
}

// TestTransitVersionsFollow: of all statements that may come after one, exactly
// those hold that raise the versions by at most one and bring nothing back.
func TestTransitVersionsFollow(t *testing.T) {
	v := withTransit(t)
	for _, k := range []charter.TransitKey{software(1, 1, 1), software(2, 1, 1), software(3, 2, 1)} {
		v.decide(charter.TypeTransitKey, k)
	}
	for _, versions := range []int{0, 2, 3, 4, 5} {
		for enc := range 6 {
			for dec := range 4 {
				want := dec >= 1 && enc >= max(2, dec) && versions >= max(3, enc) && versions <= 4 && (versions != 3 || enc != 2 || dec != 1)
				if err := v.propose(charter.TypeTransitKey, software(versions, enc, dec)); (err == nil) != want || err != nil && fault.ClassOf(err) != fault.Verify {
					t.Errorf("%d versions, %d encrypts, %d decrypts: %v", versions, enc, dec, err)
				}
			}
		}
	}
}

func TestTransitKeyThatFailsClosed(t *testing.T) {
	v := withTransit(t)
	v.decide(charter.TypeTransitKey, software(1, 1, 1))
	v.decide(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "fw", TokenKey: "firmware"})
	v.decide(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "gone", Software: software(1, 1, 1).Software})
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "transit/gone", Type: charter.TypeTransitKey})
	with := func(f func(*charter.TransitKey)) charter.TransitKey {
		k := software(1, 1, 1)
		k.Name = "new"
		f(&k)
		return k
	}
	bad := map[string]charter.TransitKey{
		"nothing":              {},
		"no mount":             with(func(k *charter.TransitKey) { k.Mount = "" }),
		"another engine":       with(func(k *charter.TransitKey) { k.Mount = "kv" }),
		"no name":              with(func(k *charter.TransitKey) { k.Name = "" }),
		"a path as name":       with(func(k *charter.TransitKey) { k.Name = "a/b" }),
		"neither":              with(func(k *charter.TransitKey) { k.Software = nil }),
		"both":                 with(func(k *charter.TransitKey) { k.TokenKey = "acceptance" }),
		"no type":              with(func(k *charter.TransitKey) { k.Software.Type = "" }),
		"an old type":          with(func(k *charter.TransitKey) { k.Software.Type = "rsa-2048" }),
		"two versions at once": with(func(k *charter.TransitKey) { k.Software.Versions = 2 }),
		"ended":                with(func(k *charter.TransitKey) { k.Name = "gone" }),
		"another type":         with(func(k *charter.TransitKey) { k.Name, k.Software.Type = "orders", "ed25519" }),
		"software in a token":  {Mount: "transit", Name: "orders", TokenKey: "acceptance"},
		"token in software":    with(func(k *charter.TransitKey) { k.Name = "fw" }),
		"an unknown key":       {Mount: "transit", Name: "new", TokenKey: "nobody"},
		"a key under two":      {Mount: "transit", Name: "new", TokenKey: "firmware"},
	}
	saveVectors(v, "transit", charter.TypeTransitKey, bad, map[string]charter.TransitKey{
		"software": with(func(*charter.TransitKey) {}), "rotated": software(2, 2, 1), "in a token": {Mount: "transit", Name: "new", TokenKey: "acceptance"},
	})
	for what, k := range bad {
		if err := v.propose(charter.TypeTransitKey, k); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, e := range map[string]charter.AccessEnded{
		"twice":               {ID: "transit/gone", Type: charter.TypeTransitKey},
		"unknown":             {ID: "transit/nobody", Type: charter.TypeTransitKey},
		"without mount":       {ID: "orders", Type: charter.TypeTransitKey},
		"its mount before it": {ID: "transit", Type: charter.TypeMount},
	} {
		if err := v.propose(charter.TypeAccessEnded, e); fault.ClassOf(err) != fault.Verify {
			t.Errorf("end %s: %v", what, err)
		}
	}
	if got := v.refold().TransitKeys("transit"); !slices.Equal(got, []string{"fw", "orders"}) {
		t.Errorf("keys are %q", got)
	}
	if line := v.refold().Line("firmware"); len(line) != 1 || line[0].ID != "firmware" {
		t.Errorf("line of firmware: %v", line)
	}
}

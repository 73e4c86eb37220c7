package charter_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// dormant admits id-2 as the dormant key of id.
func (v *vault) dormant(id, token string) {
	v.t.Helper()
	rec := v.State.Keys[id]
	rec.ID, rec.SuccessorOf, rec.Token = id+"-2", id, anchor.Token{Label: token, Serial: "0"}
	rec.Public = v.SPKI("report")
	v.must(charter.TypeKey, rec, "approver1", "approver2")
}

// A retired key signs nothing, a dormant one nothing before its time, and
// nothing comes back.
func TestKeysEndAndAreSucceeded(t *testing.T) {
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	v.dormant("firmware", "test-work2")
	const rec = "keyrite/record/0123456789abcdef"
	if _, err := v.State.Key("firmware-2", "dsse"); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a dormant key under its own id: %v", err)
	}
	takeOver := charter.Successor{ID: "firmware", Successor: "firmware-2", Record: rec}
	if err := v.try(charter.TypeSuccessor, takeOver, by...); err == nil {
		t.Error("succeeded before the key in force was retired")
	}
	for name, r := range map[string]charter.KeyRetired{
		"unknown key": {ID: "nobody", Reason: "lost", Record: rec}, "unknown reason": {ID: "firmware", Reason: "bored", Record: rec},
		"no reason": {ID: "firmware", Record: rec}, "no record": {ID: "firmware", Reason: "lost"},
	} {
		if err := v.try(charter.TypeKeyRetired, r, by...); err == nil {
			t.Errorf("retired: %s", name)
		}
	}
	v.must(charter.TypeKeyRetired, charter.KeyRetired{ID: "firmware", Reason: "lost", Record: rec}, by...)
	if _, err := v.State.Key("firmware", "dsse"); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a lost key: %v", err)
	}
	for _, reason := range []string{"lost", "retired", "destroyed"} {
		if err := v.try(charter.TypeKeyRetired, charter.KeyRetired{ID: "firmware", Reason: reason, Record: rec}, by...); err == nil {
			t.Errorf("a lost key is now only %s", reason)
		}
	}
	for name, x := range map[string]charter.Successor{
		"itself": {ID: "firmware", Successor: "firmware", Record: rec}, "a stranger": {ID: "firmware", Successor: "acceptance", Record: rec},
		"of another": {ID: "acceptance", Successor: "firmware-2", Record: rec}, "nothing": {Record: rec},
	} {
		if err := v.try(charter.TypeSuccessor, x, by...); err == nil {
			t.Errorf("succeeded by %s", name)
		}
	}
	v.must(charter.TypeSuccessor, takeOver, by...)
	k, err := v.State.Key("firmware", "dsse")
	if err != nil || k.ID != "firmware-2" {
		t.Fatalf("%+v %v", k, err)
	}
	if _, err := v.State.Key("firmware", "x509"); err == nil {
		t.Error("the successor signs in another domain")
	}
	if err := v.try(charter.TypeSuccessor, takeOver, by...); err == nil {
		t.Error("succeeded twice")
	}
	v.must(charter.TypeKeyRetired, charter.KeyRetired{ID: "firmware", Reason: "compromised", Record: rec}, by...)
	v.must(charter.TypeKeyRetired, charter.KeyRetired{ID: "firmware-2", Reason: "destroyed", Record: rec}, by...)
	if _, err := v.State.Key("firmware", "dsse"); err == nil {
		t.Error("a destroyed successor")
	}
	if err := v.try(charter.TypeKey, v.Anchors.Keys[0], by...); err == nil {
		t.Error("an id is used again")
	}
}

func TestDormantKeysThatFailClosed(t *testing.T) {
	v := newVault(t)
	good := v.State.Keys["firmware"]
	good.ID, good.SuccessorOf, good.Public = "firmware-2", "firmware", v.SPKI("report")
	if err := v.try(charter.TypeKey, good, "approver1", "approver2"); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*anchor.KeyRecord){
		"of an unknown key":  func(k *anchor.KeyRecord) { k.SuccessorOf = "nobody" },
		"of itself":          func(k *anchor.KeyRecord) { k.SuccessorOf = k.ID },
		"in another domain":  func(k *anchor.KeyRecord) { k.SuccessorOf = "relay-ca" },
		"the very same key":  func(k *anchor.KeyRecord) { k.Public = v.SPKI("firmware") },
		"under the same id":  func(k *anchor.KeyRecord) { k.ID = "firmware" },
		"no id that is one":  func(k *anchor.KeyRecord) { k.SuccessorOf = "../x" },
		"of other algorithm": func(k *anchor.KeyRecord) { k.SuccessorOf = "log" },
	} {
		k := good
		edit(&k)
		if err := v.try(charter.TypeKey, k, "approver1", "approver2"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A safe ends only when nothing in it counts, and never comes back; a moved key
// counts where it is.
func TestSafesEnd(t *testing.T) {
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	const rec = "keyrite/record/0123456789abcdef"
	v.must(charter.TypeEpoch, v.epoch("work", 1), by...)
	v.must(charter.TypeEpoch, v.epoch("root", 1), by...)
	end := charter.SafeRetired{Reason: "lost", Record: rec, Safe: "work"}
	if err := v.try(charter.TypeSafeRetired, end, by...); err == nil {
		t.Error("ended with keys in force")
	}
	moved := charter.KeyMoved{ID: "firmware", Record: rec, Safe: "root"}
	if err := v.try(charter.TypeKeyMoved, moved, by...); err == nil {
		t.Error("moved without a receiver")
	}
	dock := receiver(t, 3072)
	for name, r := range map[string]charter.Receiver{
		"short": {Key: receiver(t, 2048), Record: rec, Safe: "root"}, "no key": {Record: rec, Safe: "root"}, "a curve": {Key: v.SPKI("report"), Record: rec, Safe: "root"},
		"unknown safe": {Key: dock, Record: rec, Safe: "cellar"}, "no record": {Key: dock, Safe: "root"},
	} {
		if err := v.try(charter.TypeReceiver, r, by...); err == nil {
			t.Errorf("receiver: %s", name)
		}
	}
	v.must(charter.TypeReceiver, charter.Receiver{Key: dock, Record: rec, Safe: "root"}, by...)
	if err := v.try(charter.TypeReceiver, charter.Receiver{Key: dock, Record: "keyrite/record/ffffffffffffffff", Safe: "root"}, by...); err == nil {
		t.Error("the same receiver in another ceremony")
	}
	for name, m := range map[string]charter.KeyMoved{
		"where it is": {ID: "firmware", Record: rec, Safe: "work"}, "nowhere": {ID: "firmware", Record: rec, Safe: "x"},
		"unknown key": {ID: "x", Record: rec, Safe: "root"}, "no record": {ID: "firmware", Safe: "root"},
	} {
		if err := v.try(charter.TypeKeyMoved, m, by...); err == nil {
			t.Errorf("moved: %s", name)
		}
	}
	v.must(charter.TypeKeyMoved, moved, by...)
	if k, err := v.State.Key("firmware", "dsse"); err != nil || k.Token != v.State.Epochs["root"].Token {
		t.Errorf("%+v %v", k, err)
	}
	for id := range v.State.Keys {
		if id != "firmware" {
			v.must(charter.TypeKeyRetired, charter.KeyRetired{ID: id, Reason: "lost", Record: rec}, by...)
		}
	}
	v.must(charter.TypeSafeRetired, end, by...)
	if _, ok := v.State.People.Safe("work"); ok || v.State.Epochs["work"].Epoch != 0 {
		t.Error("the safe is still there")
	}
	if err := v.try(charter.TypeSafeRetired, charter.SafeRetired{Reason: "lost", Record: rec, Safe: "root"}, by...); err == nil {
		t.Error("the last safe ended")
	}
	back := v.people()
	back.Safes = append(back.Safes, charter.Safe{Name: "work", Openers: back.Safes[0].Openers})
	if err := v.try(charter.TypePeople, back, by...); err == nil {
		t.Error("a retired safe came back")
	}
}

// A safe took over from one that is retired when a key of the one gave way to a key of
// the other, or moved there; a twin that never was in force is nothing.
func TestFollowed(t *testing.T) {
	const rec = "keyrite/record/0123456789abcdef"
	by := []string{"approver1", "approver2"}
	for _, c := range []struct {
		name string
		take func(*vault) // what happens before work is retired
		want []string     // that root took over from
	}{
		{"nothing", func(*vault) {}, nil},
		{"a twin that sleeps", func(v *vault) { v.dormant("firmware", "test-root") }, nil},
		{"a twin that took over", func(v *vault) {
			v.dormant("firmware", "test-root")
			v.must(charter.TypeKeyRetired, charter.KeyRetired{ID: "firmware", Reason: "lost", Record: rec}, by...)
			v.must(charter.TypeSuccessor, charter.Successor{ID: "firmware", Successor: "firmware-2", Record: rec}, by...)
		}, []string{"work"}},
		{"a key that moved", func(v *vault) {
			v.must(charter.TypeReceiver, charter.Receiver{Key: receiver(t, 3072), Record: rec, Safe: "root"}, by...)
			v.must(charter.TypeKeyMoved, charter.KeyMoved{ID: "firmware", Record: rec, Safe: "root"}, by...)
		}, []string{"work"}},
	} {
		v := newVault(t)
		v.must(charter.TypeEpoch, v.epoch("work", 1), by...)
		v.must(charter.TypeEpoch, v.epoch("root", 1), by...)
		c.take(v)
		if got := v.State.Followed("root"); len(got) != 0 {
			t.Errorf("%s, before work is retired: %v", c.name, got)
		}
		for id, k := range v.State.Keys {
			if _, retired := v.State.Retired[id]; !retired && k.Token.Label == "test-work" {
				v.must(charter.TypeKeyRetired, charter.KeyRetired{ID: id, Reason: "lost", Record: rec}, by...)
			}
		}
		v.must(charter.TypeSafeRetired, charter.SafeRetired{Reason: "lost", Record: rec, Safe: "work"}, by...)
		if got := v.State.Followed("root"); !slices.Equal(got, c.want) {
			t.Errorf("%s: root took over from %v, want %v", c.name, got, c.want)
		}
		if got := append(v.State.Followed("work"), v.State.Followed("nowhere")...); len(got) != 0 {
			t.Errorf("%s: a safe that is not in force took over from %v", c.name, got)
		}
		if v.State.Newest("work") != 1 || v.State.Newest("nowhere") != 0 {
			t.Errorf("%s: newest epochs %d, %d", c.name, v.State.Newest("work"), v.State.Newest("nowhere"))
		}
	}
}

// receiver is the public half of a receiver key.
func receiver(t *testing.T, bits int) []byte {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

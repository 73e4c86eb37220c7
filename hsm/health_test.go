package hsm_test

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// expect is a key as it was read when it was made.
func expect(sp hsm.GenerateSpec, k *hsm.KeyState) hsm.HealthKey {
	return hsm.HealthKey{ID: sp.KeyID, Label: sp.Label, PublicKey: k.SPKI, Attributes: &k.Attributes}
}

// keyFiles are the object files of keys, with what is in them.
func (f *fileToken) keyFiles(t *testing.T) map[string][]byte {
	t.Helper()
	fs, err := filepath.Glob(filepath.Join(filepath.Dir(f.file(t)), "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, p := range fs {
		if filepath.Base(p) == "token.object" {
			continue
		}
		if out[p], err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// findings are the kinds that a health check found.
func findings(t *testing.T, f *fileToken, keys ...hsm.HealthKey) []hsm.FindingKind {
	t.Helper()
	h, err := f.Supervisor.Health(t.Context(), f.id, keys...)
	if err == nil {
		return nil
	}
	// SoftHSM crashes on some flipped lengths: no state, and no sound one.
	if errors.Is(err, hsm.ErrLost) {
		return []hsm.FindingKind{"(the module crashed)"}
	}
	bad, ok := errors.AsType[*hsm.UnhealthyError](err)
	if !ok || class(err) != "verify" || h == nil || len(bad.Findings) == 0 {
		t.Fatalf("got %v (class %s), want a typed finding", err, class(err))
	}
	var out []hsm.FindingKind
	for _, x := range h.Findings {
		out = append(out, x.Kind)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestHealthOfDamagedKeyFiles cuts and flips the files of a key under a session
// that goes on signing from memory: only a fresh process can tell, and it does.
func TestHealthOfDamagedKeyFiles(t *testing.T) {
	f := newFileToken(t)
	sp, k := stored(t, f.Supervisor, f.id, "k")
	running := f.Open(t, f.id)
	signer, err := running.Signer(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	onward := 0
	if got := findings(t, f, expect(sp, k)); got != nil {
		t.Fatalf("a sound token: %v", got)
	}
	for path, whole := range f.keyFiles(t) {
		for _, tc := range []struct {
			name string
			data []byte
		}{
			{"half of it", whole[:len(whole)/2]},
			{"nothing", nil},
			{"8 bytes", whole[:8]},
			{"a byte less", whole[:len(whole)-1]},
			{"a byte more", append(slices.Clone(whole), 0)},
			{"zeros", make([]byte, len(whole))},
			{"a flipped bit in the middle", flip(whole)},
		} {
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := findings(t, f, expect(sp, k)); got == nil {
				t.Errorf("%s: nothing was found", tc.name)
			}
			// Without anything to compare with, it still says more than the token.
			if got := findings(t, f); got == nil && tc.name != "a flipped bit in the middle" {
				t.Errorf("%s: nothing was found without an expectation", tc.name)
			}
			if _, err := signer.SignContext(t.Context(), make([]byte, 32)); err == nil {
				onward++
			} else if class(err) != "token" {
				t.Errorf("%s: the running session: %v (class %s)", tc.name, err, class(err))
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if onward == 0 {
		t.Error("the running session saw it, too: the test shows nothing")
	}
	if got := findings(t, f, expect(sp, k)); got != nil {
		t.Errorf("after all was put back: %v", got)
	}
}

// TestLongHealthOfEachFlippedBit flips one bit in each byte of both files of a key.
// What is not found changes nothing that a fresh process can read: it compares every
// attribute that keyrite knows, the public key, and a use.
func TestLongHealthOfEachFlippedBit(t *testing.T) { long(t); healthOfEachFlippedBit(t, 1) }

// TestHealthOfEachFlippedBit does so with a sample.
func TestHealthOfEachFlippedBit(t *testing.T) { healthOfEachFlippedBit(t, 60) }

func healthOfEachFlippedBit(t *testing.T, one int) {
	f := newFileToken(t)
	sp, k := stored(t, f.Supervisor, f.id, "k")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	tally, n := map[string]int{}, 0
	for path, whole := range f.keyFiles(t) {
		for i := range whole {
			if rnd.IntN(one) != 0 {
				continue
			}
			data := slices.Clone(whole)
			data[i] ^= 1 << rnd.IntN(8)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			got := findings(t, f, expect(sp, k))
			name := "nothing"
			if got != nil {
				name = string(got[0])
			}
			tally[name]++
			n++
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(tally)) {
		t.Logf("%5d  %s", tally[n], n)
	}
	if 2*tally["nothing"] > n {
		t.Errorf("%d of %d flips were not found", tally["nothing"], n)
	}
	if one == 1 {
		t.Logf("long: bits flipped in the files of a key: %d of %d", n, n)
	}
}

// TestHealthComparesWhatIsExpected: a sound token that is another one.
func TestHealthComparesWhatIsExpected(t *testing.T) {
	f := newFileToken(t)
	sp, k := stored(t, f.Supervisor, f.id, "k")
	other, ok := stored(t, f.Supervisor, f.id, "other")
	for _, tc := range []struct {
		name string
		want hsm.FindingKind
		edit func(*hsm.HealthKey)
	}{
		{"the key", "", func(*hsm.HealthKey) {}},
		{"no attributes given", "", func(e *hsm.HealthKey) { e.Attributes = nil }},
		{"another id", hsm.FindingMissing, func(e *hsm.HealthKey) { e.ID[0] ^= 1 }},
		{"another label", hsm.FindingOther, func(e *hsm.HealthKey) { e.Label = "other" }},
		{"another public key", hsm.FindingOther, func(e *hsm.HealthKey) { e.PublicKey = ok.SPKI }},
		{"no public key", hsm.FindingOther, func(e *hsm.HealthKey) { e.PublicKey = nil }},
		{"an attribute", hsm.FindingOther, func(e *hsm.HealthKey) {
			as := slices.Clone(e.Attributes.Private)
			as[len(as)-1].Value += "x"
			e.Attributes = &hsm.AttributePair{Private: as, Public: e.Attributes.Public}
		}},
		{"no attributes at all", hsm.FindingOther, func(e *hsm.HealthKey) { e.Attributes = &hsm.AttributePair{} }},
	} {
		e := expect(sp, k)
		tc.edit(&e)
		var want []hsm.FindingKind
		if tc.want != "" {
			want = []hsm.FindingKind{tc.want}
		}
		if got := findings(t, f, e, expect(other, ok)); !slices.Equal(got, want) {
			t.Errorf("%s: found %v, want %v", tc.name, got, want)
		}
	}
}

// TestHealthOfEachKindOfKey uses each key for what it is made for, and finds one
// that a module spoils.
func TestHealthOfEachKindOfKey(t *testing.T) {
	x := newSpoiled(t)
	s := x.open(t)
	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	var want []hsm.HealthKey
	for i, sp := range []hsm.GenerateSpec{
		{Template: hsm.Sign, Algorithm: hsm.ECDSAP384},
		{Template: hsm.Sign, Algorithm: hsm.Ed25519},
		{Template: hsm.Sign, Algorithm: hsm.RSA3072PSS},
		{Template: hsm.RootSign, Algorithm: hsm.ECDSAP256},
		{Template: hsm.Movable, Algorithm: hsm.ECDSAP256},
		{Template: hsm.TransportUnwrap, Algorithm: hsm.RSA3072PKCS1},
		{Template: hsm.Seal, Algorithm: hsm.AES256},
		{Template: hsm.MAC, Algorithm: hsm.HMACSHA256},
	} {
		sp.KeyID, sp.Label = hsm.NewKeyID(tag, uint64(i+1)), string(sp.Algorithm)+"-"+string(sp.Template)
		if len(sp.Label) > 32 {
			sp.Label = sp.Label[:32]
		}
		k, err := s.Generate(t.Context(), sp)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, expect(sp, k))
	}
	h, err := x.sup.Health(t.Context(), x.id, want...)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Keys) != len(want) || h.Objects != 2*len(want)-2 {
		t.Errorf("%d keys, %d objects", len(h.Keys), h.Objects)
	}
	for _, k := range h.Keys {
		if !slices.ContainsFunc(want, func(w hsm.HealthKey) bool { return bytes.Equal(w.PublicKey, k.PublicKey) && w.Label == k.Label }) {
			t.Errorf("key %s %s is none of ours", k.ID, k.Label)
		}
	}
	for _, function := range []string{"C_UnwrapKey", "C_Sign", "C_SignInit"} {
		x.faults.ResetCode(call(t, function), 1, hsmtest.Fail, 5) // CKR_GENERAL_ERROR
		_, err := x.sup.Health(t.Context(), x.id, want...)
		bad, ok := errors.AsType[*hsm.UnhealthyError](err)
		if !ok || bad.Findings[0].Kind != hsm.FindingUse {
			t.Errorf("%s fails: %v", function, err)
		}
	}
	x.faults.ResetCode(call(t, "C_FindObjectsInit"), 1, hsmtest.Fail, 5)
	_, err = x.sup.Health(t.Context(), x.id)
	if bad, ok := errors.AsType[*hsm.UnhealthyError](err); !ok || bad.Findings[0].Kind != hsm.FindingList {
		t.Errorf("no inventory: %v", err)
	}
	// A process that ends knows nothing, and that is no state.
	x.faults.Reset(call(t, "C_Sign"), 1, hsmtest.Crash)
	if _, err = x.sup.Health(t.Context(), x.id); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("the process crashed: %v", err)
	}
}

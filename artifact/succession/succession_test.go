package succession_test

import (
	"crypto"
	"crypto/x509"
	"flag"
	"os"
	"slices"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/succession"
)

var update = flag.Bool("update", false, "make the vectors again")

const vectors = "../../testdata/vectors/succession"

func newWorld(t testing.TB) *artifacttest.World {
	w := artifacttest.New(t)
	w.AddSuccessors()
	return w
}

// entry puts the dormant twin of id in force.
func entry(t testing.TB, a *anchor.Anchors, id, reason string) succession.Entry {
	t.Helper()
	i := slices.IndexFunc(a.Keys, func(k anchor.KeyRecord) bool { return k.Role() == id })
	to := a.Dormant(id)
	if i < 0 || to == nil {
		t.Fatalf("no key %s, or no twin", id)
	}
	return succession.Entry{From: succession.Hash(a.Keys[i].Public), ID: id, Reason: reason, To: *to}
}

func first(t testing.TB, w *artifacttest.World, ids ...string) *succession.Statement {
	t.Helper()
	var list []succession.Entry
	for _, id := range ids {
		list = append(list, entry(t, w.Anchors, id, "lost"))
	}
	return succession.New(w.Anchors, nil, list, nil, "keyrite/record/00112233aabbccdd", artifacttest.Now())
}

// sign signs what stands there, whatever it says.
func sign(t testing.TB, v any, by ...crypto.Signer) []byte {
	t.Helper()
	payload, err := jcs.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	env, err := envelope.Sign(succession.PayloadType, payload, by...)
	if err != nil {
		t.Fatal(err)
	}
	data, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestTheNewKeyCountsAndTheOldDoesNot is what a succession is for.
func TestTheNewKeyCountsAndTheOldDoesNot(t *testing.T) {
	w := newWorld(t)
	data, err := first(t, w, "firmware", "birth-root").Sign(w.Anchors, w.Keys["succession"])
	if err != nil {
		t.Fatal(err)
	}
	s, err := succession.Verify(data, w.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	eff, err := succession.Apply(w.Anchors, s)
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := eff.Key("firmware", "dsse")
	if err != nil || rec.ID != "firmware-2" {
		t.Errorf("in force: %v, %v", rec, err)
	}
	c, err := eff.Certificate("birth-root")
	if err != nil || string(c.RawSubjectPublicKeyInfo) != string(w.SPKI("birth-root-2")) {
		t.Errorf("birth root: %v", err)
	}
	old, err := eff.Issuer("birth-root", &x509.Certificate{AuthorityKeyId: w.Parsed(w.Anchors.Certificates["birth-root"]).SubjectKeyId})
	if err != nil || string(old.RawSubjectPublicKeyInfo) != string(w.SPKI("birth-root")) {
		t.Errorf("former: %v", err)
	}
	if rec, _, _ := w.Anchors.Key("firmware", "dsse"); rec.ID != "firmware" || len(w.Anchors.Former) != 0 {
		t.Error("the anchors themselves were changed")
	}
	b, err := eff.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anchor.Parse(b); err != nil {
		t.Errorf("effective anchors do not parse: %v", err)
	}
}

// TestCumulative goes through three successions, the second of which brings in a
// key that nobody knew.
func TestCumulative(t *testing.T) {
	w := newWorld(t)
	verify := func(data []byte, err error) *succession.Statement {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s, err := succession.Verify(data, w.Anchors)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := verify(first(t, w, "firmware").Sign(w.Anchors, w.Keys["succession"]))
	if err := one.Follow(one); fault.ClassOf(err) != fault.Policy {
		t.Errorf("the same again: %v", err)
	}
	third := w.Anchors.Successors[0]
	for _, k := range w.Anchors.Successors {
		if k.SuccessorOf == "firmware" {
			third = k
		}
	}
	third.ID, third.Public = "firmware-3", w.SPKI("pipeline1")
	two := succession.New(w.Anchors, one, nil, []anchor.KeyRecord{third}, "keyrite/record/2", artifacttest.Now())
	if _, err := two.Sign(w.Anchors, w.Keys["succession-2"]); fault.ClassOf(err) != fault.Quorum {
		t.Errorf("unknown key with one signature: %v", err)
	}
	both := verify(two.Sign(w.Anchors, w.Keys["succession"], w.Keys["succession-2"]))
	if err := both.Follow(one); err != nil {
		t.Error(err)
	}
	// The first root token is lost: its twin alone may now use the key that both brought in.
	e := succession.Entry{From: succession.Hash(w.SPKI("firmware-2")), ID: "firmware", Reason: "compromised", To: third}
	lost := []succession.Entry{e, entry(t, w.Anchors, "succession", "lost")}
	last := verify(succession.New(w.Anchors, both, lost, nil, "keyrite/record/3", artifacttest.Now()).Sign(w.Anchors, w.Keys["succession-2"]))
	if err := last.Follow(both); err != nil {
		t.Error(err)
	}
	if err := both.Follow(last); fault.ClassOf(err) != fault.Policy {
		t.Errorf("backwards: %v", err)
	}
	eff, err := succession.Apply(w.Anchors, last)
	if err != nil {
		t.Fatal(err)
	}
	if rec, _, err := eff.Key("firmware", "dsse"); err != nil || rec.ID != "firmware-3" {
		t.Errorf("in force: %v, %v", rec, err)
	}
	// Another branch that counts as far takes the first entry back.
	branch := verify(first(t, w, "tuf-root", "acceptance", "log", "relay-ca", "tuf-online").Sign(w.Anchors, w.Keys["succession"]))
	if err := branch.Follow(last); fault.ClassOf(err) != fault.Verify {
		t.Errorf("branch: %v", err)
	}
	if _, err := succession.Apply(w.Anchors, first(t, w, "firmware")); err == nil {
		t.Error("applied without having been verified")
	}
	if _, err := succession.Verify(mustSign(t, w), eff); err == nil {
		t.Error("verified against effective anchors")
	}
}

func mustSign(t testing.TB, w *artifacttest.World) []byte {
	t.Helper()
	data, err := first(t, w, "firmware").Sign(w.Anchors, w.Keys["succession"])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestVectors refuses every hostile statement for its reason.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	a, _ := artifacttest.Load(t, vectors)
	for _, v := range artifacttest.Vectors(t, vectors) {
		t.Run(v.Name, func(t *testing.T) {
			s, err := succession.Verify(v.Body, a)
			if err == nil {
				_, err = succession.Apply(a, s)
			}
			got := "ok"
			if err != nil {
				got = string(fault.ClassOf(err))
			}
			if got != v.Expect {
				t.Errorf("got %s (%v), want %s", got, err, v.Expect)
			}
		})
	}
}

type edit struct {
	name, expect, comment string
	change                func(s *succession.Statement)
	by                    []string
}

func writeVectors(t *testing.T) {
	w := newWorld(t)
	w.Save(vectors)
	alien := w.Anchors.Successors[2]
	alien.ID, alien.Public = "firmware-9", w.SPKI("pipeline1")
	list := []edit{
		{"good", "ok", "the dormant key takes over", nil, []string{"succession"}},
		{"good-twin", "ok", "signed by the dormant succession key", nil, []string{"succession-2"}},
		{"good-both-new-key", "ok", "a key that the anchors do not know, signed by both", func(s *succession.Statement) { s.Entries[0].To = alien }, []string{"succession", "succession-2"}},
		{"unknown-key-one-signature", "quorum", "a key that the anchors do not know, one signature", func(s *succession.Statement) { s.Entries[0].To = alien }, []string{"succession"}},
		{"by-firmware", "verify", "signed by the key that is replaced", nil, []string{"firmware"}},
		{"by-nobody-known", "verify", "signed by a stranger", nil, []string{"pipeline1"}},
		{"by-retired-succession", "verify", "signed by the succession key that it retires", func(s *succession.Statement) {
			s.Entries = append(s.Entries, entry(t, w.Anchors, "succession", "compromised"))
			s.Counter = 2
		}, []string{"succession"}},
		{"counter-high", "verify", "the counter runs ahead of what it says", func(s *succession.Statement) { s.Counter = 9007199254740991 }, []string{"succession"}},
		{"counter-zero", "verify", "the counter is zero", func(s *succession.Statement) { s.Counter = 0 }, []string{"succession"}},
		{"no-entries", "verify", "it replaces nothing", func(s *succession.Statement) { s.Entries, s.Counter = []succession.Entry{}, 0 }, []string{"succession"}},
		{"entry-twice", "verify", "the same key is replaced twice", func(s *succession.Statement) { s.Entries, s.Counter = append(s.Entries, s.Entries[0]), 2 }, []string{"succession"}},
		{"other-from", "verify", "another key is said to be in force", func(s *succession.Statement) { s.Entries[0].From = succession.Hash(w.SPKI("log")) }, []string{"succession"}},
		{"other-domain", "verify", "a key of another domain takes over", func(s *succession.Statement) { s.Entries[0].To = *w.Anchors.Dormant("tuf-root") }, []string{"succession"}},
		{"same-domain-other-role", "verify", "the twin of another key of the same domain takes over", func(s *succession.Statement) { s.Entries[0].To = *w.Anchors.Dormant("acceptance") }, []string{"succession"}},
		{"renamed-role", "verify", "a twin that is said to follow another key than it was made for", func(s *succession.Statement) {
			k := *w.Anchors.Dormant("acceptance")
			k.SuccessorOf = "firmware"
			s.Entries[0].To = k
		}, []string{"succession"}},
		{"reason", "verify", "a reason that is none", func(s *succession.Statement) { s.Entries[0].Reason = "because" }, []string{"succession"}},
		{"other-world", "policy", "another world", func(s *succession.Statement) { s.World = "live" }, []string{"succession"}},
		{"other-vault", "policy", "another vault", func(s *succession.Statement) { s.Vault = succession.Hash(nil) }, []string{"succession"}},
		{"time", "verify", "a time with fractions", func(s *succession.Statement) { s.Time = "2026-11-22T02:00:00.5Z" }, []string{"succession"}},
		{"dormant-one-signature", "quorum", "a new dormant key, one signature", func(s *succession.Statement) {
			s.Dormant, s.Counter = []anchor.KeyRecord{alien}, 2
		}, []string{"succession"}},
		{"prior-one-signature", "verify", "a prior statement that one key signed vouches for nothing", func(s *succession.Statement) {
			s.Prior = mustSign(t, w)
			s.Entries = append(s.Entries, entry(t, w.Anchors, "log", "lost"))
			s.Counter = 2
		}, []string{"succession"}},
	}
	list = append(list, addedVectors(w)...)
	for _, e := range list {
		s := first(t, w, "firmware")
		if e.change != nil {
			e.change(s)
		}
		var by []crypto.Signer
		for _, n := range e.by {
			by = append(by, w.Keys[n])
		}
		artifacttest.WriteVector(t, vectors, artifacttest.Vector{Name: e.name, Expect: e.expect, Body: sign(t, s, by...)}, e.comment)
	}
	good := mustSign(t, w)
	raw := map[string][]byte{
		"truncated": good[:len(good)-1], "trailing": append(slices.Clone(good), ' '), "empty": {},
	}
	for name, body := range raw {
		artifacttest.WriteVector(t, vectors, artifacttest.Vector{Name: name, Expect: "verify", Body: body}, "the file itself is damaged")
	}
}

// product is a key that the anchors do not know, for a role that they do not have.
func product(w *artifacttest.World) anchor.KeyRecord {
	k := *w.Anchors.Dormant("firmware")
	k.ID, k.SuccessorOf, k.Public = "firmware-gw200", "", w.SPKI("pipeline1")
	return k
}

func addedVectors(w *artifacttest.World) []edit {
	both, one := []string{"succession", "succession-2"}, []string{"succession"}
	add := func(keys ...anchor.KeyRecord) func(s *succession.Statement) {
		return func(s *succession.Statement) {
			s.Entries, s.Counter = []succession.Entry{}, 0
			s.Add(keys...)
		}
	}
	good := product(w)
	taken, follows, again, root := good, good, good, good
	taken.ID, follows.SuccessorOf, again.Public = "firmware", "firmware", w.SPKI("firmware")
	root.ID = "succession-3"
	twin := good
	twin.ID, twin.SuccessorOf, twin.Public = "firmware-gw200-2", "firmware-gw200", w.SPKI("factory-ca")
	return []edit{
		{"added", "ok", "a key of a new role, signed by both", add(good), both},
		{"added-with-twin", "ok", "a key of a new role and its twin, signed by both", func(s *succession.Statement) {
			add(good)(s)
			s.Dormant, s.Counter = []anchor.KeyRecord{twin}, 2
		}, both},
		{"added-one-signature", "quorum", "a key of a new role, one signature", add(good), one},
		{"added-role-taken", "verify", "a second key for a role that the anchors have", add(taken), both},
		{"added-twin-id", "verify", "a key of a new role with the id of a dormant twin", func(s *succession.Statement) {
			k := good
			k.ID = "firmware-2"
			add(k)(s)
		}, both},
		{"added-successor", "verify", "a twin that is said to be of a new role", add(follows), both},
		{"added-twice", "verify", "one key for two new roles", add(good, root), both},
		{"added-known-key", "verify", "a key of the anchors under a new role", add(again), both},
		{"added-twin-of-nobody", "verify", "a twin of a role that nobody has", func(s *succession.Statement) { s.Dormant, s.Counter = []anchor.KeyRecord{twin}, 2 }, both},
		{"added-uncounted", "verify", "the counter leaves the added key out", func(s *succession.Statement) { s.Added = []anchor.KeyRecord{good} }, both},
		{"entries-null", "verify", "no list of entries", func(s *succession.Statement) {
			add(good)(s)
			s.Entries = nil
		}, both},
	}
}

// TestAddedKeysStay goes on from a statement that brought a key in: nothing takes it
// back, one succession key may carry it on, and it is replaced like any other.
func TestAddedKeysStay(t *testing.T) {
	w := newWorld(t)
	both := []crypto.Signer{w.Keys["succession"], w.Keys["succession-2"]}
	verify := func(data []byte, err error) *succession.Statement {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s, err := succession.Verify(data, w.Anchors)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := product(w)
	twin := good
	twin.ID, twin.SuccessorOf, twin.Public = "firmware-gw200-2", "firmware-gw200", w.SPKI("factory-ca")
	s := succession.New(w.Anchors, nil, nil, []anchor.KeyRecord{twin}, "keyrite/record/1", artifacttest.Now())
	s.Add(good)
	one := verify(s.Sign(w.Anchors, both...))
	// One key alone retires the added one, which a statement of both vouches for.
	e := succession.Entry{From: succession.Hash(good.Public), ID: "firmware-gw200", Reason: "compromised", To: twin}
	two := verify(succession.New(w.Anchors, one, []succession.Entry{e}, nil, "keyrite/record/2", artifacttest.Now()).Sign(w.Anchors, w.Keys["succession-2"]))
	if err := two.Follow(one); err != nil {
		t.Error(err)
	}
	eff, err := succession.Apply(w.Anchors, two)
	if err != nil {
		t.Fatal(err)
	}
	if k, _, err := eff.Key("firmware-gw200", "dsse"); err != nil || k.ID != "firmware-gw200-2" {
		t.Errorf("%v, %v", k, err)
	}
	more := succession.New(w.Anchors, two, nil, nil, "keyrite/record/3", artifacttest.Now())
	third := good
	third.ID, third.Public = "firmware-gw300", w.SPKI("report")
	more.Add(third)
	if _, err := more.Sign(w.Anchors, w.Keys["succession-2"]); fault.ClassOf(err) != fault.Quorum {
		t.Errorf("one key adds another beside the prior ones: %v", err)
	}
	// A branch that counts further and has another key, or none, in its place.
	for name, added := range map[string][]anchor.KeyRecord{"another": {third}, "none": nil} {
		b := first(t, w, "firmware", "log", "acceptance")
		b.Add(added...)
		if err := verify(b.Sign(w.Anchors, both...)).Follow(one); fault.ClassOf(err) != fault.Verify {
			t.Errorf("a branch with %s: %v", name, err)
		}
	}
}

// TestEveryFlippedByteIsRefused alters a statement everywhere.
func TestEveryFlippedByteIsRefused(t *testing.T) {
	w := newWorld(t)
	data := mustSign(t, w)
	for i := range data {
		bad := slices.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if _, err := succession.Verify(bad, w.Anchors); err == nil {
			t.Errorf("byte %d", i)
		}
	}
}

func FuzzVerify(f *testing.F) {
	a, _ := artifacttest.Load(f, vectors)
	for _, v := range artifacttest.Vectors(f, vectors) {
		f.Add(v.Body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := succession.Verify(data, a)
		if err != nil {
			return
		}
		if _, err := succession.Apply(a, s); err != nil {
			t.Errorf("verified, and cannot be applied: %v", err)
		}
	})
}

// TestAnchorsWithoutSuccessors are those of a genesis of the first months: they
// are read as they were, and nothing can follow.
func TestAnchorsWithoutSuccessors(t *testing.T) {
	w := artifacttest.New(t)
	b, err := os.ReadFile("../../testdata/vectors/firmware/anchors.json")
	if err != nil {
		t.Fatal(err)
	}
	old, err := anchor.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := old.Marshal()
	if err != nil || string(again) != string(b) {
		t.Errorf("an old anchors file is written otherwise: %v", err)
	}
	s := newWorld(t)
	if _, err := succession.Verify(mustSign(t, s), w.Anchors); err == nil {
		t.Error("accepted under anchors that know no succession key")
	}
}

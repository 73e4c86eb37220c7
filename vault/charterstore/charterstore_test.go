package charterstore

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
)

const testWorld = world.World("rehearsal:abcdefgh")

// vault is a charter of one statement, with its people.
type vault struct {
	path string
	id   string
	keys map[string]*person.Key
}

// found founds a vault of n approvers, of whom need decide.
func found(t testing.TB, n, need int) *vault {
	t.Helper()
	v := &vault{path: filepath.Join(t.TempDir(), "charter.jsonl"), keys: map[string]*person.Key{}}
	g := &charter.Genesis{Nonce: make([]byte, 32), ScriptHash: fmt.Sprintf("%064d", 0), World: testWorld}
	if _, err := rand.Read(g.Nonce); err != nil {
		t.Fatal(err)
	}
	add := func(name, role string) {
		k, err := person.New(name, testWorld)
		if err != nil {
			t.Fatal(err)
		}
		v.keys[name] = k
		g.Roster = append(g.Roster, charter.Member{Person: *k.Public(), Role: role})
	}
	add("conductor", charter.RoleConductor)
	add("witness", charter.RoleWitness)
	add("master1", charter.RoleKeyMaster)
	add("master2", charter.RoleKeyMaster)
	var approvers []string
	for i := range n {
		approvers = append(approvers, fmt.Sprintf("approver%d", i+1))
		add(approvers[i], charter.RoleApprover)
	}
	set := charter.Set{Members: approvers, Need: need}
	g.Safes = []charter.Safe{{Name: "work", Openers: charter.Set{Members: []string{"master1", "master2"}, Need: 2}}}
	g.Sets = charter.Sets{Approvers: set, Releases: set}
	payload, err := (&charter.State{}).Propose(charter.TypeGenesis, g, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	env := &envelope.Envelope{Payload: payload, PayloadType: charter.PayloadType}
	for _, m := range g.Roster {
		if err := env.Add(v.keys[m.Person.Name].Signer()); err != nil {
			t.Fatal(err)
		}
	}
	line, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.path, append(line, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if v.id, err = g.VaultID(); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *vault) state(t testing.TB) *charter.State {
	t.Helper()
	data, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := charter.Fold(data, testWorld, v.id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (v *vault) propose(t testing.TB, id string) []byte {
	t.Helper()
	p, err := New(v.state(t), charter.TypePipeline, v.pipeline(id), time.Unix(1e9+10, 0))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (v *vault) pipeline(id string) charter.Pipeline {
	der, err := spki(v.keys["witness"].Public())
	if err != nil {
		panic(err)
	}
	return charter.Pipeline{ID: id, Key: der, Products: []string{"gw100"}}
}

func (v *vault) approve(t testing.TB, proposal []byte, name string) []byte {
	t.Helper()
	p, err := Open(proposal, v.state(t))
	if err != nil {
		t.Fatal(err)
	}
	a, err := Approve(p, v.keys[name])
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Of all subsets of up to seven approvers, under every threshold that they can have,
// exactly those that reach it pass, and after the others the charter is byte for byte
// what it was.
func TestEverySubsetOfApprovers(t *testing.T) {
	for n := 2; n <= 7; n++ {
		for need := 2; need <= n; need++ {
			t.Run(fmt.Sprintf("%d of %d", need, n), func(t *testing.T) { everySubset(t, n, need) })
		}
	}
}

func everySubset(t *testing.T, n, need int) {
	v := found(t, n, need)
	proposal := v.propose(t, "ci2")
	all := make([][]byte, n)
	for i := range n {
		all[i] = v.approve(t, proposal, fmt.Sprintf("approver%d", i+1))
	}
	before, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	for subset := range 1 << n {
		approvals := map[string][]byte{}
		for i := range n {
			if subset&(1<<i) != 0 {
				approvals[fmt.Sprint(i)] = all[i]
			}
		}
		_, err := Append(v.path, testWorld, v.id, proposal, approvals)
		enough := bits.OnesCount(uint(subset)) >= need
		if enough != (err == nil) || !enough && fault.ClassOf(err) != fault.Quorum {
			t.Fatalf("subset %b: class %q: %v", subset, fault.ClassOf(err), err)
		}
		after, err := os.ReadFile(v.path)
		if err != nil {
			t.Fatal(err)
		}
		if enough == bytes.Equal(before, after) {
			t.Fatalf("subset %b: the file changed or did not", subset)
		}
		if !enough {
			continue
		}
		if err := os.WriteFile(v.path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestApprovalsThatDoNotCount(t *testing.T) {
	v, foreign := found(t, 3, 2), found(t, 3, 2)
	proposal, other := v.propose(t, "ci2"), v.propose(t, "ci3")
	good := v.approve(t, proposal, "approver1")
	p, err := Open(proposal, v.state(t))
	if err != nil {
		t.Fatal(err)
	}
	byKey := func(k *person.Key) []byte {
		env, err := envelope.Sign(charter.PayloadType, p.Payload, k.Signer())
		if err != nil {
			t.Fatal(err)
		}
		b, err := env.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	otherType, err := envelope.Sign("application/x", p.Payload, v.keys["approver2"].Signer())
	if err != nil {
		t.Fatal(err)
	}
	typed, err := otherType.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	at := bytes.Index(flipped, []byte(`"sig":"`)) + 12
	flipped[at] ^= 1
	for name, c := range map[string]struct {
		second []byte
		class  fault.Class
	}{
		"the same again":              {good, fault.Quorum},
		"of another proposal":         {v.approve(t, other, "approver2"), fault.Policy},
		"by a key master":             {byKey(v.keys["master1"]), fault.Verify},
		"by a namesake":               {byKey(foreign.keys["approver2"]), fault.Verify},
		"as another type":             {typed, fault.Verify},
		"with a signature that fails": {flipped, fault.Verify},
		"empty":                       {nil, fault.Verify},
		"the proposal itself":         {proposal, fault.Verify},
	} {
		_, err := Append(v.path, testWorld, v.id, proposal, map[string][]byte{"1": good, "2": c.second})
		if got := fault.ClassOf(err); got != c.class {
			t.Errorf("%s: class %q, want %q: %v", name, got, c.class, err)
		}
	}
	for _, name := range []string{"master1", "witness", "conductor"} {
		if _, err := Approve(p, v.keys[name]); fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s approves: %v", name, err)
		}
	}
	if _, err := Approve(p, foreign.keys["approver1"]); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a namesake approves: %v", err)
	}
	if _, err := Append(v.path, testWorld, v.id, proposal, map[string][]byte{"1": good, "2": v.approve(t, proposal, "approver2")}); err != nil {
		t.Fatal(err)
	}
}

// Approvals are for one place: they serve no other vault, no other place, and not
// the same place in another history.
func TestApprovalsAreForOnePlace(t *testing.T) {
	v := found(t, 2, 2)
	first, second := v.propose(t, "ci2"), v.propose(t, "ci3")
	approvals := func(p []byte) map[string][]byte {
		return map[string][]byte{"1": v.approve(t, p, "approver1"), "2": v.approve(t, p, "approver2")}
	}
	a1, a2 := approvals(first), approvals(second)
	start, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Append(v.path, testWorld, v.id, first, a1); err != nil {
		t.Fatal(err)
	}
	for _, again := range []struct {
		p []byte
		a map[string][]byte
	}{{first, a1}, {second, a2}} {
		if _, err := Append(v.path, testWorld, v.id, again.p, again.a); !errors.Is(err, ErrStale) {
			t.Errorf("after the charter went on: %v", err)
		}
	}
	third := v.propose(t, "ci4")
	a3 := approvals(third)
	// The other history: the second proposal was appended in place of the first.
	if err := os.WriteFile(v.path, start, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(v.path, testWorld, v.id, second, a2); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(v.path, testWorld, v.id, third, a3); fault.ClassOf(err) != fault.Verify {
		t.Errorf("in another history: %v", err)
	}
	if _, err := Append(v.path, "rehearsal:zzzzzzzz", v.id, third, a3); fault.ClassOf(err) != fault.Policy {
		t.Errorf("in another world: %v", err)
	}
	if _, err := Append(v.path, testWorld, found(t, 2, 2).id, third, a3); fault.ClassOf(err) != fault.Policy {
		t.Errorf("in another vault: %v", err)
	}
}

func TestNotByProposal(t *testing.T) {
	v := found(t, 2, 2)
	for _, typ := range []string{charter.TypeGenesis, charter.TypePeople, charter.TypeEpoch, charter.TypeKey, charter.TypeKeyRetired, charter.TypeSuccessor, charter.TypeReceiver, charter.TypeKeyMoved, charter.TypeSafeRetired, "", "release"} {
		if _, err := New(v.state(t), typ, v.pipeline("ci2"), time.Unix(1e9+10, 0)); fault.ClassOf(err) != fault.Policy {
			t.Errorf("type %q: %v", typ, err)
		}
	}
	if _, err := New(v.state(t), charter.TypePipeline, v.pipeline("ci2"), time.Unix(1, 0)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("before the statement before it: %v", err)
	}
	if _, err := New(v.state(t), charter.TypePipeline, charter.Station{ID: "ci2"}, time.Unix(1e9+10, 0)); err == nil {
		t.Error("the body of another type")
	}
	want := []string{
		charter.TypeAccessEnded,
		charter.TypeAuditLog,
		charter.TypeAuditSink,
		charter.TypeBreakGlass,
		charter.TypeBreakGlassEnded,
		charter.TypeBreakGlassPulled,
		charter.TypeCertificateRevoked,
		charter.TypeDelegation,
		charter.TypeFactory,
		charter.TypeHost,
		charter.TypeIdentity,
		charter.TypeKVConfig,
		charter.TypeMount,
		charter.TypePasswordPolicy,
		charter.TypePKIRole,
		charter.TypePipeline,
		charter.TypePolicy,
		charter.TypeRelay,
		charter.TypeReleaseApproved,
		charter.TypeReminder, // it gives nobody anything: it says who is told
		charter.TypeStation,
		charter.TypeTokenRole,
		charter.TypeTransitKey,
		charter.TypeUnattended,
		charter.TypeVendorRoot,
	}
	if !slices.Equal(charter.Proposable(), want) {
		t.Errorf("proposable are %q: whatever is added here needs a reason why no ceremony has to prove it", charter.Proposable())
	}
}

// Two at once, and one that dies in between: the charter has whole lines only.
func TestAppendIsExclusiveAndDurable(t *testing.T) {
	v := found(t, 2, 2)
	proposal := v.propose(t, "ci2")
	approvals := map[string][]byte{"1": v.approve(t, proposal, "approver1"), "2": v.approve(t, proposal, "approver2")}
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			_, err := Append(v.path, testWorld, v.id, proposal, approvals)
			errs <- err
		}()
	}
	good := 0
	for range cap(errs) {
		err := <-errs
		switch {
		case err == nil:
			good++
		case fault.ClassOf(err) != fault.Sealed && !errors.Is(err, ErrStale):
			t.Errorf("beside another: %v", err)
		}
	}
	if good != 1 || v.state(t).Size() != 2 {
		t.Errorf("%d appended, %d statements", good, v.state(t).Size())
	}
	// Half a line is what a process leaves that was killed while it wrote.
	whole, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.path, append(bytes.Clone(whole), whole[:100]...), 0o600); err != nil {
		t.Fatal(err)
	}
	next := v.pipeline("ci3")
	st, err := charter.Fold(whole, testWorld, v.id)
	if err != nil {
		t.Fatal(err)
	}
	p3, err := New(st, charter.TypePipeline, next, time.Unix(1e9+20, 0))
	if err != nil {
		t.Fatal(err)
	}
	if st, err = charter.Fold(whole, testWorld, v.id); err != nil {
		t.Fatal(err)
	}
	open, err := Open(p3, st)
	if err != nil {
		t.Fatal(err)
	}
	a := map[string][]byte{}
	for _, n := range []string{"approver1", "approver2"} {
		if a[n], err = Approve(open, v.keys[n]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Append(v.path, testWorld, v.id, p3, a); !errors.Is(err, durable.ErrUnfinished) {
		t.Errorf("somebody may be writing: %v", err)
	}
	if left, err := os.ReadFile(v.path); err != nil || len(left) != len(whole)+100 {
		t.Errorf("%d bytes are left of %d: %v", len(left), len(whole)+100, err)
	}
	before := time.Now().Add(-durable.Rest)
	if err := os.Chtimes(v.path, before, before); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(v.path, testWorld, v.id, p3, a); err != nil {
		t.Fatal(err)
	}
	if v.state(t).Size() != 3 {
		t.Errorf("%d statements", v.state(t).Size())
	}
}

func spki(p *person.Person) ([]byte, error) { return x509.MarshalPKIXPublicKey(p.PublicKey()) }

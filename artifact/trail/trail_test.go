package trail_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/trail"
	"keyrite/artifact/world"
)

const testWorld = world.World("rehearsal:abcdefgh")

var testVault = strings.Repeat("ab", 32)

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("NOT SECRET " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func signer(name string) tlog.Signer {
	return tlog.Signer{Name: name, Public: key(name).Public()}
}

// log is a vault's log in memory.
type log struct {
	t      testing.TB
	leaves [][]byte
	tree   tlog.Tree
}

func (l *log) Entry(n uint64) ([]byte, error)                  { return l.leaves[n], nil }
func (l *log) Prove(n uint64, size int64) ([]tlog.Hash, error) { return l.tree.Prove(int64(n), size) }

func (l *log) add(e trail.Entry) {
	l.t.Helper()
	e.Format, e.Time = trail.Format, trail.FormatTime(time.Unix(1.8e9+int64(len(l.leaves)), 5e6))
	raw, err := jcs.Marshal(e)
	if err != nil {
		l.t.Fatal(err)
	}
	leaf, err := jcs.Marshal(trail.Leaf{Entry: raw, Seq: uint64(len(l.leaves)), State: strings.Repeat("0", 64)})
	if err != nil {
		l.t.Fatal(err)
	}
	l.leaves = append(l.leaves, leaf)
	if err := l.tree.Append(leaf); err != nil {
		l.t.Fatal(err)
	}
}

func newLog(t testing.TB, n int) *log {
	l := &log{t: t}
	l.add(trail.Entry{Kind: trail.Life, Operation: "create"})
	for i := 1; i < n; i++ {
		e := trail.Entry{Kind: trail.Request, Operation: "read", Identity: "mes", Path: fmt.Sprintf("kv/data/%d", i)}
		switch i % 10 {
		case 4:
			e.Kind, e.Operation = trail.Intent, "update"
		case 5:
			before := uint64(i - 1)
			e.Kind, e.Operation, e.Intent = trail.Result, "update", &before
		}
		l.add(e)
	}
	return l
}

// header states the log as it is now, cosigned.
func (l *log) header() (trail.Header, int64) {
	l.t.Helper()
	cp := tlog.Checkpoint{Origin: trail.Origin(testVault), World: testWorld, Size: l.tree.Size(), Root: l.tree.Root()}
	note, err := tlog.Sign(cp, "vault1", key("vault1"))
	if err == nil {
		note, err = tlog.Cosign(note, "watch1", key("watch1"), time.Unix(1.8e9, 0))
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return trail.Header{Vault: testVault, World: testWorld, Checkpoint: note}, cp.Size
}

func signers() trail.Signers {
	return trail.Signers{Vault: testVault, World: testWorld, Log: signer("vault1"), Cosigners: []tlog.Signer{signer("watch1")}, Need: 1}
}

func (l *log) whole() []byte {
	l.t.Helper()
	h, size := l.header()
	var b bytes.Buffer
	if err := trail.WriteWhole(&b, h, size, l); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

func (l *log) some(numbers ...uint64) []byte {
	l.t.Helper()
	h, size := l.header()
	var b bytes.Buffer
	if err := trail.WriteSome(&b, h, size, l, numbers); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

func verify(data []byte, s trail.Signers) (*trail.Verified, []uint64, error) {
	var seen []uint64
	v, err := trail.Verify(bytes.NewReader(data), s, func(n uint64, _ *trail.Entry) error {
		seen = append(seen, n)
		return nil
	})
	return v, seen, err
}

// TestExtracts: logs of every small size, whole and in parts.
func TestExtracts(t *testing.T) {
	for n := 1; n < 70; n++ {
		l := newLog(t, n)
		v, seen, err := verify(l.whole(), signers())
		if err != nil || v.Size != int64(n) || !v.Whole || len(seen) != n {
			t.Fatalf("whole log of %d: %+v, %v", n, v, err)
		}
		v, seen, err = verify(l.some(uint64(n/2)), signers())
		if err != nil || v.Whole || len(seen) != 1 || seen[0] != uint64(n/2) {
			t.Fatalf("entry %d of %d: %+v, %v", n/2, n, v, err)
		}
	}
}

// TestOpenIntent: a whole extract tells which intents have no result.
func TestOpenIntent(t *testing.T) {
	v, _, err := verify(newLog(t, 25).whole(), signers())
	if err != nil || len(v.Open) != 1 || v.Open[0] != 24 {
		t.Errorf("open intents %v, %v", v, err)
	}
}

// TestAlteredExtracts: every byte, every cut, every exchange of two lines.
func TestAlteredExtracts(t *testing.T) {
	l := newLog(t, 12)
	for name, good := range map[string][]byte{"whole": l.whole(), "some": l.some(1, 4, 7, 8)} {
		for i := range good {
			for _, bit := range []byte{1 << (i % 8)} {
				bad := bytes.Clone(good)
				bad[i] ^= bit
				if _, _, err := verify(bad, signers()); err == nil {
					t.Fatalf("%s: bit %#x of byte %d flipped: %q", name, bit, i, bad[max(0, i-20):min(len(bad), i+20)])
				}
			}
		}
		for i := range good {
			if _, _, err := verify(good[:i], signers()); err == nil {
				t.Fatalf("%s: cut to %d bytes", name, i)
			}
		}
		if _, _, err := verify(append(bytes.Clone(good), '\n'), signers()); err == nil {
			t.Errorf("%s: a line more", name)
		}
		lines := bytes.SplitAfter(good, []byte("\n"))
		for i := range lines[:len(lines)-1] {
			for j := range i {
				bad := append([][]byte{}, lines...)
				bad[i], bad[j] = bad[j], bad[i]
				if _, _, err := verify(bytes.Join(bad, nil), signers()); err == nil {
					t.Fatalf("%s: lines %d and %d exchanged", name, i, j)
				}
			}
		}
	}
}

// TestOtherSigners: whose word counts is the charter's to say.
func TestOtherSigners(t *testing.T) {
	good := newLog(t, 12).whole()
	live := world.World("live")
	for name, c := range map[string]struct {
		change func(*trail.Signers)
		class  fault.Class
	}{
		"no log key":         {func(s *trail.Signers) { s.Log = tlog.Signer{} }, fault.Policy},
		"another log key":    {func(s *trail.Signers) { s.Log = signer("vault2") }, fault.Verify},
		"another vault":      {func(s *trail.Signers) { s.Vault = strings.Repeat("cd", 32) }, fault.Policy},
		"another world":      {func(s *trail.Signers) { s.World = "rehearsal:hgfedcba" }, fault.Policy},
		"the live world":     {func(s *trail.Signers) { s.World = live }, fault.Policy},
		"live, no cosigners": {func(s *trail.Signers) { s.World, s.Need, s.Cosigners = live, 0, nil }, fault.Policy},
		"another cosigner":   {func(s *trail.Signers) { s.Cosigners = []tlog.Signer{signer("watch2")} }, fault.Verify},
		"two are needed": {func(s *trail.Signers) {
			s.Cosigners, s.Need = append(s.Cosigners, signer("watch2")), 2
		}, fault.Quorum},
		"more than there are": {func(s *trail.Signers) { s.Need = 2 }, fault.Policy},
		"fewer than none":     {func(s *trail.Signers) { s.Need = -1 }, fault.Policy},
	} {
		s := signers()
		c.change(&s)
		if _, _, err := verify(good, s); fault.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEntriesThatMeanNothing stand in a log that is signed, and are refused yet.
func TestEntriesThatMeanNothing(t *testing.T) {
	n, far := uint64(0), uint64(9)
	for name, e := range map[string]trail.Entry{
		"no kind":                  {Operation: "read"},
		"another kind":             {Kind: "other", Operation: "read"},
		"no operation":             {Kind: trail.Request},
		"a result of nothing":      {Kind: trail.Result, Operation: "update"},
		"a request with an intent": {Kind: trail.Request, Operation: "update", Intent: &n},
		"a result of no intent":    {Kind: trail.Result, Operation: "update", Intent: &n},
		"a result before":          {Kind: trail.Result, Operation: "update", Intent: &far},
		"a charter of -1":          {Kind: trail.Request, Operation: "read", Charter: -1},
	} {
		l := newLog(t, 1)
		l.add(e)
		if _, _, err := verify(l.whole(), signers()); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzVerify: nothing but what the log has is ever taken for proved.
func FuzzVerify(f *testing.F) {
	l := newLog(f, 12)
	f.Add(l.whole())
	f.Add(l.some(0, 4, 5))
	f.Fuzz(func(t *testing.T, data []byte) {
		var seen [][]byte
		_, err := trail.Verify(bytes.NewReader(data), signers(), func(_ uint64, e *trail.Entry) error {
			raw, err := jcs.Marshal(e)
			seen = append(seen, raw)
			return err
		})
		if err != nil {
			return
		}
		for _, raw := range seen {
			if !bytes.Contains(bytes.Join(l.leaves, nil), raw) {
				t.Errorf("proved, and not in the log: %s", raw)
			}
		}
	})
}

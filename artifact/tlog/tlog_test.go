package tlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"keyrite/artifact/fault"
)

const (
	testWorld = "rehearsal:abcdefgh"
	origin    = "keyrite/record/0123"
)

func key(t testing.TB) (ed25519.PrivateKey, ed25519.PublicKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return priv, pub
}

func TestInclusion(t *testing.T) {
	var tree Tree
	for i := range 37 {
		if err := tree.Append(fmt.Appendf(nil, "leaf %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(37) {
		p, err := tree.Prove(i, 37)
		if err != nil {
			t.Fatal(err)
		}
		leaf := LeafHash(fmt.Appendf(nil, "leaf %d", i))
		if err := CheckInclusion(p, 37, tree.Root(), i, leaf); err != nil {
			t.Errorf("leaf %d: %v", i, err)
		}
		if CheckInclusion(p, 37, tree.Root(), (i+1)%37, leaf) == nil {
			t.Errorf("leaf %d holds elsewhere", i)
		}
	}
	if CheckInclusion(nil, 0, Hash{}, 0, Hash{}) == nil || CheckInclusion(nil, 1, Hash{}, -1, Hash{}) == nil {
		t.Error("leaf outside the tree")
	}
}

// TestCloneGoesItsOwnWay: what is appended to a tree or to a clone of it is not in another,
// also where a clone is made of one with room, or at the end of a chunk.
func TestCloneGoesItsOwnWay(t *testing.T) {
	grown := func(tree *Tree, from, to int, what string) *Tree {
		for i := from; i < to; i++ {
			if err := tree.Append(fmt.Appendf(nil, "%s %d", what, i)); err != nil {
				t.Fatal(err)
			}
		}
		return tree
	}
	for _, n := range []int{0, 1, 5, 37, chunkHashes / 2, chunkHashes/2 + 1} {
		tree := grown(&Tree{}, 0, n, "leaf")
		a, b := tree.Clone(), tree.Clone()
		grown(&a, n, n+9, "a")
		grown(&b, n, n+9, "b")
		grown(tree, n, n+9, "c")
		for what, got := range map[string]*Tree{"a": &a, "b": &b, "c": tree} {
			if want := grown(grown(&Tree{}, 0, n, "leaf"), n, n+9, what); got.Root() != want.Root() || got.Size() != want.Size() {
				t.Errorf("%d leaves and those of %s: another tree", n, what)
			}
		}
	}
}

func testNote(t testing.TB) ([]byte, Signer, []Signer) {
	t.Helper()
	var tree Tree
	_ = tree.Append([]byte("a"))
	logKey, logPub := key(t)
	c := Checkpoint{origin, testWorld, 1, tree.Root()}
	n, err := Sign(c, "conductor", logKey)
	if err != nil {
		t.Fatal(err)
	}
	var cos []Signer
	for _, name := range []string{"witness1", "witness2"} {
		k, pub := key(t)
		if n, err = Cosign(n, name, k, time.Unix(1_800_000_000, 0)); err != nil {
			t.Fatal(err)
		}
		cos = append(cos, Signer{name, pub})
	}
	return n, Signer{"conductor", logPub}, cos
}

func TestOpen(t *testing.T) {
	n, log, cos := testNote(t)
	o, err := Open(n, origin, testWorld, log, cos)
	if err != nil {
		t.Fatal(err)
	}
	if o.Size != 1 || strings.Join(o.Cosigners, " ") != "witness1 witness2" || o.CosignedAt["witness2"].Unix() != 1_800_000_000 {
		t.Errorf("opened %+v", o)
	}
	lines := bytes.SplitAfter(n, []byte("\n"))
	last := lines[len(lines)-2]
	tests := []struct {
		name string
		note []byte
		w    string
		cos  []Signer
	}{
		{"other world", n, "live", cos},
		{"unknown cosigner", n, testWorld, cos[:1]},
		{"cosigner under another name", n, testWorld, []Signer{cos[1], {"witness2", cos[0].Public}}},
		{"twice", append(bytes.Clone(n), last...), testWorld, cos},
		{"trailing newline", append(bytes.Clone(n), '\n'), testWorld, cos},
		{"no final newline", n[:len(n)-1], testWorld, cos},
		{"log line as cosignature", append(bytes.Clone(n), lines[5]...), testWorld, cos},
		{"no signature", n[:bytes.Index(n, []byte("\n\n"))+2], testWorld, cos},
		{"empty", nil, testWorld, cos},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Open(tt.note, origin, "rehearsal:abcdefgh", log, tt.cos); tt.w == testWorld && err == nil {
				t.Error("accepted")
			}
			if tt.w != testWorld {
				if _, err := Open(tt.note, origin, "live", log, tt.cos); fault.ClassOf(err) != fault.Policy {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	n, log, cos := testNote(t)
	for i := range n {
		for bit := range 8 {
			bad := bytes.Clone(n)
			bad[i] ^= 1 << bit
			if _, err := Open(bad, origin, testWorld, log, cos); err == nil {
				t.Errorf("byte %d bit %d", i, bit)
			}
		}
		if _, err := Open(n[:i], origin, testWorld, log, cos); err == nil && i < len(n) {
			// A cut after a whole line is a checkpoint with fewer cosignatures.
			if n[i-1] != '\n' {
				t.Errorf("cut at %d", i)
			}
		}
	}
}

// The Go team's note package, which nobody here wrote, reads our log signature.
func TestForeignReader(t *testing.T) {
	n, log, _ := testNote(t)
	vkey, err := note.NewEd25519VerifierKey(log.Name, log.Public.(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	got, err := note.Open(n, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sigs) != 1 || len(got.UnverifiedSigs) != 2 {
		t.Errorf("%d signatures, %d unknown", len(got.Sigs), len(got.UnverifiedSigs))
	}
}

func FuzzOpen(f *testing.F) {
	n, log, cos := testNote(f)
	f.Add(n)
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Open(data, origin, testWorld, log, cos)
		if err == nil && !bytes.HasPrefix(data, o.Text()) {
			t.Errorf("accepted %q as %+v", data, o)
		}
	})
}

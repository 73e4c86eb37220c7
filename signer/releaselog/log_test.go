package releaselog_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/signer/releaselog"
)

const origin = "keyrite/release/rehearsal:test0000/00"

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t *testing.T, dir string, key crypto.Signer, from releaselog.State) *releaselog.Log {
	t.Helper()
	l, err := releaselog.Open(t.Context(), dir, origin, key, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestAppendProvesAndContinues(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "log"), newKey(t)
	pub, _ := key.Public().(ed25519.PublicKey)
	var state releaselog.State
	for i := range int64(4) { // each by a process of its own
		l := open(t, dir, key, state)
		leaf := fmt.Appendf(nil, `{"n":%d}`, i)
		p, s, err := l.Append(leaf, i)
		if err != nil {
			t.Fatal(err)
		}
		if p.Index != i || s.Size != i+1 {
			t.Fatalf("entry %d is at %d of %d", i, p.Index, s.Size)
		}
		size, root, err := tlog.OpenBare(p.Checkpoint, origin, pub)
		if err == nil {
			err = tlog.CheckInclusion(p.Hashes, size, root, i, tlog.LeafHash(leaf))
		}
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := l.Append(leaf, i)
		if err != nil || again.Index != i {
			t.Fatalf("appended again: %v", err)
		}
		state = s
		l.Close()
	}
}

func TestOpenRefusesAnOlderCopy(t *testing.T) {
	base, key := t.TempDir(), newKey(t)
	dir, old := filepath.Join(base, "log"), filepath.Join(base, "old")
	l := open(t, dir, key, releaselog.State{})
	if _, _, err := l.Append([]byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	_, state, err := l.Append([]byte("two"), 1)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, d := range []string{old, filepath.Join(base, "new")} {
		if _, err := releaselog.Open(t.Context(), d, origin, key, state); !errors.Is(err, releaselog.ErrBehind) {
			t.Errorf("%s: got %v", filepath.Base(d), err)
		}
	}
	fork := filepath.Join(base, "fork")
	f := open(t, fork, key, releaselog.State{})
	for i, leaf := range []string{"one", "other", "three"} {
		if _, _, err := f.Append([]byte(leaf), int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if _, err := releaselog.Open(t.Context(), fork, origin, key, state); !errors.Is(err, releaselog.ErrBehind) {
		t.Errorf("fork: got %v", err)
	}
}

type broken struct{ crypto.Signer }

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fault.New(fault.Token, "token is gone")
}

// What the token says comes back at once, and not as a time-out.
func TestTokenFailureIsNotATimeOut(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "log"), newKey(t)
	if _, err := releaselog.Open(t.Context(), dir, origin, broken{key}, releaselog.State{}); fault.ClassOf(err) != fault.Token {
		t.Errorf("first checkpoint: %v", err)
	}
	l := open(t, dir, key, releaselog.State{})
	_, state, err := l.Append([]byte("one"), 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	b := open(t, dir, broken{key}, state)
	if _, _, err := b.Append([]byte("two"), 1); fault.ClassOf(err) != fault.Token {
		t.Errorf("later checkpoint: %v", err)
	}
	b.Close()
	// The entry is in the tree; with the token back it gets its checkpoint, once.
	l = open(t, dir, key, state)
	p, _, err := l.Append([]byte("two"), 1)
	if err != nil || p.Index != 1 {
		t.Errorf("with the token back: %v", err)
	}
}

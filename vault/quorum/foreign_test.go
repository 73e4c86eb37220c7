package quorum

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyrite/artifact/fault"
)

// foreign runs an implementation of Shamir's scheme that has nothing in common with
// the library that is used here.
func foreign(t *testing.T, req, out any) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is missing: apt-get install nodejs")
	}
	in, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "testdata/shamir.js")
	cmd.Stdin = bytes.NewReader(in)
	b, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A foreign tool combines our shares, every subset of three, and we combine its.
func TestSharesAreThoseOfAForeignTool(t *testing.T) {
	secret := make([]byte, 32)
	rand.Read(secret)
	ours, err := split(secret, 5, 3)
	if err != nil {
		t.Fatal(err)
	}
	err = eachSubset(5, 3, func(pick []int) error {
		req := map[string]any{"op": "combine"}
		var list []string
		for _, i := range pick {
			list = append(list, hex.EncodeToString(ours[i]))
		}
		req["shares"] = list
		var got string
		foreign(t, req, &got)
		if got != hex.EncodeToString(secret) {
			t.Errorf("%v: another secret", pick)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var theirs []string
	foreign(t, map[string]any{"op": "split", "secret": hex.EncodeToString(secret), "n": 5, "need": 3}, &theirs)
	var raw [][]byte
	for _, s := range theirs {
		raw = append(raw, unhex(t, s))
	}
	if err := selfTest(secret, raw, 3); err != nil {
		t.Errorf("their shares: %v", err)
	}
}

// Known shares, made once by a third implementation, in Python.
func TestShamirVectors(t *testing.T) {
	files, err := filepath.Glob("../../testdata/vectors/shamir/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Need   int
			Secret string
			Shares []string
		}
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		var raw [][]byte
		for _, s := range v.Shares {
			raw = append(raw, unhex(t, s))
		}
		if err := selfTest(unhex(t, v.Secret), raw, v.Need); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if selfTest(unhex(t, v.Secret), raw, v.Need-1) == nil && v.Need > 2 {
			t.Errorf("%s: one share fewer gives the secret", f)
		}
	}
}

// The self-test after dealing finds any one altered byte of any one share, also
// where there are more subsets than are tried.
func TestSelfTestFails(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	good, err := split(secret, 5, 3)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		for i := range good[n] {
			bad := clone2(good)
			bad[n][i] ^= 1
			if err := selfTest(secret, bad, 3); err == nil {
				t.Errorf("share %d, byte %d", n+1, i)
			} else if c := fault.ClassOf(err); c != fault.Unexpected && c != fault.Verify {
				t.Errorf("share %d, byte %d: class %s", n+1, i, c)
			}
		}
	}
	swapped := clone2(good)
	swapped[1] = swapped[0]
	if selfTest(secret, swapped, 3) == nil {
		t.Error("the same share twice")
	}
	many, err := split(secret, 20, 5) // 15,504 subsets, of which 1,000 are tried
	if err != nil {
		t.Fatal(err)
	}
	many[13][4] ^= 1 // in a quarter of the subsets
	if selfTest(secret, many, 5) == nil {
		t.Error("a bad share among 20 was not found")
	}
}

func clone2(in [][]byte) [][]byte {
	out := make([][]byte, len(in))
	for i := range in {
		out[i] = bytes.Clone(in[i])
	}
	return out
}

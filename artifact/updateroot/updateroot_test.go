package updateroot_test

import (
	"encoding/json"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/updateroot"
)

const vectors = "../../testdata/vectors/updateroot"

// TestVectors refuses every hostile root for its reason. signer/tuf makes them.
func TestVectors(t *testing.T) {
	_, c := artifacttest.Load(t, vectors)
	for _, v := range artifacttest.Vectors(t, vectors) {
		t.Run(v.Name, func(t *testing.T) {
			r, err := updateroot.Parse(v.Body)
			if err == nil {
				err = r.Check(c)
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

// TestEveryFlippedBitIsRefused alters a root everywhere.
func TestEveryFlippedBitIsRefused(t *testing.T) {
	_, c := artifacttest.Load(t, vectors)
	for _, v := range artifacttest.Vectors(t, vectors) {
		if v.Name != "good" {
			continue
		}
		for i := range v.Body {
			bad := append([]byte{}, v.Body...)
			bad[i] ^= 1 << (i % 8)
			if r, err := updateroot.Parse(bad); err == nil && r.Check(c) == nil {
				t.Errorf("byte %d", i)
			}
		}
		return
	}
	t.Error("there is no good vector")
}

func FuzzParse(f *testing.F) {
	for _, v := range artifacttest.Vectors(f, vectors) {
		f.Add(v.Body)
	}
	_, c := artifacttest.Load(f, vectors)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := updateroot.Parse(data)
		if err != nil {
			return
		}
		if !json.Valid(data) || r.Version() < 1 {
			t.Errorf("accepted %q", data)
		}
		_ = r.Check(c) // must not panic, whatever it says
	})
}

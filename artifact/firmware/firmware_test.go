package firmware_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
	"keyrite/artifact/succession"
)

func image(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	b[0] = 0x7f // no message of another domain
	return b
}

func TestVerifyAcceptsWhatWasReleased(t *testing.T) {
	w := artifacttest.New(t)
	for _, n := range []int{1, 511, 512, 513, 256<<10 - 1, 256 << 10, 600_001} {
		r := w.Release(image(t, n), "1.2.3", 7)
		s, err := firmware.Verify(bytes.NewReader(r.Image), r.Bundle, w.Trust())
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if s.Predicate.SecurityVersion != 7 || s.Predicate.Product != "gw100" {
			t.Errorf("got %+v", s.Predicate)
		}
		var out bytes.Buffer
		k, err := firmware.OpenKRF(bytes.NewReader(r.KRF), w.Trust())
		if err == nil {
			err = k.CopyTo(&out)
		}
		if err != nil || !bytes.Equal(out.Bytes(), r.Image) {
			t.Fatalf("%d bytes: image out of the .krf: %v", n, err)
		}
		if err := k.CopyTo(io.Discard); err == nil {
			t.Error("the image could be taken twice")
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	r := w.Release(image(t, 1000), "1.2.3", 7)
	payload := func(change func(*firmware.Statement)) []byte {
		s := w.Statement(r.Image, "1.2.3", 7)
		change(s)
		b, err := jcs.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	changed := func(change func(*firmware.Statement)) []byte { return w.Sign(payload(change), "firmware") }
	tests := []struct {
		name   string
		image  []byte
		bundle []byte
		trust  *firmware.Trust
		want   fault.Class
	}{
		{"image with a byte more", append(bytes.Clone(r.Image), 0), r.Bundle, w.Trust(), fault.Verify},
		{"image with a byte less", r.Image[:999], r.Bundle, w.Trust(), fault.Verify},
		{"empty image", nil, r.Bundle, w.Trust(), fault.Verify},
		{"endless image", nil, r.Bundle, w.Trust(), fault.Verify},
		{"other image of the same size", image(t, 1000), r.Bundle, w.Trust(), fault.Verify},
		{"other world", r.Image, r.Bundle, other.Trust(), fault.Policy},
		{"signed by a key of another domain", r.Image, w.Sign(payload(func(*firmware.Statement) {}), "tuf-targets"), w.Trust(), fault.Verify},
		{"statement of another vault", r.Image, changed(func(s *firmware.Statement) { s.Predicate.Vault = strings.Repeat("0", 64) }), w.Trust(), fault.Policy},
		{"statement of the live world by a rehearsal key", r.Image, changed(func(s *firmware.Statement) { s.Predicate.World = "live" }), w.Trust(), fault.Policy},
		{"security version 0", r.Image, changed(func(s *firmware.Statement) { s.Predicate.SecurityVersion = 0 }), w.Trust(), fault.Verify},
		{"one approval", r.Image, changed(func(s *firmware.Statement) { s.Predicate.Approvals = s.Predicate.Approvals[:1] }), w.Trust(), fault.Verify},
		{"one approver twice", r.Image, changed(func(s *firmware.Statement) { s.Predicate.Approvals[1].Approver = "approver1" }), w.Trust(), fault.Verify},
		{"no hardware", r.Image, changed(func(s *firmware.Statement) { s.Predicate.Hardware = []string{} }), w.Trust(), fault.Verify},
		{"file name with a folder", r.Image, changed(func(s *firmware.Statement) { s.Subject[0].Name = "../x" }), w.Trust(), fault.Verify},
		{"two subjects", r.Image, changed(func(s *firmware.Statement) { s.Subject = append(s.Subject, s.Subject[0]) }), w.Trust(), fault.Verify},
		{"other predicate", r.Image, changed(func(s *firmware.Statement) { s.PredicateType = "https://slsa.dev/provenance/v1" }), w.Trust(), fault.Verify},
		{"text", r.Image, []byte("hello"), w.Trust(), fault.Verify},
		{"bundle of 1 MB", r.Image, bytes.Repeat([]byte(" "), 1<<20), w.Trust(), fault.Verify},
		{"bundle with a newline", r.Image, append(bytes.Clone(r.Bundle), '\n'), w.Trust(), fault.Verify},
		{"bundle without tlogEntries", r.Image, bytes.Replace(r.Bundle, []byte(`,"tlogEntries":[]`), nil, 1), w.Trust(), fault.Verify},
		{"bundle with a null list", r.Image, bytes.Replace(r.Bundle, []byte(`"tlogEntries":[]`), []byte(`"tlogEntries":null`), 1), w.Trust(), fault.Verify},
		{"bundle with an unknown member", r.Image, bytes.Replace(r.Bundle, []byte(`"tlogEntries":[]`), []byte(`"tlogEntries":[],"x":1`), 1), w.Trust(), fault.Verify},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var img io.Reader = bytes.NewReader(tt.image)
			if tt.name == "endless image" {
				img = zeros{}
			}
			s, err := firmware.Verify(img, tt.bundle, tt.trust)
			if s != nil || fault.ClassOf(err) != tt.want {
				t.Errorf("got statement %v, error %v (%s), want class %s", s != nil, err, fault.ClassOf(err), tt.want)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// Every flipped bit of a bundle is refused, whatever it is part of.
func TestEveryFlippedByteOfABundle(t *testing.T) {
	w := artifacttest.New(t)
	r := w.Release(image(t, 100), "1.2.3", 7)
	trust := w.Trust()
	for i := range r.Bundle {
		for bit := range 8 {
			b := bytes.Clone(r.Bundle)
			b[i] ^= 1 << bit
			if _, err := firmware.Open(b, trust); err == nil {
				t.Fatalf("bit %d of byte %d flipped and accepted", bit, i)
			}
		}
	}
	for n := range r.Bundle {
		if _, err := firmware.Open(r.Bundle[:n], trust); err == nil {
			t.Fatalf("cut to %d bytes and accepted", n)
		}
	}
}

// Every byte of a small .krf is under a signature or fixed: headers, padding,
// proof, end. 1,000 sampled bytes and the last 64 of a larger image besides.
func TestEveryFlippedByteOfAKRF(t *testing.T) {
	w := artifacttest.New(t)
	trust := w.Trust()
	small := w.Release(image(t, 700), "1.2.3", 7)
	for i := range small.KRF {
		b := bytes.Clone(small.KRF)
		b[i] ^= 1
		if _, err := firmware.VerifyKRF(bytes.NewReader(b), trust); fault.ClassOf(err) != fault.Verify {
			t.Fatalf("byte %d of %d flipped: %v", i, len(b), err)
		}
	}
	for n := range small.KRF {
		if _, err := firmware.VerifyKRF(bytes.NewReader(small.KRF[:n]), trust); fault.ClassOf(err) != fault.Verify {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(small.KRF), err)
		}
	}
	if _, err := firmware.VerifyKRF(bytes.NewReader(append(bytes.Clone(small.KRF), 0)), trust); fault.ClassOf(err) != fault.Verify {
		t.Errorf("one byte more: %v", err)
	}
	big := w.Release(image(t, 300_000), "1.2.3", 7)
	at := []int{}
	for i := range 1000 {
		at = append(at, i*300)
	}
	for i := range 64 {
		at = append(at, 300_000-64+i)
	}
	for _, i := range at {
		big.Image[i] ^= 0x80
		if _, err := firmware.Verify(bytes.NewReader(big.Image), big.Bundle, trust); !errors.Is(err, firmware.ErrImage) {
			t.Fatalf("byte %d of the image flipped: %v", i, err)
		}
		big.Image[i] ^= 0x80
	}
}

func TestProofRefuses(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	r, r2 := w.Release(image(t, 100), "1.2.3", 7), w.Release(image(t, 100), "1.2.4", 7)
	foreign := other.Release(image(t, 100), "1.2.3", 7)
	tests := []struct {
		name  string
		proof []byte
	}{
		{"proof of another release", r2.Proof},
		{"proof of another log", foreign.Proof},
		{"other index", bytes.Replace(r.Proof, []byte("index 1\n"), []byte("index 0\n"), 1)},
		{"index with a zero before", bytes.Replace(r.Proof, []byte("index 1\n"), []byte("index 01\n"), 1)},
		{"index beyond the tree", bytes.Replace(r.Proof, []byte("index 1\n"), []byte("index 3\n"), 1)},
		{"negative index", bytes.Replace(r.Proof, []byte("index 1\n"), []byte("index -1\n"), 1)},
		{"second signature line", append(bytes.Clone(r.Proof), "— somebody AAAA\n"...)},
		{"extra line", bytes.Replace(r.Proof, []byte("index"), []byte("extra AAAA\nindex"), 1)},
		{"other origin", bytes.ReplaceAll(r.Proof, []byte("keyrite/release/"), []byte("keyrite/record/"))},
		{"nothing", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := firmware.CheckProof(tt.proof, r.Bundle, w.Trust()); fault.ClassOf(err) != fault.Verify {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := firmware.CheckProof(r.Proof, r.Bundle, w.Trust()); err != nil {
		t.Error(err)
	}
}

func TestMeasureRefusesOtherDomains(t *testing.T) {
	for _, head := range []string{"DSSEv1 28 application", "keyrite possession v1\n", "cosignature/v1\n", strings.Repeat(" ", 64)} {
		if _, _, err := firmware.Measure(strings.NewReader(head + "rest")); !errors.Is(err, firmware.ErrDomain) {
			t.Errorf("%q: %v", head, err)
		}
	}
	if _, _, err := firmware.Measure(strings.NewReader("")); !errors.Is(err, firmware.ErrEmpty) {
		t.Errorf("empty: %v", err)
	}
	if _, _, err := firmware.Measure(stopped{}); fault.ClassOf(err) != fault.Interrupted {
		t.Errorf("interrupted: %v", err)
	}
}

type stopped struct{}

func (stopped) Read([]byte) (int, error) { return 0, context.Canceled }

// Standard tar programs list and unpack a .krf, and what comes out verifies.
func TestKRFIsATarFile(t *testing.T) {
	w := artifacttest.New(t)
	r := w.Release(image(t, 70_000), "1.2.3", 7)
	names := []string{}
	tr := tar.NewReader(bytes.NewReader(r.KRF))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	want := "firmware.img.sigstore.json firmware.img.tlog-proof firmware.img"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got members %s, want %s", got, want)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "x.krf")
	if err := os.WriteFile(file, r.KRF, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "tar", "-tf", file).CombinedOutput()
	if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
		t.Errorf("tar -tf: %v: %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-xf", file).CombinedOutput(); err != nil {
		t.Fatalf("tar -xf: %v: %s", err, out)
	}
	for name, want := range map[string][]byte{"firmware.img": r.Image, "firmware.img.sigstore.json": r.Bundle, "firmware.img.tlog-proof": r.Proof} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s does not come back as it was: %v", name, err)
		}
	}
}

func TestTrustOfWantsTheRightDomains(t *testing.T) {
	w := artifacttest.New(t)
	a := *w.Anchors
	a.Keys = append([]anchor.KeyRecord(nil), a.Keys...)
	for i := range a.Keys {
		if a.Keys[i].ID == "firmware" {
			a.Keys[i].Domain = "raw-image"
		}
	}
	if _, err := firmware.TrustOf(&a); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a raw-image key was taken for statements: %v", err)
	}
}

// TestProductKeySignsItsProductOnly: the key firmware-gw200 is believed for gw200 and
// nothing else, the common key for all, and a product's key that gave way for nothing.
func TestProductKeySignsItsProductOnly(t *testing.T) {
	w := artifacttest.New(t)
	w.AddSuccessors()
	w.Anchors.Keys = append(w.Anchors.Keys, w.Later("firmware-gw200", "dsse", ""))
	w.Anchors.Successors = append(w.Anchors.Successors, w.Later("firmware-gw200-2", "dsse", "firmware-gw200"))
	image := []byte("image")
	bundle := func(by, product string) []byte {
		s := w.Statement(image, "1.0.0", 1)
		s.Predicate.Product, s.Predicate.Key.ID = product, by
		data, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return w.Sign(data, by)
	}
	check := func(trust *firmware.Trust, by, product string, want error) {
		t.Helper()
		s, err := firmware.Open(bundle(by, product), trust)
		if !errors.Is(err, want) || err == nil && s.Role() != strings.TrimSuffix(by, "-2") {
			t.Errorf("%s of %s: %v", product, by, err)
		}
	}
	trust := w.Trust()
	check(trust, "firmware", "gw100", nil)
	check(trust, "firmware", "gw200", nil)
	check(trust, "firmware-gw200", "gw200", nil)
	check(trust, "firmware-gw200", "gw100", firmware.ErrProduct)
	check(trust, "firmware-gw200", "gw2000", firmware.ErrProduct)
	check(trust, "firmware-gw200-2", "gw200", envelope.ErrUnknown)
	check(trust, "acceptance", "gw200", envelope.ErrUnknown)

	e := succession.Entry{From: succession.Hash(w.SPKI("firmware-gw200")), ID: "firmware-gw200", Reason: "compromised", To: *w.Anchors.Dormant("firmware-gw200")}
	data, err := succession.New(w.Anchors, nil, []succession.Entry{e}, nil, "keyrite/record/2", artifacttest.Now()).Sign(w.Anchors, w.Keys["succession"])
	if err != nil {
		t.Fatal(err)
	}
	s, err := succession.Verify(data, w.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	if w.Anchors, err = succession.Apply(w.Anchors, s); err != nil {
		t.Fatal(err)
	}
	trust = w.Trust()
	check(trust, "firmware-gw200", "gw200", firmware.ErrGone)
	check(trust, "firmware-gw200-2", "gw200", nil)
	check(trust, "firmware-gw200-2", "gw100", firmware.ErrProduct)
	check(trust, "firmware", "gw100", nil)
	// A device that still runs what the old key signed believes it for its product.
	before := trust.Before()
	if len(before) != 1 {
		t.Fatalf("%d keys before", len(before))
	}
	check(before[0], "firmware-gw200", "gw200", nil)
	check(before[0], "firmware-gw200", "gw100", firmware.ErrProduct)
	check(before[0], "firmware", "gw100", envelope.ErrUnknown)
	if _, err := firmware.Open(bundle("firmware", "gw100"), &firmware.Trust{World: w.World, Vault: w.Anchors.Vault}); err == nil {
		t.Error("a release is believed without a key")
	}
}

func FuzzBundle(f *testing.F) {
	w := artifacttest.New(f)
	r := w.Release([]byte("image"), "1.2.3", 7)
	f.Add(r.Bundle)
	f.Add([]byte(`{"mediaType":1}`))
	trust := w.Trust()
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := firmware.ParseBundle(data)
		if err != nil {
			return
		}
		again, err := firmware.NewBundle(env)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted bytes come back differently: %v", err)
		}
		if s, err := firmware.Open(data, trust); err == nil && s.Predicate.World != w.World {
			t.Error("accepted a statement of another world")
		}
	})
}

func FuzzStatement(f *testing.F) {
	w := artifacttest.New(f)
	b, err := w.Statement([]byte("image"), "1.2.3", 7).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := firmware.ParseStatement(data)
		if err != nil {
			return
		}
		if again, err := s.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted bytes come back differently: %v", err)
		}
	})
}

func FuzzKRF(f *testing.F) {
	w := artifacttest.New(f)
	r := w.Release([]byte("image"), "1.2.3", 7)
	f.Add(r.KRF)
	f.Add(r.KRF[:512])
	trust := w.Trust()
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := firmware.VerifyKRF(bytes.NewReader(data), trust); err == nil && !bytes.Equal(data, r.KRF) {
			// Another valid file would need another valid signature.
			t.Error("accepted another file than the one written")
		}
	})
}

func FuzzProof(f *testing.F) {
	w := artifacttest.New(f)
	r := w.Release([]byte("image"), "1.2.3", 7)
	f.Add(r.Proof)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := firmware.ParseProof(data)
		if err == nil && !bytes.Equal(p.Marshal(), data) {
			t.Error("accepted bytes come back differently")
		}
	})
}

package firmware_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
)

// A real firmware image: U-Boot for QEMU, as Debian builds it.
func TestUBoot(t *testing.T) {
	img, err := os.ReadFile("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
	if err != nil {
		t.Fatalf("Debian's u-boot-qemu is missing: %v", err)
	}
	w := artifacttest.New(t)
	r := w.Release(img, "2023.01", 1)
	if _, err := firmware.VerifyKRF(bytes.NewReader(r.KRF), w.Trust()); err != nil {
		t.Error(err)
	}
}

// An image beyond 2 GiB is hashed to its last byte: a signer that counts in 31
// bits would sign its beginning only (CVE-2026-34155 in another product).
func TestLongImageBeyond2GiB(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: hashes 6 GiB")
	}
	const size = 2<<30 + 1
	path := filepath.Join(t.TempDir(), "sparse.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	sum, n, err := firmware.Measure(f)
	if err != nil || n != size {
		t.Fatalf("measured %d bytes: %v", n, err)
	}
	w := artifacttest.New(t)
	s := w.Statement(nil, "1.0", 1)
	s.Subject[0].Digest.SHA256, s.Predicate.Size = sum, size
	payload, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	bundle := w.Sign(payload, firmware.KeyID)
	verify := func() error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		_, err := firmware.Verify(f, bundle, w.Trust())
		return err
	}
	if err := verify(); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteAt([]byte{1}, size-1); err != nil {
		t.Fatal(err)
	}
	if err := verify(); fault.ClassOf(err) != fault.Verify {
		t.Errorf("the last byte does not count: %v", err)
	}
}

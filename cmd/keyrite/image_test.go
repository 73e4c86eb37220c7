package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The live system of the ceremony PC: two builds give the same bytes, and the
// image boots in QEMU without a network card, where it tries itself: a whole
// genesis whose script demands network, swap and core dumps off (R-CER-4).
func TestLongCeremonyImage(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: set KEYRITE_TEST_LONG=1")
	}
	out := filepath.Join(t.TempDir(), "image")
	script := func(args ...string) string {
		t.Helper()
		text, err := exec.Command("../../scripts/ceremony-image", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ceremony-image %v: %v\n%s", args, err, text)
		}
		return string(text)
	}
	script("--setup")
	sums := script(out)
	t.Logf("two builds agree:\n%s", sums)
	t.Log("long: images built twice with the same hash: 1 of 1")
	text := script("--boot", out)
	for _, want := range []string{`"network":"none"`, `"swap":"none"`, `"core_dumps":"none"`, `"clock":"UTC"`, "CLOSED: record", "this computer is fit for a ceremony"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the serial line:\n%s", want, text)
		}
	}
	t.Log("long: boots in QEMU with a genesis in it: 1 of 1")
}

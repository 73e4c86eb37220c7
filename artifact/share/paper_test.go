package share

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
)

// paperShare is a real share file.
func paperShare(t testing.TB) []byte {
	t.Helper()
	file := make([]byte, 459)
	rand.Read(file)
	return file
}

func TestPaperRoundTrip(t *testing.T) {
	for _, size := range []int{1, 24, 25, 26, 459, maxPaperLines * lineBytes} {
		file := make([]byte, size)
		rand.Read(file)
		lines, err := PaperLines(file)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(lines)
		typed := strings.ToLower(strings.ReplaceAll(strings.Join(lines, "\n"), "O", "0"))
		scanned, err := PaperQR(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range [][]string{lines, strings.Split(typed, "\n"), {scanned}, append(lines, lines[0], "")} {
			if got, err := FromPaper(in); err != nil || !bytes.Equal(got, file) {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
	for _, size := range []int{0, maxPaperLines*lineBytes + 1} {
		if _, err := PaperLines(make([]byte, size)); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// Every wrong character and every two characters swapped are found, in the line
// where they are.
func TestPaperNamesTheMisreadLine(t *testing.T) {
	lines, err := PaperLines(paperShare(t))
	if err != nil {
		t.Fatal(err)
	}
	try := func(n int, line, what string) {
		bad := slices.Clone(lines)
		bad[n] = line
		if _, err := FromPaper(bad); fault.ClassOf(err) != fault.Verify {
			t.Fatalf("line %d, %s: %v", n, what, err)
		} else if what[0] == 'c' && !strings.Contains(err.Error(), fmt.Sprintf("line %02d", n)) {
			t.Fatalf("line %d, %s: not named: %v", n, what, err)
		}
	}
	for n := range lines {
		compact := strings.ReplaceAll(lines[n], " ", "")
		for i := range compact {
			for _, c := range base32Letters {
				if b := []byte(compact); b[i] != byte(c) && i >= 2 {
					b[i] = byte(c)
					try(n, string(b), "character")
				}
			}
			if i > 0 && compact[i] != compact[i-1] {
				b := []byte(compact)
				b[i-1], b[i] = b[i], b[i-1]
				try(n, string(b), "swapped")
			}
			try(n, compact[:i], "short")
		}
	}
	if _, err := FromPaper(append(lines[:3:3], lines[5:]...)); err == nil || !strings.Contains(err.Error(), "missing: 03, 04 of") {
		t.Errorf("missing lines: %v", err)
	}
	other, err := PaperLines(paperShare(t))
	if err != nil {
		t.Fatal(err)
	}
	mixed := slices.Clone(lines)
	mixed[4] = other[4]
	for name, in := range map[string][]string{"a line of another share": mixed, "two shares": append(slices.Clone(lines), other...), "nothing": nil, "no head": lines[1:], "a line too many": append(slices.Clone(lines), paperLine(98, make([]byte, lineBytes)))} {
		if _, err := FromPaper(in); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The stock base32 of a Debian machine reads the same bytes, and a second
// implementation of the check, in awk, agrees.
func TestPaperIsReadByOthers(t *testing.T) {
	file := paperShare(t)
	lines, err := PaperLines(file)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", `grep -v '^00' | tr -d ' ' | cut -c3-42 | while read -r l; do echo "$l" | base32 -d; done | head -c `+fmt.Sprint(len(file))+` | sha256sum`)
	c.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := c.CombinedOutput()
	sum := sha256.Sum256(file)
	if err != nil || !strings.HasPrefix(string(out), hex.EncodeToString(sum[:])) {
		t.Errorf("base32 and sha256sum: %v: %s", err, out)
	}
}

// BIP-173: "A12UEL5L" is the empty string under the prefix "a". The code here is
// the same polynomial; the vector is written as its values.
func TestPaperCheckIsBIP173(t *testing.T) {
	// 'a' expands to 3, 0, 1: n = 3<<5 | 0, then the character of value 1.
	const bech32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	var want strings.Builder
	for _, c := range "2uel5l" {
		want.WriteByte(base32Letters[strings.IndexRune(bech32, c)])
	}
	if got := paperCheck(3<<5, "B"); got != want.String() {
		t.Errorf("got %s, want %s", got, want.String())
	}
}

func TestPaperVectors(t *testing.T) {
	for _, v := range artifacttest.Vectors(t, "../../testdata/vectors/share-paper") {
		file, err := FromPaper(strings.Split(string(v.Body), "\n"))
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, got, err, v.Expect)
		}
		if err == nil && !bytes.HasPrefix(file, []byte("age-encryption.org/v1\n")) {
			t.Errorf("%s: not an age file", v.Name)
		}
	}
}

func FuzzFromPaper(f *testing.F) {
	lines, err := PaperLines(paperShare(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(strings.Join(lines, "\n"))
	f.Fuzz(func(t *testing.T, text string) {
		file, err := FromPaper(strings.Split(text, "\n"))
		if err != nil {
			return
		}
		again, err := PaperLines(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := FromPaper(again); err != nil || !bytes.Equal(got, file) {
			t.Errorf("not the same bytes: %v", err)
		}
	})
}

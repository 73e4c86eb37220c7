package lines

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
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

func TestRoundTrip(t *testing.T) {
	for _, size := range []int{1, 24, 25, 26, 459, MaxBytes} {
		file := make([]byte, size)
		rand.Read(file)
		lines, err := Of(file)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(lines)
		typed := strings.ToLower(strings.ReplaceAll(strings.Join(lines, "\n"), "O", "0"))
		scanned, err := Code(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range [][]string{lines, strings.Split(typed, "\n"), {scanned}, append(lines, lines[0], "")} {
			if got, err := Parse(strings.Join(in, "\n")); err != nil || !bytes.Equal(got, file) {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
	for _, size := range []int{0, MaxBytes + 1} {
		if _, err := Of(make([]byte, size)); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// Every wrong character and every two characters swapped are found, in the line
// where they are.
func TestNamesTheMisreadLine(t *testing.T) {
	lines, err := Of(paperShare(t)[:140])
	if err != nil {
		t.Fatal(err)
	}
	try := func(n int, line, what string) {
		bad := slices.Clone(lines)
		bad[n] = line
		if _, err := Parse(strings.Join(bad, "\n")); fault.ClassOf(err) != fault.Verify {
			t.Fatalf("line %d, %s: %v", n, what, err)
		} else if what[0] == 'c' && !strings.Contains(err.Error(), fmt.Sprintf("line %02d", n)) {
			t.Fatalf("line %d, %s: not named: %v", n, what, err)
		}
	}
	for n := range lines {
		compact := strings.ReplaceAll(lines[n], " ", "")
		for i := range compact {
			for _, c := range alphabet {
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
	if _, err := Parse(strings.Join(append(lines[:3:3], lines[5:]...), "\n")); err == nil || !strings.Contains(err.Error(), "missing: 03, 04") {
		t.Errorf("missing lines: %v", err)
	}
	other, err := Of(paperShare(t))
	if err != nil {
		t.Fatal(err)
	}
	mixed := slices.Clone(lines)
	mixed[4] = other[4]
	for name, in := range map[string][]string{"a line of another share": mixed, "two shares": append(slices.Clone(lines), other...), "nothing": nil, "no head": lines[1:], "a line too many": append(slices.Clone(lines), line(98, make([]byte, blockBytes)))} {
		if _, err := Parse(strings.Join(in, "\n")); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The stock base32 of a Debian machine reads the same bytes, and a second
// implementation of the check, in awk, agrees.
func TestIsReadByOthers(t *testing.T) {
	file := paperShare(t)
	lines, err := Of(file)
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
func TestCheckIsBIP173(t *testing.T) {
	// 'a' expands to 3, 0, 1: n = 3<<5 | 0, then the character of value 1.
	const bech32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	var want strings.Builder
	for _, c := range "2uel5l" {
		want.WriteByte(alphabet[strings.IndexRune(bech32, c)])
	}
	if got := check(3<<5, "B"); got != want.String() {
		t.Errorf("got %s, want %s", got, want.String())
	}
}

func TestVectors(t *testing.T) {
	for _, v := range artifacttest.Vectors(t, "../../testdata/vectors/lines") {
		file, err := Parse(string(v.Body))
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

// The worked example of docs/formats/lines.md.
func TestWorkedExample(t *testing.T) {
	lines, err := Of([]byte("hello\n"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/formats/lines.md")
	if err != nil || !strings.Contains(string(page), "    "+strings.Join(lines, "\n    ")+"\n") {
		t.Errorf("%v: the page does not have\n%s", err, strings.Join(lines, "\n"))
	}
}

func FuzzParse(f *testing.F) {
	lines, err := Of(paperShare(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(strings.Join(lines, "\n"))
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Of(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(strings.Join(again, "\n")); err != nil || !bytes.Equal(got, file) {
			t.Errorf("not the same bytes: %v", err)
		}
	})
}

// All that is wrong is named at once, and one wrong character is found to its
// group, or to the check.
func TestEveryFaultIsNamed(t *testing.T) {
	lines, err := Of(paperShare(t))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(n, i int) {
		b := []byte(lines[n])
		b[i] = alphabet[(strings.IndexByte(alphabet, b[i])+7)%32]
		lines[n] = string(b)
	}
	good := slices.Clone(lines)
	edit(2, 3+2*6) // third group
	edit(7, 3+8*6) // the check
	edit(9, 3)     // first group,
	edit(9, 3+6)   // and second
	lines[11] += "A"
	lines[12] = "XY" + lines[12][2:]
	lines[13] = lines[13][:5] + "9" + lines[13][6:]
	in := strings.Join(slices.Delete(slices.Clone(lines), 15, 17), "\n")
	_, err = Parse(in)
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"line 02 (look at its group 3)", "line 07 (look at its check)", "line 09;", "line 11 has 49 characters, not 48", `begins with "XY`, "line 13 has a character that is in no line, in its group 1", "missing: 02, 07, 09, 11, 12, 13, 15, 16"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "line 03") || fault.HintOf(err) == "" {
		t.Errorf("a good line is named, or there is no hint: %v", err)
	}
	original, err := Parse(strings.Join(good, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	diff, err := Compare(in, original)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(diff, "\n")
	for _, want := range []string{"line 02, group 3: ", "line 07, the check: ", "line 09, group 1: ", "line 09, group 2: ", "line 11", "the original has " + strings.Fields(good[2])[3]} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in %s", want, all)
		}
	}
	if strings.Contains(all, "line 03") || strings.Contains(all, "line 15") {
		t.Errorf("a good line, or one that is not there: %s", all)
	}
}

// A sheet takes line after line, says what is to come, and keeps no bad one.
func TestSheet(t *testing.T) {
	file := paperShare(t)[:72]
	all, err := Of(file)
	if err != nil {
		t.Fatal(err)
	}
	var s Sheet
	if s.Missing() != "line 00" {
		t.Errorf("missing %q", s.Missing())
	}
	for _, tc := range []struct{ in, missing, err string }{
		{all[2], "line 00", ""},
		{all[0], "line 01, 03", ""},
		{strings.Replace(all[1], " ", " A", 1), "line 01, 03", "line 01"},
		{"look", "line 01, 03", "and not with its number"},
		{"", "line 01, 03", ""},
		{strings.ToLower(all[3]), "line 01", ""},
		{all[2], "line 01", ""},
		{line(2, make([]byte, blockBytes)), "line 01", "twice"},
		{all[1], "", ""},
	} {
		err := s.Add(tc.in)
		if s.Missing() != tc.missing || s.Begun() != (tc.missing != "line 00") || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q: missing %q, %v", tc.in, s.Missing(), err)
		}
	}
	if got, err := s.Bytes(); err != nil || !bytes.Equal(got, file) {
		t.Errorf("%x, %v", got, err)
	}
	if err := s.Add(line(50, make([]byte, blockBytes))); err != nil {
		t.Error(err)
	}
	if _, err := s.Bytes(); !errors.Is(err, ErrMisread) {
		t.Errorf("a line of another file: %v", err)
	}
}

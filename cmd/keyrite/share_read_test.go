package main

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"keyrite/artifact/lines"
)

// Somebody types a share from its paper: each line is judged at once, the one that
// was misread is typed again, and the last one ends it. Ctrl-C leaves nothing.
func TestShareIsTyped(t *testing.T) {
	h := newHouse(t)
	file := append([]byte("age-encryption.org/v1\n"), make([]byte, 40)...)
	rand.Read(file[22:])
	typed, err := lines.Of(file)
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "one.share", string(file))
	x := h.terminal(t, "share", "read", "-", "--out", "typed.share", "--original", "one.share")
	x.expect("line 00: ")
	x.send(typed[0] + "\n")
	x.expect("line 01, 02, 03: ")
	bad := []byte(typed[1])
	if bad[10]++; bad[10] > 'Z' || bad[10] < 'A' {
		bad[10] = 'B'
	}
	x.send(strings.ToLower(string(bad)) + "\n")
	x.expect("line 01 (look at its group 2)")
	x.expect("group 2: ")
	x.expect("the original has " + strings.Fields(typed[1])[2])
	x.expect("line 01, 02, 03: ")
	x.send("\n")
	x.expect("line 01, 02, 03: ")
	x.send(typed[1] + "\n")
	x.expect("line 02, 03: ")
	x.send(strings.ReplaceAll(typed[2]+"."+typed[3], " ", "") + "\n") // scanned
	x.expect("letter by letter")
	if code := x.exit(); code != 0 || mustRead(t, h.path("typed.share")) != string(file) {
		t.Errorf("exit %d: %s", code, x.all())
	}
	for keys, want := range map[string]int{"\x03": 130, "\x04": 130} {
		x = h.terminal(t, "share", "read", "-", "--out", "none.share")
		x.expect("line 00: ")
		x.send(typed[0] + "\n")
		x.expect("line 01, 02, 03: ")
		x.send(keys)
		if code := x.exit(); code != want {
			t.Errorf("%q: exit %d: %s", keys, code, x.all())
		}
	}
	if _, err := os.Lstat(h.path("none.share")); err == nil {
		t.Error("a file is left")
	}
}

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyrite/internal/clitest"
)

// At the prompt of a passphrase the echo is off before anything is asked, Ctrl-C ends
// the command, nothing is written, and the terminal is as it was.
func TestPassphrasePrompt(t *testing.T) {
	h := newHouse(t)
	echoes := func(x *terminal) bool {
		state, err := unix.IoctlGetTermios(int(x.ptmx.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return state.Lflag&unix.ECHO != 0
	}
	for _, keys := range []string{"\x03", "half of a pass\x03"} {
		x := h.terminal(t, "person", "new", "zoe", "--out", ".", "--rehearsal", "spring2027")
		x.expect("new passphrase: ")
		if echoes(x) {
			t.Error("the terminal echoes at the prompt")
		}
		x.send(keys)
		// The state of the terminal is looked at before it hangs up with its last program.
		if !clitest.Await(20*time.Second, func() bool { return echoes(x) }) {
			t.Error("the terminal is left without its echo")
		}
		if code := x.exit(); code != 130 || strings.Contains(x.all(), "half of a pass") || !strings.Contains(x.all(), "interrupted") {
			t.Errorf("exit %d: %q", code, x.all())
		}
	}
	for _, name := range []string{"zoe.key", "zoe.person"} {
		if _, err := os.Lstat(h.path(name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

package console

import (
	"context"
	"errors"
	"strings"
	"testing"

	"keyrite/ceremony"
)

// A page covers the screen with a code and what can be scrolled; Enter takes it away,
// an incident goes before it, and a code too large for the screen says so.
func TestPageCoversTheScreen(t *testing.T) {
	x := newStage(t, 100, 40)
	show := func(ctx context.Context, code string, rows ...string) chan error {
		done := make(chan error, 1)
		go func() { done <- x.screen.Page(ctx, "witness1 is asked", code, rows) }()
		return done
	}
	rows := strings.Fields(strings.Repeat("row ", 60))
	rows[0], rows[59] = "first", "last"
	done := show(t.Context(), "short", rows...)
	x.see("first")
	x.see("██")
	if strings.Contains(x.text(), "last") {
		t.Error("60 rows fit")
	}
	x.press(strings.Repeat("\x1b[B", 60))
	x.see("last")
	x.press("words that nobody asked for")
	x.press("\r")
	if err := <-done; err != nil {
		t.Error(err)
	}
	done = show(t.Context(), strings.Repeat("long ", 200), "the digest")
	x.see("The code to scan wants a screen of")
	x.see("the digest")
	x.press("\x18") // Ctrl-X
	x.see("SOMEBODY CALLS AN INCIDENT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	x.press("witness1\rthe code is another one\r")
	if c := <-x.called; c != (ceremony.Call{By: "witness1", Reason: "the code is another one"}) {
		t.Errorf("called %+v", c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done = show(ctx, "", "\x1b]52;c;eA==\x07 hostile")
	x.see("hostile")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if len(x.vt.Strange) > 0 {
		t.Errorf("strange %q", x.vt.Strange)
	}
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/spf13/cobra"
)

func run(t *testing.T, err error, args ...string) (int, string, string) {
	t.Helper()
	root := &cobra.Command{Use: "keyrite"}
	root.AddCommand(&cobra.Command{Use: "do", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return err }})
	var out, errOut bytes.Buffer
	code := Run(context.Background(), root, args, IO{Out: &out, Err: &errOut})
	return code, out.String(), errOut.String()
}

func TestExitTable(t *testing.T) {
	for _, e := range Exits()[1:] {
		code, out, errOut := run(t, &Error{Class: e.Class, Err: errors.New("boom\x1b[2J"), Hint: "do this"}, "do")
		if code != e.Code || out != "" {
			t.Errorf("%s: exit %d, stdout %q", e.Class, code, out)
		}
		if want := "keyrite: boom\\x1b[2J\nkeyrite: hint: do this\n"; errOut != want {
			t.Errorf("stderr %q, want %q", errOut, want)
		}
	}
	for want, err := range map[int]error{1: errors.New("x"), 130: fmt.Errorf("a: %w", context.Canceled), 0: nil} {
		if code, _, _ := run(t, err, "do"); code != want {
			t.Errorf("%v: exit %d, want %d", err, code, want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"do", "--nope"}, {"do", "extra"}, {"nope"}, {}} {
		if code, _, errOut := run(t, nil, args...); code != 2 || errOut == "" {
			t.Errorf("%q: exit %d, stderr %q", args, code, errOut)
		}
	}
}

func TestJSONError(t *testing.T) {
	code, out, errOut := run(t, &Error{Class: "policy", Err: errors.New("no")}, "do", "--json")
	var got struct {
		Error struct {
			Class, Message string
			Exit           int
		}
	}
	if err := json.Unmarshal([]byte(errOut), &got); err != nil {
		t.Fatal(err, errOut)
	}
	if code != 13 || out != "" || got.Error.Class != "policy" || got.Error.Exit != 13 || got.Error.Message != "no" {
		t.Errorf("exit %d, stdout %q, %+v", code, out, got)
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"Zürich ✓":           "Zürich ✓",
		"a\x1b]52;c\x07\r\n": `a\x1b]52;c\x07\x0d\n`,
		"abc\u202edef\u200b": `abc\u202edef\u200b`,
		"\x9b\xff":           `\x9b\xff`,
		"\u009b":             `\x9b`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSecretsFromDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.WriteString("one\r\ntwo\n\nlast")
	_ = w.Close()
	s := &Secrets{fd: 99, rd: r}
	for _, want := range []string{"one", "two"} {
		got, err := s.Next("passphrase")
		if err != nil || string(got.Bytes()) != want {
			t.Errorf("got %q, %v; want %q", got.Bytes(), err, want)
		}
	}
	if _, err := s.Next("passphrase"); CodeOf(err) != 2 {
		t.Errorf("empty line: %v", err)
	}
	if got, err := s.Next("passphrase"); err != nil || string(got.Bytes()) != "last" {
		t.Errorf("last line: %v", err)
	}
	if _, err := s.Next("passphrase"); CodeOf(err) != 2 {
		t.Errorf("after the end: %v", err)
	}
}

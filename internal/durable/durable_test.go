package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func class(t *testing.T, err error) string {
	t.Helper()
	var c interface{ FaultClass() string }
	if !errors.As(err, &c) {
		t.Fatalf("no class: %v", err)
	}
	return c.FaultClass()
}

func names(t *testing.T, dir string) string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestWriteNewNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "out")
	if err := WriteNew(p, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := class(t, WriteNew(p, []byte("two"), 0o600)); got != "exists" {
		t.Errorf("class %s", got)
	}
	// Two writers that both saw no file: the second Commit must still lose.
	a, err := Create(filepath.Join(dir, "race"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Create(filepath.Join(dir, "race"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second commit: %v", err)
	}
	if got := names(t, dir); got != "out race" {
		t.Errorf("left %q", got)
	}
	got, _ := os.ReadFile(p)
	if string(got) != "one" {
		t.Errorf("content %q", got)
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "out"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString("half")
	f.Abort()
	if got := names(t, dir); got != "" {
		t.Errorf("left %q", got)
	}
	if got := class(t, WriteNew(filepath.Join(dir, "no", "out"), nil, 0o644)); got != "usage" {
		t.Errorf("missing folder: class %s", got)
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "state")
	for _, want := range []string{"one", "two"} {
		if err := Replace(p, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(p)
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := names(t, dir); got != "state" {
		t.Errorf("left %q", got)
	}
}

func TestAppendCutsTheUnacknowledged(t *testing.T) {
	p := filepath.Join(t.TempDir(), "log")
	a, lines, err := OpenAppend(p)
	if err != nil || len(lines) != 0 {
		t.Fatal(lines, err)
	}
	if err := a.Reserve(1 << 16); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenAppend(p); !errors.Is(err, ErrInUse) {
		t.Errorf("second open: %v", err)
	}
	for _, l := range []string{"a", "b"} {
		if err := a.Line([]byte(l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Line([]byte("c\nd")); err == nil {
		t.Error("line with a newline was taken")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	f, _ := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	_, _ = f.WriteString("half a li")
	_ = f.Close()
	a, lines, err = OpenAppend(p)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if len(lines) != 2 || string(lines[0]) != "a" || string(lines[1]) != "b" {
		t.Errorf("lines %q", lines)
	}
	got, _ := os.ReadFile(p)
	if string(got) != "a\nb\n" {
		t.Errorf("file %q", got)
	}
}

// A log that others write, too, is cut only when nobody wrote it for a while, and only if
// nothing came to it meanwhile.
func TestSharedIsCutAtRestOnly(t *testing.T) {
	p := filepath.Join(t.TempDir(), "log")
	if _, _, err := OpenShared(p); class(t, err) != "usage" {
		t.Errorf("no log: %v", err)
	}
	write := func(data string, ago time.Duration) {
		t.Helper()
		at := time.Now().Add(-ago)
		if err := errors.Join(os.WriteFile(p, []byte(data), 0o600), os.Chtimes(p, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, had, more, want string
		ago                   time.Duration
		later                 bool
	}{
		{"whole", "a\n", "", "a\nnew\n", 0, false},
		{"somebody writes it", "a\nhal", "", "a\nhal", 0, true},
		{"left alone", "a\nhal", "", "a\nnew\n", Rest, false},
		{"left alone, by a clock that was ahead", "a\nhal", "", "a\nnew\n", -time.Hour, false},
		{"written since it was looked at", "a\nhal", "a\nhalf\nb\n", "a\nhalf\nb\n", Rest, true},
	} {
		write(c.had, c.ago)
		a, lines, err := OpenShared(p)
		if err != nil || len(lines) != 1 || a.Unfinished() != strings.HasSuffix(c.had, "hal") {
			t.Fatalf("%s: %q, %v", c.name, lines, err)
		}
		if a.Unfinished() && !errors.Is(a.Line([]byte("new")), ErrUnfinished) {
			t.Errorf("%s: a line was put into another", c.name)
		}
		if c.more != "" {
			write(c.more, c.ago)
		}
		if err = a.CutRested(); err == nil {
			err = a.Line([]byte("new"))
		}
		if errors.Is(err, ErrUnfinished) != c.later || !c.later && err != nil || c.later && class(t, err) != "sealed" {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, _ := os.ReadFile(p); string(got) != c.want {
			t.Errorf("%s: file %q", c.name, got)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A full device must fail with class storage and a hint (R-CER-12).
func TestFullDisk(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("x")
	e := wrap("write", "out", err)
	if got := class(t, e); got != "storage" {
		t.Errorf("class %s", got)
	}
	if !strings.Contains(e.(*Error).FaultHint(), "space") {
		t.Errorf("hint %q", e.(*Error).FaultHint())
	}
}

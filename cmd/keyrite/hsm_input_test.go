package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyrite/hsm/hsmtest"
)

// refusal is the error object on stderr.
type refusal struct {
	Error struct {
		Class, Message, Hint string
		Exit                 int
	}
}

// inspect runs 'hsm inspect --json' with the file on descriptor 3.
func (b *workbench) inspect(t *testing.T, pin *os.File, args ...string) (int, string, refusal) {
	t.Helper()
	cmd := exec.Command(b.program, append([]string{"hsm", "inspect", "--json"}, args...)...)
	cmd.Env = []string{"SOFTHSM2_CONF=" + b.env.Conf, "HOME=" + b.dir}
	if pin != nil {
		cmd.ExtraFiles = []*os.File{pin}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code is looked at
	var r refusal
	if errs.Len() > 0 {
		if err := json.Unmarshal(errs.Bytes(), &r); err != nil {
			t.Errorf("stderr is no error object: %s", errs.String())
		}
	}
	return cmd.ProcessState.ExitCode(), out.String(), r
}

// foreign is the beginning of a shared library for another machine.
func foreign(class, order, machine byte) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF")
	b[4], b[5], b[6], b[16], b[18], b[20] = class, order, 1, 3, machine, 1
	return b
}

// What is given as a module and cannot be one is refused before any of its code
// runs, with the reason and what to do.
func TestBadModule(t *testing.T) {
	b := newBench(t)
	softhsm, err := os.ReadFile(hsmtest.Module(t))
	if err != nil {
		t.Fatal(err)
	}
	libc, err := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
	if err != nil || len(libc) != 1 {
		t.Fatal(libc, err)
	}
	n := 0
	file := func(content []byte, mode, folder os.FileMode) string {
		n++
		dir := b.path("m" + string(rune('a'+n)))
		path := filepath.Join(dir, "libsofthsm2.so")
		for _, err := range []error{os.Mkdir(dir, 0o755), os.WriteFile(path, content, 0o600), os.Chmod(path, mode), os.Chmod(dir, folder)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	link := b.path("link.so")
	if err := os.Symlink(file(softhsm, 0o666, 0o755), link); err != nil {
		t.Fatal(err)
	}
	fifo := b.path("fifo.so")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	theirs := file(softhsm, 0o755, 0o755)
	if err := os.Chown(theirs, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	good := file(softhsm, 0o755, 0o755)
	silent := file(nil, 0o755, 0o755)
	b.write(t, "silent.c", "unsigned long C_GetFunctionList(void **list) { return 5; }\n")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", silent, b.path("silent.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tc := range []struct {
		name, module, says string
		exit               int
		args               []string
	}{
		{"missing", b.path("none.so"), "no such file", 2, nil},
		{"a folder", b.dir, "not a regular file", 2, nil},
		{"a pipe", fifo, "not a regular file", 2, nil},
		{"empty", file(nil, 0o755, 0o755), "no shared library", 2, nil},
		{"text", file([]byte("#!/bin/sh\n"), 0o755, 0o755), "no shared library", 2, nil},
		{"a program", b.program, "is a program", 2, nil},
		{"another library", libc[0], "no C_GetFunctionList", 2, nil},
		{"arm64", file(foreign(2, 1, 183), 0o755, 0o755), "another machine (EM_AARCH64", 2, nil},
		{"32 bits", file(foreign(1, 1, 3), 0o755, 0o755), "another machine (EM_386", 2, nil},
		{"big-endian", file(func() []byte { x := foreign(2, 2, 0); x[19] = 22; return x }(), 0o755, 0o755), "another machine (EM_S390", 2, nil},
		{"no list of functions", silent, "no list of its functions", 2, nil},
		{"headers only", file(foreign(2, 1, 62), 0o755, 0o755), "", 2, nil},
		{"cut in its magic", file(softhsm[:3], 0o755, 0o755), "no shared library", 2, nil},
		{"cut in its header", file(softhsm[:18], 0o755, 0o755), "cut off", 2, nil},
		{"cut in half", file(softhsm[:len(softhsm)/2], 0o755, 0o755), "", 2, nil},
		{"written by everybody", file(softhsm, 0o777, 0o755), "can be written by others", 13, nil},
		{"written by a group", file(softhsm, 0o775, 0o755), "can be written by others", 13, nil},
		{"in a folder written by everybody", file(softhsm, 0o755, 0o777), "can be written by others", 13, nil},
		{"in a folder written by a group", file(softhsm, 0o755, 0o775), "can be written by others", 13, nil},
		{"a link to one written by everybody", link, "can be written by others", 13, nil},
		{"another user's", theirs, "belongs to user 12345", 13, nil},
		{"changed since admission", good, "another module than the one that was admitted", 13, []string{"--module-sha256", strings.Repeat("0", 64)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, r := b.inspect(t, nil, append([]string{"--module", tc.module}, tc.args...)...)
			if code != tc.exit || r.Error.Exit != tc.exit || out != "" || !strings.Contains(r.Error.Message, tc.says) || tc.says != "" && tc.says != "is a program" && tc.says != "cut off" && r.Error.Hint == "" {
				t.Errorf("exit %d (want %d), stdout %q, %+v", code, tc.exit, out, r.Error)
			}
		})
	}
	// The same file, with nothing wrong about it.
	code, out, r := b.inspect(t, nil, "--module", good)
	var res hsmInspectResult
	if err := json.Unmarshal([]byte(out), &res); code != 0 || err != nil {
		t.Fatalf("exit %d, %v, %+v", code, err, r)
	}
	if code, _, r := b.inspect(t, nil, "--module", good, "--module-sha256", res.Module.SHA256); code != 0 {
		t.Errorf("with its own hash: exit %d, %+v", code, r)
	}
	if h := res.Module.Hardening; h.Capabilities != "none" || h.Seccomp != "filter" || h.Sockets != "none" || h.Dumpable {
		t.Errorf("hardening %+v", h)
	}
}

// A token that is not the one that was meant.
func TestBadToken(t *testing.T) {
	b := newBench(t)
	module := hsmtest.Module(t)
	id, err := b.env.Supervisor.Find(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, "pin", testPIN)
	open := func(args ...string) (int, string, refusal) {
		t.Helper()
		f, err := os.Open(b.path("pin"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return b.inspect(t, f, append([]string{"--module", module, "--token", "work", "--pin-fd", "3"}, args...)...)
	}
	if code, out, r := open("--serial", "0000000000000000"); code != 12 || out != "" || !strings.Contains(r.Error.Message, id.Serial) || r.Error.Hint == "" {
		t.Errorf("another serial number: exit %d, %+v", code, r)
	}
	cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "work", "--so-pin", "12345678", "--pin", "87654321")
	cmd.Env = []string{"SOFTHSM2_CONF=" + b.env.Conf, "PATH=/usr/bin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if code, out, r := open(); code != 13 || out != "" || !strings.Contains(r.Error.Message, "several tokens have this label") || !strings.Contains(r.Error.Hint, "serial") {
		t.Errorf("two of the label: exit %d, %+v", code, r)
	}
	if code, _, r := open("--serial", id.Serial); code != 0 {
		t.Errorf("two of the label and the serial number: exit %d, %+v", code, r)
	}
}

// A PIN that is none is refused before the token is asked, and is no wrong PIN.
func TestBadPINDescriptor(t *testing.T) {
	b := newBench(t)
	args := []string{"--module", hsmtest.Module(t), "--token", "work", "--pin-fd", "3"}
	for _, tc := range []struct {
		name, text, says string
		exit             int
	}{
		{"empty", "", "PIN is empty", 2},
		{"a newline alone", "\n", "PIN is empty", 2},
		{"too long", strings.Repeat("7", 256), "longer than 255", 2},
		{"far too long", strings.Repeat("7", 1<<20), "longer than 255", 2},
		{"two lines", testPIN + "\n" + testPIN + "\n", "more than one line", 2},
		{"a control character", "1234\x005678", "control character", 2},
		{"shorter than the token takes", "777", "PINs of 4 to 255", 12},
		{"with a newline", testPIN + "\n", "", 0},
		{"with a newline of Windows", testPIN + "\r\n", "", 0},
		{"without one", testPIN, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.write(t, "pin", tc.text)
			f, err := os.Open(b.path("pin"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			code, out, r := b.inspect(t, f, args...)
			if code != tc.exit || (code == 0) == (out == "") || !strings.Contains(r.Error.Message, tc.says) || code == 2 && r.Error.Hint == "" {
				t.Errorf("exit %d (want %d), stdout %.40q, %+v", code, tc.exit, out, r.Error)
			}
			if text := strings.TrimSpace(tc.text); len(text) > 3 && strings.Contains(r.Error.Message+r.Error.Hint, text) {
				t.Errorf("the PIN is in the error: %+v", r.Error)
			}
		})
	}
	for _, tc := range []struct {
		name string
		open func() (*os.File, error)
	}{
		{"closed", func() (*os.File, error) { return nil, nil }},
		{"a folder", func() (*os.File, error) { return os.Open(b.dir) }},
		{"for writing only", func() (*os.File, error) { return os.OpenFile(b.path("pin"), os.O_WRONLY, 0) }},
		{"readable by others", func() (*os.File, error) {
			if err := os.Chmod(b.path("pin"), 0o644); err != nil {
				return nil, err
			}
			return os.Open(b.path("pin"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := tc.open()
			if err != nil {
				t.Fatal(err)
			}
			given := args
			if f == nil { // 3 may be a descriptor of the Go runtime's
				given = append(args[:len(args)-1:len(args)-1], "77")
			}
			code, out, r := b.inspect(t, f, given...)
			if f != nil {
				f.Close()
			}
			if want := map[bool]int{true: 13, false: 2}[tc.name == "readable by others"]; code != want || out != "" || r.Error.Hint == "" {
				t.Errorf("exit %d (want %d), %+v", code, want, r)
			}
		})
	}
	sup := b.env.Supervisor
	id, err := sup.Find(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sup.PINCounter(t.Context(), id); err != nil || got.User != 0 {
		t.Errorf("they count as wrong PINs: %+v, %v", got, err)
	}
}

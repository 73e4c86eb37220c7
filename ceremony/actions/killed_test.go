package actions

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/record"
	"keyrite/ceremony"
)

// steppedEnv tells a process that its ceremony waits after each entry for the test
// that is to kill it, however slow the machine: it says so on descriptor 3, and goes on
// when it hears something on descriptor 4.
const steppedEnv = "KEYRITE_TEST_STEPPED"

// steps is a room in which the ceremony waits after each entry.
type steps struct {
	ceremony.Console
	said, heard *os.File
}

// stepped is the room, in which the ceremony waits if this process is to be killed.
func stepped(c ceremony.Console) ceremony.Console {
	if os.Getenv(steppedEnv) == "" {
		return c
	}
	for fd := 3; fd <= 4; fd++ {
		syscall.CloseOnExec(fd)
	}
	return &steps{c, os.NewFile(3, "said"), os.NewFile(4, "heard")}
}

func (s *steps) View(v ceremony.View) {
	s.Console.View(v)
	var b [1]byte
	if _, err := s.said.Write(b[:]); err == nil {
		_, _ = s.heard.Read(b[:]) // at its end nobody counts any more
	}
}

// killWhen starts a ceremony in a process of its own and kills it with signal 9 at
// the entry after which the transcript in the record folder dir satisfies now, or
// while it hangs.
func killWhen(t *testing.T, cmd *exec.Cmd, dir string, now func(transcript []byte) bool) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, append(cmd.Env, steppedEnv+"=1")
	said, saying, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	heard, goOn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer goOn.Close()
	cmd.ExtraFiles = []*os.File{saying, heard}
	err = cmd.Start()
	_, _ = saying.Close(), heard.Close()
	if err != nil {
		t.Fatal(err)
	}
	entries := make(chan struct{})
	go func() {
		defer close(entries)
		for b := make([]byte, 1); ; {
			if _, err := said.Read(b); err != nil {
				return
			}
			entries <- struct{}{}
		}
	}()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for going := true; going; {
		waits := false
		select {
		case _, waits = <-entries:
			going = waits
		case <-look.C: // where a request hangs there is no entry
		}
		data, _ := os.ReadFile(filepath.Join(dir, record.TranscriptFile)) // not there yet
		if now(data) {
			break
		}
		if waits {
			if _, err := goOn.Write([]byte{1}); err != nil {
				break
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Errorf("it ended before it was killed: %v", err)
	}
	for range entries { // until the process is gone
	}
	_ = cmd.Wait()
	if end, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || end.Signal() != syscall.SIGKILL {
		t.Fatalf("it ended before it was killed:\n%s", out.String())
	}
}

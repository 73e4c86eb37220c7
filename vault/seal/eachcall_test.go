package seal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// callsThatWrite are the system calls by which a store, its head and their folders
// change.
var callsThatWrite = map[uint64]string{
	unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate",
	unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync",
	unix.SYS_OPENAT: "openat", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_LINKAT: "linkat", unix.SYS_UNLINKAT: "unlinkat",
}

// TestLongKilledAtEachCallThatWrites kills a writing process before the n-th call that
// changes a file, whichever thread makes it: for every third n of 6 updates, and in
// scripts/test --long for every n of 100. After each kill everything that was acknowledged
// is there, and at most the update that was under way beside it.
func TestLongKilledAtEachCallThatWrites(t *testing.T) {
	updates, stride := 6, 3
	if os.Getenv("KEYRITE_TEST_LONG") != "" {
		updates, stride = 100, 1
	}
	b := newBench(t)
	dir := giveKey(t, b)
	whole := map[string][]byte{}
	for _, path := range []string{b.file(), b.head} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole[path] = data
	}
	all := newTracee(t, dir, updates).until(0)
	counts := map[string]int{}
	killed, more := 0, 0
	for n := 1 + int(time.Now().UnixNano())%stride; ; n += stride {
		for path, data := range whole {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p := newTracee(t, dir, updates).until(n)
		last, said := acked(bytes.NewReader(p.said()))
		if said != "" {
			t.Fatalf("call %d: %s", n, said)
		}
		have := checkAcked(t, b, last)[0]
		if have > last[0]+1 {
			t.Fatalf("call %d: %d acknowledged, %d there", n, last[0], have)
		}
		if len(p.calls) < n {
			break // it made fewer of these calls
		}
		killed++
		counts[p.calls[n-1]]++
		more += have - last[0]
	}
	t.Logf("long: kills at each call that writes: %d of %d", killed, killed)
	t.Logf("killed before %v; %d times the update under way was there", counts, more)
	// The head is kept beside the next commit, so the number of calls varies by a few.
	if len(all.calls) < 8*updates || killed*stride < len(all.calls)*9/10-stride {
		t.Errorf("%d calls for %d updates, of which each %d. was to be met; killed %d times", len(all.calls), updates, stride, killed)
	}
}

// tracee is a process that writes a few values, traced: strace counts the calls of each
// thread by itself, and goroutines change threads.
type tracee struct {
	calls []string // those that changed a file in dir

	t   *testing.T
	pid int
	dir string
	out string
}

// newTracee starts it. The thread that does is the one that may trace it.
func newTracee(t *testing.T, dir string, updates int) *tracee {
	t.Helper()
	runtime.LockOSThread()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(exe, "write-a-few", dir, strconv.Itoa(updates))
	cmd.Stdout, cmd.SysProcAttr = out, &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &tracee{t: t, pid: cmd.Process.Pid, dir: dir, out: out.Name()}
	if _, err := unix.Wait4(p.pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceSetOptions(p.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		t.Fatal(err)
	}
	return p
}

// until lets it run to its end, or to right before its n-th call that changes a file,
// where it is killed.
func (p *tracee) until(n int) *tracee {
	p.t.Helper()
	defer runtime.UnlockOSThread()
	p.goOn(p.pid, 0)
	for {
		var st unix.WaitStatus
		tid, err := unix.Wait4(-1, &st, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			p.t.Fatal(err)
		case !st.Stopped() && tid == p.pid:
			return p
		case !st.Stopped():
			continue // a thread ended
		}
		sig := st.StopSignal()
		switch sig {
		case unix.SIGTRAP | 0x80: // a call, or the end of one
			sig = 0
			if name := p.writes(tid); name != "" {
				p.calls = append(p.calls, name)
				if len(p.calls) == n {
					_ = unix.Kill(p.pid, unix.SIGKILL) // if it is gone, it is
					continue
				}
			}
		case unix.SIGTRAP, unix.SIGSTOP: // a thread began
			sig = 0
		}
		p.goOn(tid, int(sig))
	}
}

// goOn lets a thread run to its next call. One that was killed meanwhile is none.
func (p *tracee) goOn(tid, signal int) {
	p.t.Helper()
	if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		p.t.Fatal(err)
	}
}

// said is what it wrote to its output.
func (p *tracee) said() []byte {
	p.t.Helper()
	said, err := os.ReadFile(p.out)
	if err != nil {
		p.t.Fatal(err)
	}
	return said
}

// callInfo is the beginning of struct ptrace_syscall_info of linux/ptrace.h.
type callInfo struct {
	op   uint8 // 1 at the beginning of a call
	_    [3]uint8
	_    uint32
	_, _ uint64 // instruction and stack
	nr   uint64
	args [6]uint64
	_    [4]uint64
}

// writes names the call that a thread begins, if it changes a file of the store.
func (p *tracee) writes(tid int) string {
	p.t.Helper()
	var c callInfo
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)), 0, 0)
	if e != 0 && e != unix.ESRCH {
		p.t.Fatal(e)
	}
	name := callsThatWrite[c.nr]
	switch {
	case e != 0, c.op != 1:
		return ""
	case name == "openat" && c.args[2]&unix.O_CREAT == 0:
		return ""
	case name == "write": // also to wake the runtime, and to tell the test
		file, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, c.args[0]))
		if !strings.HasPrefix(file, p.dir+"/") {
			return ""
		}
	}
	return name
}

// Package tpmtest starts software TPMs (swtpm) for tests. Only tests import it. A
// missing swtpm fails the test: what was not tried on a TPM does not work on one.
package tpmtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"keyrite/internal/tpm"
)

// TPM is a running swtpm on loopback.
type TPM struct {
	Addr string // HOST:PORT for tpm.Dial
	Dir  string // its state, an absolute path on a RAM file system where there is one

	t    testing.TB
	stop func()
}

// Start runs a new, empty TPM until the test ends.
func Start(t testing.TB) *TPM {
	t.Helper()
	base := "/dev/shm"
	if fi, err := os.Stat(base); err != nil || !fi.IsDir() {
		base = t.TempDir()
	}
	dir, err := os.MkdirTemp(base, "keyrite-swtpm-")
	if err != nil {
		t.Fatal(err)
	}
	m := &TPM{Dir: dir, t: t}
	t.Cleanup(func() {
		m.Stop()
		_ = os.RemoveAll(dir)
	})
	m.start()
	return m
}

// Stop ends the TPM as a power cut would, keeping its state.
func (m *TPM) Stop() {
	if m.stop != nil {
		m.stop()
		m.stop = nil
	}
}

// Restart cuts the power and switches on again, at a new address.
func (m *TPM) Restart() {
	m.t.Helper()
	m.Stop()
	m.start()
}

func (m *TPM) start() {
	m.t.Helper()
	bin, err := exec.LookPath("swtpm")
	if err != nil {
		m.t.Fatalf("swtpm is missing (Debian: apt install swtpm): %v", err)
	}
	// The port pair is free when we look and may be taken when swtpm binds it.
	for range 20 {
		port := freePorts(m.t)
		stop, ok := run(m.t, bin, m.Dir, port)
		if ok {
			m.Addr, m.stop = net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), stop
			return
		}
		stop()
	}
	m.t.Fatal("swtpm did not start; see its log in the state folder")
}

// freePorts finds a port whose successor is free too: swtpm's clients expect the
// control channel there.
func freePorts(t testing.TB) int {
	t.Helper()
	for range 100 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		_ = a.Close()
		if err == nil {
			_ = b.Close()
			return port
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}

// run starts swtpm and waits until it listens. A thread of its own waits for it:
// the kernel kills the child when the thread that started it ends, so a test
// binary that dies leaves no TPM behind.
func run(t testing.TB, bin, dir string, port int) (func(), bool) {
	cmd := exec.Command(bin, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port),
		"--ctrl", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port+1),
		"--flags", "not-need-init,startup-clear", "--log", "file="+filepath.Join(dir, "log"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start swtpm: %v", err)
	}
	stop := func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for range 500 {
		select {
		case <-ended:
			return func() {}, false
		case <-time.After(10 * time.Millisecond):
		}
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return stop, true
		}
	}
	return stop, false
}

// Extend measures something into a PCR, as a changed boot loader does.
func (m *TPM) Extend(pcr uint32) {
	m.t.Helper()
	w, err := tpm.Dial(m.Addr)
	if err != nil {
		m.t.Fatal(err)
	}
	defer w.Close()
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(w)
	if err != nil {
		m.t.Fatal(err)
	}
}

// Package setest starts software TPMs (swtpm) for tests and brings elements to
// life in them. Only tests import it. A missing swtpm fails the test: a secure
// element that was not tried is not one.
package setest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
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

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/gateway/secureelement"
)

// TPM is a running swtpm on loopback.
type TPM struct {
	Addr string // HOST:PORT for secureelement.Open
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

// Open connects to the TPM until the test ends.
func (m *TPM) Open() *secureelement.Element {
	m.t.Helper()
	e, err := secureelement.Open(m.Addr)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = e.Close() })
	return e
}

// BundleID is the provisioning bundle that elements of Birth are born under.
const BundleID = "0123456789abcdef0123456789abcdef"

// Born is an element after its birth.
type Born struct {
	*secureelement.Element
	World *artifacttest.World
	TPM   *TPM
	Cert  *x509.Certificate
}

// Birth starts a TPM and brings unit n of factory1 of world w to life: device
// key, birth certificate, firmware key, lock. The factory is founded if it is
// not in the charter yet.
func Birth(t testing.TB, w *artifacttest.World, n int64) *Born {
	t.Helper()
	return BirthIn(t, Start(t), w, n)
}

// BirthIn is Birth in a TPM that runs already.
func BirthIn(t testing.TB, m *TPM, w *artifacttest.World, n int64) *Born {
	t.Helper()
	if _, ok := w.State.Factories["factory1"]; !ok {
		w.FoundFactory()
	}
	e := m.Open()
	k, err := e.CreateKey()
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	ca := w.Parsed(w.State.Factories["factory1"].CA)
	leaf := w.Certificate(birthcert.Template{
		Profile: birthcert.Device, SPKI: spki, Issuer: birthcert.IssuerOf(ca), DeviceSerial: birthcert.MakeDeviceSerial("gw100", n),
		Assurance: birthcert.Unattested, Bundle: BundleID,
	}, "factory-ca")
	for _, err := range []error{e.Provision(BirthOf(t, w)), e.StoreCertificate(leaf, ca.Raw), e.Lock()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &Born{Element: e, World: w, TPM: m, Cert: w.Parsed(leaf)}
}

// BirthOf is what a station of world w writes.
func BirthOf(t testing.TB, w *artifacttest.World) secureelement.Birth {
	t.Helper()
	anchors, err := w.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(anchors)
	return secureelement.Birth{Anchors: hex.EncodeToString(sum[:]), FirmwareKey: w.SPKI("firmware"), Vault: w.Anchors.Vault, World: w.World}
}

// Key makes a P-256 key in software, for example an account's policy key.
func Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

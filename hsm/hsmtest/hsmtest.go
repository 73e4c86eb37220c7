// Package hsmtest gives tests a real token: it builds keyrite-hsmd, makes a
// SoftHSM store in a folder of its own (in memory where /dev/shm exists) and
// starts a supervisor. Only tests import it. Where SoftHSM is missing the test
// fails; it is never skipped, since what it shows stands in docs/assurance.md.
package hsmtest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
)

// Modules is where distributions put SoftHSM; the first that exists is used.
var modules = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
}

// Module returns the path of SoftHSM or fails the test.
func Module(t testing.TB) string {
	t.Helper()
	for _, m := range modules {
		if _, err := os.Stat(m); err == nil {
			return m
		}
	}
	t.Fatalf("SoftHSM is missing (apt-get install softhsm2): none of %s", strings.Join(modules, ", "))
	return ""
}

// builds are the programs that were built, by name.
var builds struct {
	sync.Mutex
	done map[string]built
}

type built struct {
	path string
	err  error
}

// HSMD is Program for keyrite-hsmd.
func HSMD(t testing.TB) string {
	t.Helper()
	return Program(t, "keyrite-hsmd")
}

// Program returns the path of a freshly built program of ours. It is built once per
// test program and user, into a private folder that later runs use again.
func Program(t testing.TB, name string) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	b, ok := builds.done[name]
	if !ok {
		if builds.done == nil {
			builds.done = map[string]built{}
		}
		b.path, b.err = compile(name)
		builds.done[name] = b
	}
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}

// Programs puts copies of programs of ours into dir: so their processes can be told from
// those of other tests.
func Programs(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		data, err := os.ReadFile(Program(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func compile(name string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(out))
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("keyrite-hsmtest-%d-%x", os.Getuid(), sha256.Sum256([]byte(root)))[:60])
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return "", err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || !st.IsDir() || st.Mode().Perm() != 0o700 || int(sys.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s is not a private folder of this user", dir)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	// go build leaves an up-to-date program alone, so this costs little after
	// the first time, and never gives an old one.
	path, cgo := filepath.Join(dir, name), "0"
	if name == "keyrite-hsmd" {
		cgo = "1" // it alone loads modules
	}
	cmd := exec.Command("go", "build", "-o", path, "./cmd/"+name)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// Env is one SoftHSM store with a supervisor over it.
type Env struct {
	Supervisor *hsm.Supervisor
	Config     hsm.Config
	Dir        string // everything of this environment
	Conf       string // softhsm2.conf
	TokenDir   string // folder of the token folders
}

// New makes an empty store and starts a supervisor; both end with the test.
func New(t testing.TB) *Env {
	t.Helper()
	e := NewStore(t)
	e.Supervisor = e.Start(t)
	return e
}

// NewStore makes an empty store without starting anything.
func NewStore(t testing.TB) *Env {
	t.Helper()
	module, hsmd := Module(t), HSMD(t)
	base := "/dev/shm" // key generation on a disk takes 20 times as long
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "keyrite-hsmtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	e := &Env{Dir: dir, Conf: filepath.Join(dir, "softhsm2.conf"), TokenDir: filepath.Join(dir, "tokens")}
	if err := os.Mkdir(e.TokenDir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := "directories.tokendir = " + e.TokenDir + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(e.Conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	// Tests lose tokens on purpose and more often than an HSM does.
	e.Config = hsm.Config{Module: module, HSMD: hsmd, Env: []string{"SOFTHSM2_CONF=" + e.Conf}, Reopen: time.Millisecond, StateDir: filepath.Join(dir, "state"), Folders: []string{dir}}
	return e
}

// Start starts a further supervisor over the same store.
func (e *Env) Start(t testing.TB) *hsm.Supervisor {
	t.Helper()
	s, err := hsm.Start(t.Context(), e.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Log(err) // a test may have killed it on purpose
		}
	})
	return s
}

// Token initialises a token with one-time PINs and opens it.
func (e *Env) Token(t testing.TB, label string) *hsm.Session {
	t.Helper()
	id, err := e.Supervisor.InitToken(t.Context(), label)
	if err != nil {
		t.Fatal(err)
	}
	return e.Open(t, id)
}

// Open opens a token and closes it with the test.
func (e *Env) Open(t testing.TB, id hsm.TokenID) *hsm.Session {
	t.Helper()
	s, err := e.Supervisor.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// SetPINs gives the token new PINs, as the share child does, through a pipe.
func (e *Env) SetPINs(t testing.TB, id hsm.TokenID, so, user string) {
	t.Helper()
	e.Take(t, e.Supervisor, id, hsm.Next, so, user)
	if err := e.Supervisor.ChangePINs(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// Take hands PINs to a supervisor through a pipe.
func (e *Env) Take(t testing.TB, s *hsm.Supervisor, id hsm.TokenID, ep hsm.Epoch, so, user string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := hsm.WritePINs(w, []byte(so), []byte(user)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := s.TakePINs(t.Context(), id, r, ep); err != nil {
		t.Fatal(err)
	}
}

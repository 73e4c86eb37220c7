package hsm_test

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// prober is a hostile module and what it may touch.
type prober struct {
	dir, out    string
	port, other int
}

func newProber(t *testing.T) *prober {
	t.Helper()
	p := &prober{dir: t.TempDir()}
	for _, d := range []string{"module", "media", "out"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.out = filepath.Join(p.dir, "out", "probes")
	if err := os.WriteFile(filepath.Join(p.dir, "media", "share"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*int{&p.port, &p.other} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		addr, _ := l.Addr().(*net.TCPAddr)
		*n = addr.Port
	}
	return p
}

func (p *prober) compile(t *testing.T, out string, flags ...string) string {
	t.Helper()
	path := filepath.Join(p.dir, "module", out)
	quote := func(name, v string) string { return "-D" + name + `="` + v + `"` }
	args := append([]string{
		"-O1", "-Wall", "-o", path, quote("OUT", p.out), quote("SECRET", filepath.Join(p.dir, "media", "share")),
		quote("ELSEWHERE", filepath.Join(p.dir, "media")), fmt.Sprintf("-DPORT=%d", p.port), fmt.Sprintf("-DOTHER=%d", p.other),
	}, flags...)
	if b, err := exec.Command("gcc", append(args, "testdata/probe.c")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return path
}

// results reads what the module wrote down.
func (p *prober) results(t *testing.T) map[string]syscall.Errno {
	t.Helper()
	b, err := os.ReadFile(p.out)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]syscall.Errno{}
	for line := range strings.Lines(string(b)) {
		name, n, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = syscall.Errno(v)
	}
	return out
}

// TestHostileModule loads a module that tries what an attacker in it would try:
// nothing works but what the configuration names. The same code works as a program
// of its own, so that it is the confinement that is seen.
func TestHostileModule(t *testing.T) {
	const (
		noFamily = syscall.EAFNOSUPPORT
		perm     = syscall.EPERM
		access   = syscall.EACCES
	)
	p := newProber(t)
	program := p.compile(t, "probe", "-DPROGRAM")
	if err := exec.Command(program).Run(); err != nil {
		t.Fatal(err)
	}
	free := p.results(t)
	for _, n := range []string{"inet", "inet-datagram", "unix", "netlink", "port", "other-port", "execve", "clone-user", "dumpable", "core", "parent", "parent-environ", "read-secret", "write-elsewhere", "device"} {
		if free[n] != 0 {
			t.Errorf("a free program cannot do %s either (%v): the test shows nothing", n, free[n])
		}
	}
	want := map[string]syscall.Errno{
		"inet": noFamily, "inet-datagram": noFamily, "inet6-datagram": noFamily, "unix": noFamily, "netlink": noFamily,
		"port": noFamily, "other-port": noFamily,
		"execve": perm, "unshare": perm, "clone-user": perm, "dumpable": perm, "core": perm, "ptrace": perm, "parent": perm,
		"parent-environ": access, "read-secret": access, "write-elsewhere": access, "device": access,
		"mount": perm, "io-uring": perm, "bpf": perm, "keyctl": perm, "tiocsti": perm,
		"self": 0, "read-system": 0, "write-null": 0,
	}
	module := p.compile(t, "libprobe.so", "-shared", "-fPIC")
	for _, tc := range []struct {
		name    string
		sockets []string
		change  map[string]syscall.Errno
	}{
		{"nothing named", nil, nil},
		{"a port", []string{"tcp:" + strconv.Itoa(p.port)}, map[string]syscall.Errno{"inet": 0, "port": 0, "other-port": access}},
		{"Unix sockets", []string{"unix"}, map[string]syscall.Errno{"unix": 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_ = os.Remove(p.out)
			sup, err := hsm.Start(t.Context(), hsm.Config{
				Module: module, HSMD: hsmtest.HSMD(t), Env: []string{}, StateDir: filepath.Join(p.dir, "out", "state"),
				Folders: []string{filepath.Join(p.dir, "out")}, Sockets: tc.sockets,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer sup.Close()
			if _, _, err := sup.Tokens(t.Context()); err == nil {
				t.Error("a module whose entry fails was taken")
			}
			expected := maps.Clone(want)
			maps.Copy(expected, tc.change)
			got := p.results(t)
			for _, n := range slices.Sorted(maps.Keys(expected)) {
				if got[n] != expected[n] {
					t.Errorf("%s: got %v, want %v", n, got[n], expected[n])
				}
			}
			if len(got) != len(expected) {
				t.Errorf("%d tries, %d expected", len(got), len(expected))
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(p.dir, "media", "planted*")); err != nil || len(left) != 1 { // the free program's
		t.Errorf("%v, %v", left, err)
	}
}

// TestSettingsOfTheSandbox refuses what it does not understand.
func TestSettingsOfTheSandbox(t *testing.T) {
	for _, c := range []hsm.Config{
		{Sockets: []string{"tcp:0"}},
		{Sockets: []string{"tcp:65536"}},
		{Sockets: []string{"inet"}},
		{Sockets: []string{""}},
		{Folders: []string{"/"}},
		{Folders: []string{"/usr/.."}},
		{Folders: []string{"relative"}},
		{Env: []string{"TPM2_PKCS11_TCTI=swtpm:host=x,port=0"}, Module: "/x/libtpm2_pkcs11.so"},
	} {
		if c.Module == "" {
			c.Module = hsmtest.Module(t)
		}
		c.HSMD = hsmtest.HSMD(t)
		if s, err := hsm.Start(t.Context(), c); class(err) != "usage" {
			t.Errorf("%+v: %v", c, err)
			if s != nil {
				s.Close()
			}
		}
	}
}

// statuses reads /proc/PID/task/*/status: what was given up, every thread gave up.
func statuses(t *testing.T, pid int) []map[string]string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var out []map[string]string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended
		}
		m := map[string]string{}
		for line := range bytes.Lines(b) {
			k, v, _ := strings.Cut(string(line), ":")
			m[k] = strings.TrimSpace(v)
		}
		out = append(out, m)
	}
	return out
}

// TestConfined asks the kernel what the processes have left: no capability in any
// set of any thread, no new privileges, a filter; and what they say of themselves
// agrees.
func TestConfined(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	for _, pid := range []int{e.Supervisor.PID(), module(t, e.Supervisor)} {
		for _, st := range statuses(t, pid) {
			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
				if strings.Trim(st[set], "0") != "" {
					t.Errorf("process %d, thread %s: %s is %s", pid, st["Pid"], set, st[set])
				}
			}
			if st["NoNewPrivs"] != "1" || st["Seccomp"] != "2" {
				t.Errorf("process %d, thread %s: no_new_privs %s, seccomp %s", pid, st["Pid"], st["NoNewPrivs"], st["Seccomp"])
			}
		}
		if dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid)); err != nil || strings.Count(string(dev), ":") != 1 {
			t.Errorf("process %d sees %s, %v", pid, dev, err)
		}
	}
	h := s.Module().Hardening
	if h.Capabilities != "none" || !h.NoNewPrivileges || h.Seccomp != "filter" || !strings.HasPrefix(h.Landlock, "version ") || h.Sockets != "none" ||
		h.Network != "no interface" || h.CoreFiles || h.Dumpable || h.LockedKB == 0 || h.User != os.Getuid() {
		t.Errorf("it says %+v", h)
	}
}

// TestFolderOwner: started as root over the folder of somebody else, both halves
// are that user, and so are the files of the token.
func TestFolderOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("run as root: it becomes another user")
	}
	const uid = 12345
	e := hsmtest.NewStore(t)
	for _, err := range []error{os.Chmod(e.Dir, 0o711), os.Chmod(e.Conf, 0o644), os.Chown(e.TokenDir, uid, uid)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	e.Supervisor = e.Start(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	s := e.Open(t, id)
	if h := s.Module().Hardening; h.User != uid {
		t.Errorf("it says user %d", h.User)
	}
	for _, pid := range []int{e.Supervisor.PID(), module(t, e.Supervisor)} {
		for _, st := range statuses(t, pid) {
			if want := fmt.Sprintf("%d\t%d\t%d\t%d", uid, uid, uid, uid); st["Uid"] != want || st["Gid"] != want || st["Groups"] != strconv.Itoa(uid) {
				t.Errorf("process %d: user %q, group %q, groups %q", pid, st["Uid"], st["Gid"], st["Groups"])
			}
		}
	}
	err = filepath.WalkDir(e.TokenDir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != uid {
			t.Errorf("%s belongs to user %d", path, sys.Uid)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestWithoutRoot runs the same as an ordinary user, who can give up less and needs
// no more: the test starts itself as that user.
func TestWithoutRoot(t *testing.T) {
	const uid, role = 12345, "KEYRITE_TEST_WITHOUT_ROOT"
	if hsmd := os.Getenv(role); hsmd != "" {
		withoutRoot(t, hsmd)
		return
	}
	if os.Getuid() != 0 {
		t.Fatal("run as root: it becomes another user")
	}
	e := hsmtest.NewStore(t)
	hsmd := filepath.Join(e.Dir, "keyrite-hsmd")
	program, err := os.ReadFile(hsmtest.HSMD(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(e.Dir, 0o711), os.WriteFile(hsmd, program, 0o600), os.Chmod(hsmd, 0o755), os.Chmod(e.Conf, 0o644), os.Chown(e.TokenDir, uid, uid)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWithoutRoot$", "-test.v")
	cmd.Env = []string{role + "=" + hsmd, "SOFTHSM2_CONF=" + e.Conf, "HOME=" + e.TokenDir, "PATH=/usr/bin:/bin"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("signed as 12345")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

func withoutRoot(t *testing.T, hsmd string) {
	sup, err := hsm.Start(t.Context(), hsm.Config{Module: hsmtest.Module(t), HSMD: hsmd})
	if err != nil {
		t.Fatal(err)
	}
	defer sup.Close()
	id, err := sup.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	s, err := sup.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	sp := signSpec(t, "k")
	if _, err := s.Generate(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	k, err := s.Signer(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignContext(t.Context(), make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	h := s.Module().Hardening
	if h.Capabilities != "none" || !h.NoNewPrivileges || h.Seccomp != "filter" || !strings.HasPrefix(h.Landlock, "version ") || h.Dumpable || h.CoreFiles || h.LockedKB == 0 {
		t.Errorf("it says %+v", h)
	}
	t.Logf("signed as %d", h.User)
}

package hsmtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
)

// Foreign is a token of another module than SoftHSM, with what it takes to use
// it. Whatever was started for it ends with the test, its folder too.
type Foreign struct {
	Name   string // of the module, as docs/portability.md has it
	Config hsm.Config
	Label  string
	PIN    string // user PIN; empty where only the supervisor knows it

	sup *hsm.Supervisor
}

// Open starts a supervisor over the module and logs in.
func (f *Foreign) Open(t testing.TB) *hsm.Session {
	t.Helper()
	sup := f.sup
	if sup == nil {
		sup = f.start(t)
	}
	id, err := sup.Find(t.Context(), f.Label)
	if err != nil {
		t.Fatal(err)
	}
	if f.PIN != "" {
		f.take(t, sup, id)
	}
	s, err := sup.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (f *Foreign) start(t testing.TB) *hsm.Supervisor {
	t.Helper()
	sup, err := hsm.Start(t.Context(), f.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sup.Close() })
	return sup
}

// take hands the user PIN to a supervisor.
func (f *Foreign) take(t testing.TB, sup *hsm.Supervisor, id hsm.TokenID) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.WriteString(w, f.PIN+"\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := sup.TakeUserPIN(t.Context(), id, r); err != nil {
		t.Fatal(err)
	}
}

// foreignDir is a private folder with an absolute and short name, in memory
// where that can be had.
func foreignDir(t testing.TB) string {
	t.Helper()
	base := "/dev/shm"
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "keyrite-foreign-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// need returns the first of the paths that exists, or fails the test.
func need(t testing.TB, pkg string, paths ...string) string {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	t.Fatalf("%s is missing (apt-get install %s)", strings.Join(paths, ", "), pkg)
	return ""
}

// command runs a program that sets something up.
func command(t testing.TB, stdin, name string, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// daemon starts a program that runs until the test ends, and dies with it. Its
// process is started by a thread that lives as long, for the kernel sends
// PDEATHSIG when the starting thread ends. The returned log is safe to read
// after the daemon has ended.
func daemon(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &log
	}
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
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
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			t.Logf("%s said: %s", cmd.Path, log.String())
		}
	})
}

// until waits for a state that a daemon reaches, and fails the test if it does not.
func until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for range 500 {
		if reached() {
			return
		}
		<-time.After(20 * time.Millisecond) // a daemon of its own
	}
	t.Fatalf("%s: not within 10 s", what)
}

// wrapped writes a program that prepares the surroundings of keyrite-hsmd.
func wrapped(t testing.TB, dir, script string) string {
	t.Helper()
	path := filepath.Join(dir, "keyrite-hsmd")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// NSS makes a token of Mozilla's softoken, whose database certutil makes.
func NSS(t testing.TB) *Foreign {
	t.Helper()
	module := need(t, "libnss3", "/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so", "/usr/lib64/libsoftokn3.so")
	dir := foreignDir(t)
	f := &Foreign{Name: "NSS softoken", Label: "keyrite", PIN: "nss-user-pin"}
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte(f.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	need(t, "libnss3-tools", "/usr/bin/certutil")
	// NSS stretches its password 10,000 times for each key that it stores.
	quick := "NSS_MAX_MP_PBE_ITERATION_COUNT=1"
	command(t, "", "/usr/bin/env", quick, "/usr/bin/certutil", "-N", "-d", "sql:"+dir, "-f", pin)
	f.Config = hsm.Config{
		Module: module, HSMD: wrapped(t, dir, "export "+quick+"\nexec "+HSMD(t)+` "$@"`), Env: []string{},
		ModuleArgs: "configdir='sql:" + dir + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags= updatedir='' updateCertPrefix='' updateKeyPrefix='' updateid='' updateTokenDescription='' cryptoSlotDescription='cslot' dbSlotDescription='dslot' cryptoTokenDescription='ctok' dbTokenDescription='" + f.Label + "'",
	}
	return f
}

// Opencryptoki makes a software token of opencryptoki. Its folders, its socket and
// its shared memory have fixed names, so its daemon runs in namespaces of its own,
// and keyrite-hsmd joins them.
func Opencryptoki(t testing.TB) *Foreign {
	t.Helper()
	module := need(t, "opencryptoki", "/usr/lib/x86_64-linux-gnu/libopencryptoki.so.0", "/usr/lib/x86_64-linux-gnu/opencryptoki/libopencryptoki.so.0")
	need(t, "opencryptoki", "/usr/sbin/pkcsslotd")
	dir := foreignDir(t)
	script := filepath.Join(dir, "start")
	// /var/lock and /var/run lead to /run on Debian.
	text := `set -e
cd ` + dir + `
mkdir -p etc lib/swtok/TOK_OBJ run/lock/opencryptoki/swtok
printf 'version opencryptoki-3.1\n\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\n' >etc/opencryptoki.conf
printf 'root:x:0:root\npkcs11:x:0:root\n' >group
mount --bind etc /etc/opencryptoki
mount --bind lib /var/lib/opencryptoki
mount --bind group /etc/group
mount --bind run /run
exec /usr/sbin/pkcsslotd -f
`
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	unshare := []string{"--mount", "--ipc", "--propagation", "private"}
	join := "--mount --ipc"
	if os.Getuid() != 0 {
		unshare = append(unshare, "--user", "--map-root-user")
		join += " --user --preserve-credentials"
	}
	cmd := exec.Command("unshare", append(unshare, "/bin/sh", script)...)
	daemon(t, cmd)
	until(t, "pkcsslotd", func() bool {
		_, err := os.Stat(filepath.Join(dir, "run", "pkcsslotd.socket"))
		return err == nil
	})
	enter := fmt.Sprintf("nsenter --target %d %s --", cmd.Process.Pid, join)
	f := &Foreign{Name: "opencryptoki soft token", Label: "ock", PIN: "43218765"}
	conf := strings.Fields(enter + " pkcsconf -c 3")
	for _, step := range []struct {
		stdin string
		args  []string
	}{ // the token insists that both first PINs are changed
		{f.Label + "\n", []string{"-I", "-S", "87654321"}},
		{"", []string{"-P", "-S", "87654321", "-n", "11223344"}},
		{"", []string{"-u", "-S", "11223344", "-n", "12345678"}},
		{"", []string{"-p", "-U", "12345678", "-n", f.PIN}},
	} {
		command(t, step.stdin, conf[0], append(conf[1:], step.args...)...)
	}
	f.Config = hsm.Config{Module: module, HSMD: wrapped(t, dir, "exec "+enter+" "+HSMD(t)+` "$@"`), Env: []string{}}
	return f
}

// TPM2 makes a token of tpm2-pkcs11 on a software TPM behind a resource manager.
func TPM2(t testing.TB) *Foreign {
	t.Helper()
	module := need(t, "libtpm2-pkcs11-1", "/usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1")
	need(t, "libtss2-tcti-tabrmd0", "/usr/lib/x86_64-linux-gnu/libtss2-tcti-tabrmd.so.0")
	abrmd := need(t, "tpm2-abrmd", "/usr/sbin/tpm2-abrmd")
	dir := foreignDir(t)
	for _, d := range []string{"tpm", "store"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	port := startSWTPM(t, filepath.Join(dir, "tpm"))
	bus := abrmdBus(t, abrmd, port)
	f := &Foreign{Name: "tpm2-pkcs11 on swtpm", Label: "tpm"}
	f.Config = hsm.Config{
		Module: module,
		HSMD:   wrapped(t, dir, "export DBUS_SESSION_BUS_ADDRESS='"+bus+"'\nexec "+HSMD(t)+` "$@"`),
		Env: []string{
			"TPM2_PKCS11_TCTI=tabrmd:bus_type=session", "TPM2_PKCS11_STORE=" + filepath.Join(dir, "store"),
			"TPM2_PKCS11_BACKEND=esysdb",
		},
	}
	// Its PINs stay the one-time ones: to change them means two wrong tries, and a
	// TPM locks after three.
	f.sup = f.start(t)
	if _, err := f.sup.InitToken(t.Context(), f.Label); err != nil {
		t.Fatal(err)
	}
	return f
}

// startSWTPM runs an empty TPM and returns its port; the control channel is the
// next one, where the client library looks for it.
func startSWTPM(t testing.TB, state string) int {
	t.Helper()
	bin := need(t, "swtpm", "/usr/bin/swtpm")
	port := freePorts(t)
	cmd := exec.Command(bin, "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port),
		"--ctrl", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", port+1),
		"--flags", "not-need-init,startup-clear")
	daemon(t, cmd)
	until(t, "swtpm", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return port
}

// abrmdBus starts a message bus with the resource manager on it and returns the
// address of the bus.
func abrmdBus(t testing.TB, abrmd string, port int) string {
	t.Helper()
	need(t, "dbus", "/usr/bin/dbus-run-session")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	script := fmt.Sprintf(`echo "$DBUS_SESSION_BUS_ADDRESS"
exec %s --session --allow-root --tcti=swtpm:host=127.0.0.1,port=%d --flush-all --max-transients=100 2>&1`, abrmd, port)
	cmd := exec.Command("/usr/bin/dbus-run-session", "--", "/bin/sh", "-c", script)
	cmd.Stdout = w
	daemon(t, cmd)
	w.Close()
	lines := bufio.NewScanner(r)
	if !lines.Scan() {
		t.Fatal("dbus-run-session gave no address")
	}
	bus := lines.Text()
	until(t, "tpm2-abrmd", func() bool {
		c := exec.CommandContext(t.Context(), "dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.NameHasOwner", "string:com.intel.tss2.Tabrmd")
		c.Env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS="+bus)
		out, err := c.Output()
		return err == nil && bytes.Contains(out, []byte("true"))
	})
	return bus
}

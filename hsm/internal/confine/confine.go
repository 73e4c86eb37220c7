// Package confine takes away from keyrite-hsmd what it does not need, before it
// knows a PIN and before it loads a module, which is code of others (CWE-250):
//
//	Renounce   capabilities, new privileges, the network namespace, the root user
//	           where the token's folder belongs to somebody else; then the program
//	           starts itself anew, so that every thread has lost them
//	Folders    Landlock: what the module process may read and write, and the ports
//	           that it may connect to
//	Filter     seccomp: sockets, other processes, mounts, kernel modules, programs
//
// Where the kernel offers one of the three it is in force or the process ends;
// where it does not, Report says so. Only the supervisor and the module process
// call it. It must never widen what it was given.
//
// Sources: capabilities(7), prctl(2), seccomp(2), landlock(7), network_namespaces(7).
package confine

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/places"
)

// Renounce gives up, in the calling thread, which must be locked and must then
// execute the program anew: a capability, a namespace and no_new_privs belong to
// one thread, and only execve(2) leaves no other.
func Renounce(p *places.Places) error {
	// Memory stays locked without CAP_IPC_LOCK only below this limit, and a Go
	// program does not survive an allocation that fails.
	unlimited := &syscall.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = syscall.Setrlimit(unix.RLIMIT_MEMLOCK, unlimited) // where it may not, secmem locks page by page
	if len(p.TCP) == 0 && !p.Abstract {
		// Allowed to root alone. A user namespace would allow it to everybody, and
		// would take away the groups through which users reach their HSM.
		_ = unix.Unshare(unix.CLONE_NEWNET) // Filter denies the sockets in any case
	}
	if err := becomeOwner(p.TokenDir); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return nil
}

// becomeOwner makes a process of root the user to whom the token's folder
// belongs: it needs nothing else, and files that root made there would lock that
// user out.
func becomeOwner(dir string) error {
	if os.Getuid() != 0 || dir == "" {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("token folder: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("token folder %s: no owner", dir)
	}
	if sys.Uid == 0 {
		return nil
	}
	uid, gid := int(sys.Uid), int(sys.Gid)
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("give up the groups of root: %w", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	return nil
}

// dropCapabilities empties every set of the calling thread.
func dropCapabilities() error {
	for c := range uintptr(64) {
		// EINVAL: the kernel knows no such capability. EPERM: not ours to drop,
		// and with no_new_privs and empty sets it cannot be gained either.
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err != nil {
			break
		}
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) // Linux 4.3; capset empties it too
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// Report asks the kernel what is in force in this process. folders is what
// Folders returned where it ran.
func Report(folders string) frame.Hardening {
	status := fields("/proc/self/status")
	h := frame.Hardening{
		User: os.Geteuid(), Capabilities: status["CapEff"], NoNewPrivileges: status["NoNewPrivs"] == "1",
		Seccomp: map[string]string{"2": "filter"}[status["Seccomp"]], Landlock: folders, Network: network(),
		LockedKB: number(status["VmLck"]),
	}
	if strings.Trim(h.Capabilities, "0") == "" && h.Capabilities != "" {
		h.Capabilities = "none"
	}
	if h.Seccomp == "" {
		h.Seccomp = "none: this kernel offers no filter"
	}
	var core syscall.Rlimit
	h.CoreFiles = syscall.Getrlimit(unix.RLIMIT_CORE, &core) != nil || core.Cur != 0 || core.Max != 0
	d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	h.Dumpable = err != nil || d != 0
	return h
}

// network lists the interfaces that the process sees.
func network() string {
	data, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return "unknown"
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if name, _, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) != "lo" {
			names = append(names, strings.TrimSpace(name))
		}
	}
	if len(names) == 0 {
		return "no interface"
	}
	return strings.Join(names, " ")
}

// fields reads lines of the form "name: value".
func fields(path string) map[string]string {
	out := map[string]string{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), ":"); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

func number(s string) int64 {
	n, _, _ := strings.Cut(s, " ")
	v, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// Rules say what Filter leaves.
type Rules struct {
	Unix, TCP bool // sockets; everything else is denied
	// Programs may be started, and other processes ended: the supervisor's.
	Programs bool
}

// Filter denies system calls in every thread of the process, for good. A kernel
// without seccomp is no error: Report says what is in force.
func Filter(r Rules) error {
	prog, err := r.assemble(os.Getpid())
	if err != nil {
		return err
	}
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	n, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(prog)
	switch {
	case e == unix.ENOSYS:
		return nil
	case e == unix.EINVAL && !offered():
		return nil
	case e != 0:
		return fmt.Errorf("install the system call filter: %w", e)
	case n != 0:
		return fmt.Errorf("install the system call filter: thread %d has another one", n)
	}
	return nil
}

// offered reports whether the kernel has filters at all (CONFIG_SECCOMP_FILTER).
func offered() bool {
	_, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err == nil
}

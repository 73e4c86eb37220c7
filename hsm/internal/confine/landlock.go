package confine

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyrite/hsm/internal/places"
)

// The rights of Landlock by the first version of its ABI that knows them
// (landlock(7)). Execution is for Filter to deny; what is opened may be mapped.
const (
	rightsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	rightsWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	rightsFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE

	abiTruncate = 3
	abiNet      = 4
	abiScope    = 6
)

// readable is where programs, libraries, configuration and what the kernel tells
// lie: not home folders, not media, where shares are, not the disks as devices.
var readable = []string{
	"/usr", "/lib", "/lib32", "/lib64", "/opt", "/etc", "/proc", "/sys", "/run", "/var/lib/dbus", "/nix/store", "/gnu/store",
	"/dev/bus/usb", "/dev/random", "/dev/urandom",
}

// devices are what a module may open to write: nothing, a TPM, USB.
var devices = []string{"/dev/null", "/dev/zero", "/dev/tpm0", "/dev/tpmrm0", "/dev/bus/usb"}

// Folders restricts the calling thread, which must be locked, and every process
// that it starts: reading as above, writing in what the configuration names and in
// more, TCP to the ports it names. It returns what is in force, in words.
func Folders(p *places.Places, more ...string) (string, error) {
	abi, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e == unix.ENOSYS || e == unix.EOPNOTSUPP {
		return "none: this kernel does not offer it", nil
	}
	if e != 0 {
		return "", fmt.Errorf("ask for Landlock: %w", e)
	}
	l := &landlock{read: rightsRead, write: rightsWrite}
	attr := unix.LandlockRulesetAttr{}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= abiTruncate {
		l.write |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= abiNet {
		attr.Handled_access_net, size = unix.LANDLOCK_ACCESS_NET_BIND_TCP|unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, 16
	}
	if abi >= abiScope {
		size = 24
		if !p.Abstract {
			attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	attr.Handled_access_fs = l.read | l.write
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return "", fmt.Errorf("make a Landlock ruleset: %w", e)
	}
	l.fd = int(fd)
	defer unix.Close(l.fd)
	if err := l.rules(p, append(more, "/proc/self/exe"), abi >= abiNet); err != nil {
		return "", err
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return "", fmt.Errorf("restrict the folders: %w", e)
	}
	return fmt.Sprintf("version %d", abi), nil
}

// netPort is struct landlock_net_port_attr, and ruleNetPort its rule type
// (linux/landlock.h).
type netPort struct{ allowed, port uint64 }

const ruleNetPort = 2

type landlock struct {
	fd          int
	read, write uint64
}

// rules adds every rule; the last of more is this program, which is only read.
func (l *landlock) rules(p *places.Places, more []string, net bool) error {
	last := len(more) - 1
	for _, set := range []struct {
		paths  []string
		rights uint64
	}{
		{readable, l.read},
		{p.Read, l.read},
		{more[last:], l.read},
		{devices, l.read | l.write},
		{p.Write, l.read | l.write},
		{more[:last], l.read | l.write},
	} {
		for _, path := range set.paths {
			if err := l.path(path, set.rights); err != nil {
				return err
			}
		}
	}
	for _, port := range p.TCP {
		if !net {
			break
		}
		attr := netPort{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(port)}
		if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(l.fd), ruleNetPort, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); e != 0 {
			return fmt.Errorf("allow port %d: %w", port, e)
		}
	}
	return nil
}

// path allows something below a path. What is not there needs no rule.
func (l *landlock) path(path string, rights uint64) error {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= rightsFile
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(l.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); e != 0 {
		return fmt.Errorf("allow %s: %w", path, e)
	}
	return nil
}

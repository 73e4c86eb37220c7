package confine

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (seccomp(2)).
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16 // 8 bytes each; the low half comes first on what we support
)

// Operations of classic BPF (linux/bpf_common.h).
const (
	opLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opAbove  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opAnySet = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	opAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opReturn = unix.BPF_RET | unix.BPF_K
)

type program []unix.SockFilter

func load(offset uint32) unix.SockFilter { return unix.SockFilter{Code: opLoad, K: offset} }
func arg(n uint32) unix.SockFilter       { return load(offArgs + 8*n) }
func ret(v uint32) unix.SockFilter       { return unix.SockFilter{Code: opReturn, K: v} }

func allow() unix.SockFilter            { return ret(unix.SECCOMP_RET_ALLOW) }
func deny(e unix.Errno) unix.SockFilter { return ret(unix.SECCOMP_RET_ERRNO | uint32(e)) }

// when runs body, which returns on every path, if the value loaded is v.
func (p *program) when(v uint32, body ...unix.SockFilter) {
	*p = append(*p, unix.SockFilter{Code: opEqual, K: v, Jf: uint8(len(body))})
	*p = append(*p, body...)
}

// equal goes on with the next instruction if the value is v, else skips n.
func equal(v uint32, n uint8) unix.SockFilter { return unix.SockFilter{Code: opEqual, K: v, Jf: n} }

// newNamespaces are the flags of clone(2) that make one.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME

// assemble writes the filter. Most of what it denies needs a capability that the
// process does not have; it stands here all the same, for a hole in the kernel is
// reached through a system call first. What is denied answers with an error, so
// that a module that merely asks goes on.
func (r Rules) assemble(pid int) (program, error) {
	if auditArch == 0 {
		return nil, errArch
	}
	p := program{
		load(offArch),
		{Code: opEqual, K: auditArch, Jt: 1},
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(offNumber),
	}
	if lastNumber != 0 { // the x32 ABI, which shares the architecture's name
		// -1 is what a tracer puts there to skip a call; the kernel runs none for it.
		p = append(p, unix.SockFilter{Code: opAbove, K: lastNumber, Jf: 3}, equal(1<<32-1, 1), allow(), ret(unix.SECCOMP_RET_KILL_PROCESS))
	}
	for _, n := range slices.Concat(denied, deniedHere) {
		p.when(uint32(n), deny(unix.EPERM))
	}
	// Its flags lie in memory, where a filter cannot look; libc goes back to clone.
	p.when(unix.SYS_CLONE3, deny(unix.ENOSYS))
	p.when(unix.SYS_CLONE, arg(0), unix.SockFilter{Code: opAnySet, K: newNamespaces, Jf: 1}, deny(unix.EPERM), allow())
	p.when(unix.SYS_SOCKET, r.socket()...)
	p.when(unix.SYS_IOCTL, arg(1), // typing for the person at the terminal (CWE-78)
		equal(unix.TIOCSTI, 1), deny(unix.EPERM), equal(tiocLinux, 1), deny(unix.EPERM), allow())
	p.when(unix.SYS_PRCTL, arg(0), equal(unix.PR_SET_DUMPABLE, 4), arg(1), equal(0, 1), allow(), deny(unix.EPERM), allow())
	if !r.Programs {
		for _, n := range []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_TKILL, unix.SYS_PIDFD_SEND_SIGNAL} {
			p.when(n, deny(unix.EPERM))
		}
		for _, n := range []uint32{unix.SYS_KILL, unix.SYS_TGKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO} {
			p.when(n, arg(0), equal(uint32(pid), 1), allow(), deny(unix.EPERM))
		}
	}
	return append(p, allow()), nil
}

const tiocLinux = 0x541c // TIOCLINUX, asm-generic/ioctls.h

// socket lets through the families that the configuration names. What a Unix
// socket leads to is for the file system to say, what a port leads to for
// Landlock.
func (r Rules) socket() []unix.SockFilter {
	p := program{arg(0)}
	if r.Unix {
		p = append(p, equal(unix.AF_UNIX, 1), allow())
	}
	if r.TCP {
		stream := []unix.SockFilter{
			arg(1), {Code: opAnd, K: 0xf}, // the rest are flags
			equal(unix.SOCK_STREAM, 1), allow(), deny(unix.EAFNOSUPPORT),
		}
		p.when(unix.AF_INET, stream...)
		p.when(unix.AF_INET6, stream...)
	}
	return append(p, deny(unix.EAFNOSUPPORT))
}

// denied are the system calls that neither half needs, on every architecture.
var denied = []uintptr{
	// other processes and their memory
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP,
	unix.SYS_PIDFD_GETFD, unix.SYS_PERF_EVENT_OPEN,
	// mounts and namespaces
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
	// the kernel and the machine
	unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_REBOOT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_VHANGUP,
	unix.SYS_PERSONALITY, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL,
	// ways around a filter, and what exploits of the kernel are made of
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_BPF, unix.SYS_USERFAULTFD,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
}

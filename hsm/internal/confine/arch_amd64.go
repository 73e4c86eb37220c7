package confine

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	auditArch  = unix.AUDIT_ARCH_X86_64
	lastNumber = 0x3fffffff // below __X32_SYSCALL_BIT, asm/unistd.h
)

var errArch = errors.New("no system call filter for this architecture")

var deniedHere = []uintptr{
	unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_USELIB, unix.SYS_USTAT,
	unix.SYS_SYSFS, unix.SYS__SYSCTL, unix.SYS_CREATE_MODULE, unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE,
	unix.SYS_VFORK, // clone serves, and is looked at
}

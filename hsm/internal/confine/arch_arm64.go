package confine

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	auditArch  = unix.AUDIT_ARCH_AARCH64
	lastNumber = 0 // no other numbers share the name of this architecture
)

var errArch = errors.New("no system call filter for this architecture")

var deniedHere = []uintptr{unix.SYS_KEXEC_FILE_LOAD}

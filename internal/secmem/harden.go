package secmem

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	prSetDumpable = 4  // linux/prctl.h
	capIPCLock    = 14 // linux/capability.h
	mclOnFault    = 4  // asm-generic/mman.h, Linux 4.4
	rlimitMemlock = 8  // asm-generic/resource.h
	unlimited     = 1<<64 - 1
)

// Harden makes the calling process unreadable for others of the same user
// and forbids core files. Where the limit allows it all memory is locked, too;
// elsewhere the process goes on, its Buffers are locked one by one, and a
// ceremony checks that there is no swap at all. A process that is to hold PINs
// or shares calls it before it reads anything.
func Harden() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, 0, 0); e != 0 {
		return fmt.Errorf("make the process not dumpable: %w", e)
	}
	if mayLockAll() {
		// On fault only: the Go runtime reserves far more than it uses. In a user
		// namespace the right that mayLockAll saw is not the one the kernel asks for.
		err := syscall.Mlockall(syscall.MCL_CURRENT | syscall.MCL_FUTURE | mclOnFault)
		if err != nil && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ENOMEM) {
			return fmt.Errorf("lock all memory: %w", err)
		}
	}
	return nil
}

// mayLockAll reports whether locking everything cannot make a later
// allocation fail, which a Go program would not survive.
func mayLockAll() bool {
	var r syscall.Rlimit
	if syscall.Getrlimit(rlimitMemlock, &r) == nil && r.Cur == unlimited {
		return true
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps&(1<<capIPCLock) != 0
		}
	}
	return false
}

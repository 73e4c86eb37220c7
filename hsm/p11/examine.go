package p11

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"keyrite/hsm/internal/frame"
)

// machines are the ELF machines that this program is built for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "386": elf.EM_386, "arm": elf.EM_ARM, "riscv64": elf.EM_RISCV, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390}

// openModule opens the file and says, before any of its code runs, why it cannot
// be a module for us: the dynamic linker would say it in words that help nobody.
func openModule(job frame.Job) (*os.File, string, error) {
	const op = "load module"
	// Not blocking: the name may lead to a pipe.
	f, err := os.OpenFile(job.Module, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", hinted(faultf(op, frame.KindUsage, "%v", err), "give the path of the module's file, as its maker's manual names it")
	}
	sum, err := judge(f, job)
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return f, sum, nil
}

func judge(f *os.File, job frame.Job) (string, error) {
	const op = "load module"
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return "", hinted(faultf(op, frame.KindUsage, "%s is not a regular file", job.Module), "give the path of the module's file")
	}
	if err := unshared(f); err != nil {
		return "", err
	}
	sum, err := digest(f)
	if err != nil {
		return "", wrap(op, "hash "+job.Module, err)
	}
	if job.ModuleSHA256 != "" && sum != job.ModuleSHA256 {
		return "", hinted(faultf(op, frame.KindRefused, "%s is another module than the one that was admitted: SHA-256 %s, not %s", job.Module, sum, job.ModuleSHA256),
			"if its maker's update was meant, admit the token again with it; else find out who changed it, and do not type a PIN")
	}
	return sum, library(f, job.Module)
}

func digest(f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// unshared refuses a file that others than root and this user can change or
// exchange: it itself and every folder on the way to it (CWE-732, CWE-427). In a
// folder with the sticky bit others cannot exchange it; to a file that bit means
// nothing.
func unshared(f *os.File) error {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return wrap("load module", "name the file", err)
	}
	st, err := f.Stat()
	for p := path; err == nil; st, err = os.Stat(p) {
		sys, ok := st.Sys().(*syscall.Stat_t)
		switch {
		case !ok || sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
			return hinted(faultf("load module", frame.KindRefused, "%s belongs to user %d, who could exchange the module", p, sys.Uid), "let root own it: chown root:root "+p)
		case st.Mode().Perm()&0o022 != 0 && (p == path || st.Mode()&os.ModeSticky == 0):
			return hinted(faultf("load module", frame.KindRefused, "%s can be written by others, a group or everybody, who could exchange the module", p), "chmod go-w "+p)
		}
		if p == "/" {
			return nil
		}
		p = filepath.Dir(p)
	}
	return wrap("load module", path, err)
}

// library wants a shared library for this machine that has the one function by
// which every PKCS#11 module is entered (PKCS#11 2.40, Section 5.4).
func library(f *os.File, path string) (err error) {
	const op = "load module"
	defer func() {
		if recover() != nil { // the parser is not made for hostile files
			err = faultf(op, frame.KindUsage, "%s is no shared library: its headers make no sense", path)
		}
	}()
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := f.ReadAt(magic, 0); err != nil || !bytes.Equal(magic, []byte(elf.ELFMAG)) {
		return hinted(faultf(op, frame.KindUsage, "%s is no shared library", path), "a PKCS#11 module is a file of code, usually NAME.so")
	}
	head := make([]byte, 20)
	if _, err := f.ReadAt(head, 0); err != nil {
		return faultf(op, frame.KindUsage, "%s is cut off", path)
	}
	class, order := elf.Class(head[elf.EI_CLASS]), elf.Data(head[elf.EI_DATA])
	machine := elf.Machine(uint16(head[18]) | uint16(head[19])<<8)
	if order == elf.ELFDATA2MSB {
		machine = elf.Machine(uint16(head[19]) | uint16(head[18])<<8)
	}
	if machine != machines[runtime.GOARCH] || class != wordClass {
		return hinted(faultf(op, frame.KindUsage, "%s is built for another machine (%v, %v); this one is %v", path, machine, class, machines[runtime.GOARCH]), "install the maker's package for this architecture")
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return faultf(op, frame.KindUsage, "%s is no whole shared library: %v", path, err)
	}
	if e.Type != elf.ET_DYN {
		return faultf(op, frame.KindUsage, "%s is a program, not a shared library", path)
	}
	symbols, err := e.DynamicSymbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		return nil // stripped of its section headers; the linker will know
	}
	for _, s := range symbols {
		if s.Name == "C_GetFunctionList" && s.Section != elf.SHN_UNDEF {
			return nil
		}
	}
	return hinted(faultf(op, frame.KindUsage, "%s is no PKCS#11 module: it has no C_GetFunctionList", path), "give the path of the PKCS#11 module; makers ship several libraries")
}

// wordClass is the ELF class of this program.
const wordClass = elf.ELFCLASS32 + elf.Class(^uint(0)>>63)

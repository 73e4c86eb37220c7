// Package secmem keeps secrets out of the reach of everything that copies
// memory by itself: the Go collector, the swap device and core files. Both
// halves of keyrite-hsmd keep PINs in it and nowhere else; the process that
// deals and combines shares hardens itself with it.
package secmem

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"syscall"
)

// Size is the capacity of a Buffer in bytes: one page, four times what any
// PIN needs.
const Size = 4096

const madvDontDump = 16 // asm-generic/mman-common.h

// Buffer is one locked page outside the Go heap. It must be wiped by its
// owner; no finaliser does it, since by then the secret has lived too long.
//
// The secret lies behind a pointer, because fmt follows one by itself, without
// asking for a Formatter, where a Buffer is an unexported field and the verb is
// a wrong one.
type Buffer struct {
	mu  sync.Mutex // guards mem
	mem *mapped    // nil once it is wiped
}

// mapped is the page of a Buffer and how many bytes of it are in use.
type mapped struct {
	page []byte
	n    int
}

// New returns an empty locked buffer, or an error where the limit on locked
// memory (RLIMIT_MEMLOCK) does not allow one more page.
func New() (*Buffer, error) {
	p, err := syscall.Mmap(-1, 0, Size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map a page for a secret: %w", err)
	}
	if err := syscall.Mlock(p); err != nil {
		return nil, errors.Join(fmt.Errorf("lock a page for a secret (see ulimit -l): %w", err), syscall.Munmap(p))
	}
	// Kept out of core files even where a limit is raised later; best effort,
	// for the limit of 0 is what counts.
	_ = syscall.Madvise(p, madvDontDump)
	return &Buffer{mem: &mapped{page: p}}, nil
}

// Fill hands the page to f, which returns how many bytes of it are in use.
func (b *Buffer) Fill(f func(page []byte) (int, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mem == nil {
		return errors.New("secret is wiped")
	}
	n, err := f(b.mem.page)
	if err != nil || n < 0 || n > len(b.mem.page) {
		clear(b.mem.page)
		b.mem.n = 0
		if err == nil {
			err = errors.New("secret does not fit its page")
		}
		return err
	}
	clear(b.mem.page[n:])
	b.mem.n = n
	return nil
}

// Bytes is the secret itself, not a copy. It is nil after Wipe.
func (b *Buffer) Bytes() []byte {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mem == nil {
		return nil
	}
	return b.mem.page[:b.mem.n:b.mem.n]
}

// Wipe overwrites and gives back the page. A nil or wiped buffer is fine.
func (b *Buffer) Wipe() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mem == nil {
		return
	}
	clear(b.mem.page)
	runtime.KeepAlive(b.mem.page)
	_ = syscall.Munmap(b.mem.page) // unmapping also unlocks
	b.mem = nil
}

// Format keeps a secret out of formatted output, whatever the verb.
func (b *Buffer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

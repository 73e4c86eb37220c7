package clitest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// Area is one readable mapping of a process.
type Area struct {
	From, To uint64
	Name     string // of the file, or as [heap]; "" if it has none
	Flags    string // VmFlags of /proc/PID/smaps, each between blanks: lo is locked, dd kept out of core files
}

func areas(t testing.TB, pid int) []Area {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []Area
	readable := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var a Area
		if n, _ := fmt.Sscanf(sc.Text(), "%x-%x ", &a.From, &a.To); n == 2 {
			if fs := strings.Fields(sc.Text()); len(fs) > 5 {
				a.Name = fs[5]
			}
			if readable = strings.Contains(sc.Text(), " r"); readable {
				out = append(out, a)
			}
		} else if v, ok := strings.CutPrefix(sc.Text(), "VmFlags:"); ok && readable {
			out[len(out)-1].Flags = " " + strings.TrimSpace(v) + " "
		}
	}
	return out
}

// Holding lists the mappings of a process in which the secret stands. Only root can
// look where a process is not dumpable; anybody else fails the test.
func Holding(t testing.TB, pid int, secret []byte) []Area {
	t.Helper()
	return SearchMemory(t, pid, len(secret), func(b []byte) bool { return bytes.Contains(b, secret) })
}

// SearchMemory lists the mappings of a process of which a piece has what is looked for,
// which is at most so many bytes long. A mapping is left at the first piece that has it.
func SearchMemory(t testing.TB, pid, length int, has func(piece []byte) bool) []Area {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var found []Area
	for _, a := range areas(t, pid) {
		const step = 1 << 20
		buf := make([]byte, step+length)
		for at := a.From; at < a.To; at += step {
			n, err := io.NewSectionReader(mem, int64(at), int64(min(uint64(len(buf)), a.To-at))).Read(buf)
			if err != nil && n == 0 {
				break // a guard page, or what the kernel keeps for itself
			}
			if has(buf[:n]) {
				found = append(found, a)
				break
			}
		}
	}
	return found
}

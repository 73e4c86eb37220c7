// Command hsmpeer is the other side of scripts/bench hsm: signatures without any
// process between. As "raw" it uses the bare binding and is what keyrite is measured
// against; as "pool" it uses the sessions of a module process without its socket. It
// is part of no program that is released, and the only one beside hsm/p11 that may
// import the binding.
//
// It is started with SIDE MODULE TOKEN SERIAL KEY and reads the user PIN as its first
// line. Then one line in: MODE WORKERS VERIFY SIGNATURES; one line out: CPU nanoseconds
// of the process, wall nanoseconds. In mode "held" each worker has a
// session when it signs, in mode "shared" (raw only) all share one behind a mutex.
//
// As "floor" it is the least honest signing service, which scripts/bench vault measures
// keyrite-vault against: see floor.go.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// workers is how many there can be, each with a session.
const workers = 8

// side signs for worker w.
type side interface {
	sign(w int, digest []byte, shared, verify bool) error
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hsmpeer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 5 {
		return errors.New("usage: hsmpeer raw|pool|floor MODULE TOKEN SERIAL KEY; scripts/bench starts it")
	}
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return errors.New("no PIN on standard input")
	}
	if args[0] == "floor" {
		return floor(args[1:], in)
	}
	var s side
	var err error
	if args[0] == "pool" {
		s, err = openPool(args[1], args[2], args[3], args[4], in.Bytes())
	} else {
		s, err = openRaw(args[1], args[2], args[3], args[4], in.Bytes())
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "ready")
	for in.Scan() {
		var mode string
		var n, total int
		var verify bool
		if _, err := fmt.Sscan(in.Text(), &mode, &n, &verify, &total); err != nil {
			return err
		}
		if mode != "held" && mode != "shared" || n < 1 || n > workers {
			return errors.New("no such loop")
		}
		if err := loop(s, mode == "shared", n, verify, int64(total)); err != nil {
			return err
		}
	}
	return in.Err()
}

// loop signs with n workers until there are so many signatures, and prints what that
// cost. A number and not a time: on a busy machine a process gets little of a time.
func loop(s side, shared bool, n int, verify bool, total int64) error {
	var made atomic.Int64
	errs := make([]error, n)
	var wg sync.WaitGroup
	from, used := time.Now(), cpuTime()
	for w := range n {
		wg.Go(func() {
			digest := make([]byte, 32)
			digest[0] = byte(w)
			for made.Add(1) <= total && errs[w] == nil {
				digest[1]++
				errs[w] = s.sign(w, digest, shared, verify)
			}
		})
	}
	wg.Wait()
	cpu, wall := cpuTime()-used, time.Since(from)
	fmt.Fprintln(os.Stdout, cpu.Nanoseconds(), wall.Nanoseconds())
	return errors.Join(errs...)
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

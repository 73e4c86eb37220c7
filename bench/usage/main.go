// Command usage runs a command and prints its CPU seconds (user and system) and
// its peak resident memory in KiB, which bash alone cannot tell. Only
// scripts/bench calls it.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: usage COMMAND [ARG…]")
		os.Exit(2)
	}
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "usage:", err)
		os.Exit(1)
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		fmt.Fprintln(os.Stderr, "usage:", err)
		os.Exit(1)
	}
	cpu := float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	fmt.Fprintf(os.Stdout, "%.3f %d\n", cpu, u.Maxrss)
}

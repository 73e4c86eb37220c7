// Command keyrite-hsmd stands between the programs of keyrite and a PKCS#11
// module. Started by a program it is the supervisor, which holds PINs and
// loads nothing; started by the supervisor it is the process that loads the
// module. It is the only program of keyrite that needs cgo, and it is not run
// by hand.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"keyrite/hsm/p11"
	"keyrite/hsm/supervise"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "keyrite-hsmd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "module" {
		return p11.Main()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return supervise.Main(ctx, args)
}

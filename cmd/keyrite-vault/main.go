// Command keyrite-vault is the online vault: it holds secrets under a seal and uses
// the keys of the work token, for processes that the charter knows. It is sealed until
// a quorum of key masters opens it, from wherever they are.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"keyrite/internal/cli"
	"keyrite/internal/secmem"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Secrets are opened in this process, so nobody else may read it.
	if err := secmem.Harden(); err != nil {
		fmt.Fprintln(os.Stderr, "keyrite-vault:", err)
		return 1
	}
	return cli.Run(ctx, newRoot(), os.Args[1:], cli.Std())
}

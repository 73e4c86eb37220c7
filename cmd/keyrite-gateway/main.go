// Command keyrite-gateway is the box in the machine's cabinet: born in a
// factory, member of an account, reachable by whom the account's own policy
// lets in, and started only with what headquarters signed.
//
// It only ever dials out; no command listens on any network.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"keyrite/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, newRoot(), os.Args[1:], cli.Std())
}

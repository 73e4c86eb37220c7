// Command keyrite-station is the factory's program: it imports what headquarters
// permits, brings devices to life within it, counts each one, and reports. It
// holds the factory's token and nothing of a vault.
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

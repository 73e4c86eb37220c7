// Command keyrite-connect is the engineer's program: log in, list gateways, reach
// one device behind one of them. For an account's administrator it makes the policy
// key and signs the policy, which no server can do.
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

// Command keyrite-relay is the cloud side: the access role, which authenticates
// and places, and the VPN role, which joins users and gateways. It holds public
// anchors and verifies everything; what a captured relay can do is deny.
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

// Command keyrite-verify checks every file that leaves a keyrite vault. It is
// what witnesses, auditors, pipelines and customers run: it holds no secret,
// needs no network, and takes nothing on trust but the anchors file it is given.
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

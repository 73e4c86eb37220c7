// Command keyrite is the program of key masters, release and provisioning
// people: ceremonies, shares, charter, releases, bundles and the way back from
// any file to the ceremony where its key was born.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/secmem"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	std := cli.Std()
	// People's keys are opened in this process, so nobody else may read it.
	if err := secmem.Harden(); err != nil {
		fmt.Fprintln(os.Stderr, "keyrite:", err)
		os.Exit(1)
	}
	code := cli.Run(ctx, newRoot(std), os.Args[1:], std)
	stop()
	os.Exit(code)
}

func newRoot(std cli.IO) *cobra.Command {
	root := &cobra.Command{
		Use:   "keyrite",
		Short: "Key ceremonies and code signing for connected machines",
	}
	for _, sub := range []*cobra.Command{
		newPerson(std),
		newCeremony(std),
		newShare(std),
		newHSM(std),
		newTrace(),
		newCharterGroup(std),
		newEvidence(),
		newRelease(std),
		newProvision(std),
		newShareChild(),
	} {
		root.AddCommand(sub)
	}
	return root
}

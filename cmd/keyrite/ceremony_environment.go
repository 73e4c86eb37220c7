package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/ceremony/actions"
	"keyrite/internal/cli"
)

func newCeremonyEnvironment() *cobra.Command {
	return &cobra.Command{
		Use:   "environment",
		Short: "Show what a ceremony would record of this computer",
		Long: `Show what a ceremony would write into its record of this computer: network,
swap, core dumps, kernel, devices. Run it before the day; the boot image of
scripts/ceremony-image runs it at every start.

Exit codes: 0 fit for a live ceremony, 13 network or swap is on.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCeremonyEnvironment(c) },
	}
}

func runCeremonyEnvironment(c *cobra.Command) error {
	env := actions.Environment()
	for _, name := range []string{"network", "swap"} {
		if env[name] != "none" {
			return fault.Hint(fault.Errorf(fault.Policy, "%s is on: %s", name, env[name]), "take the computer off the network and switch swap off, or start it from the ceremony image")
		}
	}
	res := struct {
		Schema      string            `json:"schema"`
		Environment map[string]string `json:"environment"`
	}{"keyrite/ceremony-environment/v1", env}
	return cli.Print(c, res, func(w io.Writer) {
		for _, name := range slices.Sorted(maps.Keys(env)) {
			fmt.Fprintf(w, "%-12s %s\n", name, env[name])
		}
		fmt.Fprintln(w, "fit for a live ceremony")
	})
}

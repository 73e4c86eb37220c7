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
swap, core dumps, clock, kernel, devices. Run it before the day; the boot image of
scripts/ceremony-image runs it at every start.

Exit codes: 0 fit for a live ceremony, 13 not, and what is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCeremonyEnvironment(c) },
	}
}

func runCeremonyEnvironment(c *cobra.Command) error {
	env, err := actions.Environment(&actions.Bind{})
	if err != nil {
		return err
	}
	for _, want := range [][2]string{{"network", "none"}, {"swap", "none"}, {"core_dumps", "none"}, {"clock", "UTC"}} {
		if got := env[want[0]]; got != want[1] {
			return fault.Hint(fault.Errorf(fault.Policy, "%s is %s, a live ceremony wants %s", want[0], got, want[1]), "start the computer from the ceremony image: docs/operations/ceremony-image.md")
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

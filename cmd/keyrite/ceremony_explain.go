package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
)

func withoutCancel(c *cobra.Command) context.Context { return context.WithoutCancel(c.Context()) }

func newCeremonyExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain SCRIPT",
		Short: "Say in plain words what a script does",
		Long: `Say what the ceremony will make, who must be there, who can do what afterwards,
and what can go wrong.

Exit codes: 0 explained, 2 the script has a fault.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, _, err := loadScript(args[0])
			if err != nil {
				return err
			}
			res := struct {
				Schema string   `json:"schema"`
				Lines  []string `json:"lines"`
			}{"keyrite/ceremony-explain/v1", s.Explain()}
			return cli.Print(c, res, func(w io.Writer) {
				for _, l := range res.Lines {
					fmt.Fprintln(w, cli.Escape(l))
				}
			})
		},
	}
}

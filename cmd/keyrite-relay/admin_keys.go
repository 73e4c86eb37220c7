package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/relay/node"
)

func newInitKeys() *cobra.Command {
	var dir, out string
	c := &cobra.Command{
		Use:   "init-keys --state-dir DIR --out DIR",
		Short: "Make the server keys and their certificate requests",
		Long: `Make the server keys of the access and vpn roles in the state folder, and
write access.csr and vpn.csr, which a ceremony certifies under the relay CA.

Exit codes: 0 made; 16 the keys or requests exist.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needState(dir); err != nil {
				return err
			}
			if out == "" {
				return cli.Usagef("--out is missing")
			}
			csrs, err := node.InitKeys(dir)
			if err != nil {
				return err
			}
			for role, csr := range csrs {
				if err := durable.WriteNew(filepath.Join(out, role+".csr"), csr, 0o644); err != nil {
					return err
				}
			}
			return done(c, "keyrite/relay-init-keys/v1", map[string]any{"out": out}, "made the keys of access and vpn; requests in %s", out)
		},
	}
	stateFlag(c, &dir)
	c.Flags().StringVar(&out, "out", "", "folder for access.csr and vpn.csr (required)")
	return c
}

func newInit() *cobra.Command {
	var dir, anchors string
	c := &cobra.Command{
		Use:   "init --state-dir DIR --anchor FILE",
		Short: "Make the relay's state for one world",
		Long: `Make the database and the ticket key of a relay, for the world and vault of the
anchors. A relay serves one world for ever.

Exit codes: 0 made; 2 anchors missing; 14 anchors altered; 16 the state exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needState(dir); err != nil {
				return err
			}
			a, err := loadAnchors(anchors)
			if err != nil {
				return err
			}
			if err := node.Init(c.Context(), dir, a); err != nil {
				return err
			}
			return done(c, "keyrite/relay-init/v1", map[string]any{"world": a.World}, "made a relay of world %s", a.World)
		},
	}
	stateFlag(c, &dir)
	c.Flags().StringVar(&anchors, "anchor", "", "anchors file (required)")
	return c
}

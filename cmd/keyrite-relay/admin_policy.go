package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/policy"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/relay/node"
)

func newSetPolicy() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "set-policy ACCOUNT FILE --state-dir DIR",
		Short: "Store a policy that the account signed",
		Long: `Store a policy that the account signed. The relay offers it to the account's
gateways and users and refuses what it does not permit; it cannot change it.

Exit codes: 0 stored; 13 not newer than the one in force, or of another account
or world; 14 not signed by the account's policy key, or not valid.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, a []string) error {
			data, err := intake.Read(a[1], policy.MaxBytes)
			if err != nil {
				return err
			}
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				p, err := s.Registry.SetPolicy(ctx, a[0], data)
				if err != nil {
					return err
				}
				return done(c, "keyrite/relay-set-policy/v1", map[string]any{"account": a[0], "version": p.Version}, "account %s has policy version %d", a[0], p.Version)
			})
		},
	}
	stateFlag(c, &dir)
	return c
}

func newAudit() *cobra.Command {
	var dir, account string
	verify := &cobra.Command{
		Use: "verify --state-dir DIR", Short: "Recompute the trail and print its head", Args: cobra.NoArgs,
		Long: `Recompute the Merkle tree of the audit trail from its entries and print size and
root. Note them elsewhere: a later trail that does not continue them was changed.

Exit codes: 0 whole; 14 an entry was changed or is missing.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				h, err := s.Trail.Verify(ctx)
				if err != nil {
					return err
				}
				return done(c, "keyrite/relay-audit/v1", map[string]any{"size": h.Size, "root": h.Root}, "%d entries, root %s", h.Size, h.Root)
			})
		},
	}
	stateFlag(verify, &dir)
	export := &cobra.Command{
		Use: "export --state-dir DIR [--account ACCOUNT]", Short: "Print the trail as JSON lines", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if cli.JSON(c) {
				return cli.Usagef("the export is JSON lines already; leave --json out")
			}
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				return s.Trail.Export(ctx, account, func(line []byte) error { return write(c.OutOrStdout(), line) })
			})
		},
	}
	stateFlag(export, &dir)
	export.Flags().StringVar(&account, "account", "", "only the entries of this account")
	c := &cobra.Command{Use: "audit", Short: "Read the audit trail"}
	c.AddCommand(verify, export)
	return c
}

func write(w io.Writer, line []byte) error {
	if _, err := fmt.Fprintf(w, "%s\n", line); err != nil {
		return fmt.Errorf("print entry: %w", err)
	}
	return nil
}

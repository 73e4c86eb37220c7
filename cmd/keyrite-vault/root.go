package main

import (
	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyrite-vault",
		Short: "Run a vault, and open and seal it",
		Long: `Run a vault, and open and seal it.

'create' makes the state folder and the host's keys; approvers then put the host into
the charter. 'serve' runs the vault, sealed. 'unseal' asks the key masters for their
shares, each of whom answers from his own machine with 'keyrite share open', and hands
the answers in. docs/operations/vault.md goes through all of it.`,
	}
	for _, sub := range []*cobra.Command{
		newCreate(), newServe(), newStatus(), newUnseal(), newSeal(), newAudit(), newCosigner(), newTPM(),
		// Processes of their own, started by the vault itself.
		{
			Use: quorum.ChildCommand, Hidden: true, Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return quorum.Child() },
		},
		{
			Use: seal.CheckCommand + " FILE", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return seal.CheckMain(args[0]) },
		},
	} {
		root.AddCommand(sub)
	}
	return root
}

// placeOptions say which vault is meant: its binding and its state folder.
type placeOptions struct{ bind, stateDir string }

func (o *placeOptions) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.bind, "bind", "", "binding file of the vault (required)")
	c.Flags().StringVar(&o.stateDir, "state-dir", "", "folder of the vault's state (required)")
}

func (o *placeOptions) check() error {
	if o.bind == "" || o.stateDir == "" {
		return cli.Usagef("--bind and --state-dir are required")
	}
	return nil
}

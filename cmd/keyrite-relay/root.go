package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/succession"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

const (
	maxAnchorBytes     = 1 << 20
	maxCharterBytes    = 64 << 20
	maxAcceptanceBytes = 16 << 20
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyrite-relay",
		Short: "Run the relay that gateways and users meet at",
		Long: `Run the relay that gateways and users meet at, and manage its accounts.

The relay holds only public anchors. It checks every device against the birth
root and the acceptances that headquarters signed, and every flow against the
policy that the account signed, which it cannot change.`,
	}
	admin := &cobra.Command{Use: "admin", Short: "Manage the relay's keys, accounts and devices"}
	admin.AddCommand(newInitKeys(), newInit(), newImportAcceptance(), newAccount(), newUser(), newGateway(), newSetPolicy(), newAudit())
	root.AddCommand(newServe(), admin)
	return root
}

// stateFlag adds --state-dir.
func stateFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "state-dir", "", "folder of the relay's state (required)")
}

func needState(dir string) error {
	if dir == "" {
		return cli.Usagef("--state-dir is missing")
	}
	return nil
}

var errNoAnchor = errors.New("--anchor is missing")

func loadAnchors(path string) (*anchor.Anchors, error) {
	if path == "" {
		return nil, &cli.Error{Class: "usage", Err: errNoAnchor, Hint: "pass --anchor anchors.json, the file from the genesis whose hash you have on paper"}
	}
	data, err := intake.Read(path, maxAnchorBytes)
	if err != nil {
		return nil, err
	}
	return anchor.Parse(data)
}

// anchorsInForce reads the anchors under a succession statement, if there is one.
func anchorsInForce(path, statement string) (*anchor.Anchors, error) {
	a, err := loadAnchors(path)
	if err != nil || statement == "" {
		return a, err
	}
	data, err := intake.Read(statement, succession.MaxBytes)
	if err != nil {
		return nil, err
	}
	s, err := succession.Verify(data, a)
	if err != nil {
		return nil, err
	}
	return succession.Apply(a, s)
}

// done prints the result of a command that changed something.
func done(c *cobra.Command, schema string, v map[string]any, format string, args ...any) error {
	v["schema"] = schema
	return cli.Print(c, v, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

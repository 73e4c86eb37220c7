package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

const maxAnchorBytes = 1 << 20

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyrite-connect",
		Short: "Reach equipment behind a gateway",
		Long: `Reach equipment behind a gateway, through the relay, which can neither read nor
redirect what you send: your key and the gateway's shake hands end to end, and
what you may reach stands in the policy that your account signed.`,
	}
	pol := &cobra.Command{Use: "policy", Short: "Write and sign an account policy (for administrators)"}
	pol.AddCommand(newPolicyNew(), newPolicySign())
	root.AddCommand(newKey(), newLogin(), newLogout(), newList(), newConnect(), newCheck(), newDisconnect(), newStatus(), newPolicyKey(), newActivation(), pol)
	return root
}

// stateFlag adds --state-dir; without it the user's own folder is taken.
func stateFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "state-dir", "", "folder of your client key and login (default: keyrite-connect in your configuration folder)")
}

func stateDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	base, err := os.UserConfigDir()
	if err != nil {
		return "", cli.Usagef("--state-dir is missing and there is no configuration folder: %v", err)
	}
	return filepath.Join(base, "keyrite-connect"), nil
}

var errNoAnchor = errors.New("--anchor is missing")

func loadAnchors(path string) (*anchor.Anchors, error) {
	if path == "" {
		return nil, &cli.Error{Class: "usage", Err: errNoAnchor, Hint: "pass --anchor anchors.json, the file from the genesis; your administrator has it"}
	}
	data, err := intake.Read(path, maxAnchorBytes)
	if err != nil {
		return nil, err
	}
	return anchor.Parse(data)
}

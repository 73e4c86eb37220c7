package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/succession"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
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

// statementFile is the succession statement in the state folder.
const statementFile = "succession.json"

// anchorsInForce reads the anchors under the succession statement that is given or, in
// the state folder, kept. One that was taken counts from then on, also when it is not
// given; an older one is refused.
func anchorsInForce(dir, path, statement string) (*anchor.Anchors, error) {
	a, err := loadAnchors(path)
	if err != nil {
		return nil, err
	}
	var offered []byte
	if statement != "" {
		if offered, err = intake.Read(statement, succession.MaxBytes); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(dir, statementFile)
	kept, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		kept, err = nil, nil
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read the succession statement: %w", err)
	}
	now, inForce, err := succession.Renew(a, kept, offered)
	if err != nil || bytes.Equal(now, kept) {
		return inForce, err
	}
	if _, err := os.Stat(dir); err != nil {
		return inForce, nil //nolint:nilerr // there is no state; whoever needs it says so
	}
	return inForce, durable.Replace(file, now, 0o644)
}

// done prints the result of a command that changed something.
func done(c *cobra.Command, schema string, v map[string]any, format string, args ...any) error {
	v["schema"] = schema
	return cli.Print(c, v, func(w io.Writer) { fmt.Fprintf(w, format+"\n", args...) })
}

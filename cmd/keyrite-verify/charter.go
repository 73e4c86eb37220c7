package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

// maxCharterBytes bounds a charter file.
const maxCharterBytes = 64 << 20

// charterFlag adds --charter to a command that may need what the charter says.
func charterFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "charter", "", "charter file (default charter.jsonl beside the anchors, if it is there)")
}

// loadCharter folds the charter named by path, or the one beside the anchors. It
// is nil without an error if none is named and none is there.
func loadCharter(path, anchorPath string, a *anchor.Anchors) (*charter.State, error) {
	if path == "" {
		path = filepath.Join(filepath.Dir(anchorPath), "charter.jsonl")
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			return nil, nil
		}
	}
	data, err := intake.Read(path, maxCharterBytes)
	if err != nil {
		return nil, err
	}
	return charter.Fold(data, a.World, a.Vault)
}

// needCharter is loadCharter for a command that cannot do without.
func needCharter(path, anchorPath string, a *anchor.Anchors) (*charter.State, error) {
	s, err := loadCharter(path, anchorPath, a)
	if err == nil && s == nil {
		err = &cli.Error{Class: "usage", Err: errNoCharter, Hint: "pass --charter charter.jsonl: factories and stations stand there, not in the anchors"}
	}
	return s, err
}

package main

import (
	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/succession"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

// maxAnchorBytes bounds an anchors file.
const maxAnchorBytes = 1 << 20

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyrite-verify",
		Short: "Verify what a keyrite vault signed",
		Long: `Verify the files that leave a keyrite vault, offline.

Every command needs --anchor FILE: the anchors file that came out of the
genesis ceremony and whose hash was read aloud there. Without it nothing can
be believed and the program exits 2. It exits 14 when a file was altered or
does not parse, and 13 when the file belongs to another world.`,
	}
	for _, sub := range []*cobra.Command{
		newRecord(),
		newCosign(),
		newCharter(),
		newFirmware(),
		newLog(),
		newAudit(),
		newBundle(),
		newReport(),
		newAcceptance(),
		newBirthcert(),
		newPolicy(),
		newShareProof(),
		newInspection(),
		newOpenRequest(),
	} {
		root.AddCommand(sub)
	}
	return root
}

// anchorFlag adds --anchor to a command.
func anchorFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "anchor", "", "anchors file of the world to verify against (required)")
}

// anchorFlags adds --anchor and --succession.
func anchorFlags(c *cobra.Command, o *anchorOptions) {
	anchorFlag(c, &o.anchor)
	c.Flags().StringVar(&o.succession, "succession", "", "succession statement: which keys of the anchors have been replaced since")
}

// anchorOptions name what to verify against.
type anchorOptions struct{ anchor, succession string }

// loadAnchors reads the anchors in force.
func (o *anchorOptions) loadAnchors() (*anchor.Anchors, error) {
	a, err := loadAnchors(o.anchor)
	if err != nil || o.succession == "" {
		return a, err
	}
	data, err := intake.Read(o.succession, succession.MaxBytes)
	if err != nil {
		return nil, err
	}
	s, err := succession.Verify(data, a)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "succession %q: %w", o.succession, err)
	}
	return succession.Apply(a, s)
}

// loadAnchors reads the anchors; without a path there is nothing to verify
// against.
func loadAnchors(path string) (*anchor.Anchors, error) {
	if path == "" {
		return nil, &cli.Error{Class: "usage", Err: errNoAnchor, Hint: "pass --anchor anchors.json, the file from the genesis whose hash you have on paper"}
	}
	data, err := intake.Read(path, maxAnchorBytes)
	if err != nil {
		return nil, err
	}
	a, err := anchor.Parse(data)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "anchors %q: %w", path, err)
	}
	return a, nil
}

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/bundle"
	"keyrite/artifact/jcs"
	"keyrite/artifact/succession"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/provisioning/station"
)

type importOptions struct {
	stateDir, anchor, charter, succession string
}

func newImport() *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use:   "import BUNDLE --state-dir DIR --anchor FILE --charter FILE [--succession FILE]",
		Short: "Take a bundle of headquarters",
		Long: `Take a bundle: both provisioning keys signed it, it is of this world, for this
factory and station, the next one in sequence, for serials never given out, valid
now, and its CA is the key in this station's token. Nothing is kept otherwise.

The first import binds the station to the anchors; compare the words it prints
with those on your sheet from the genesis. A later charter must continue the
known one, and so must a later succession statement (--succession), which says
which keys of the anchors gave way. Once one was taken it counts without being
given again; nothing more is born under bundles of keys that gave way, which are
still closed and reported.

Exit codes: 0 taken; 2 unusable files; 10 one signature only; 13 refused: other
world, factory or station, expired, replayed, out of sequence, an older statement;
14 altered;
15 the station is in use.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runImport(c, o, args[0]) },
	}
	stateFlag(c, &o.stateDir)
	c.Flags().StringVar(&o.anchor, "anchor", "", "anchors file of the vault (required)")
	c.Flags().StringVar(&o.charter, "charter", "", "charter file of the vault (required)")
	c.Flags().StringVar(&o.succession, "succession", "", "succession statement, if a key of the anchors was replaced")
	for _, name := range []string{"anchor", "charter"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type importResult struct {
	Schema   string         `json:"schema"`
	World    string         `json:"world"`
	BundleID string         `json:"bundle_id"`
	Seq      int            `json:"seq"`
	Product  string         `json:"product"`
	Quota    int64          `json:"quota"`
	Ranges   []bundle.Range `json:"ranges"`
	NotAfter string         `json:"not_after"`
	Anchors  string         `json:"anchors_hash"`
}

func runImport(c *cobra.Command, o importOptions, path string) (err error) {
	var file []byte
	var with station.Files
	for _, f := range []struct {
		path  string
		limit int64
		into  *[]byte
	}{{path, jcs.MaxBytes, &file}, {o.anchor, 1 << 20, &with.Anchors}, {o.charter, 64 << 20, &with.Charter}, {o.succession, succession.MaxBytes, &with.Succession}} {
		if f.path == "" && f.into == &with.Succession {
			continue
		}
		if *f.into, err = intake.Read(f.path, f.limit); err != nil {
			return err
		}
	}
	s, err := open(o.stateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	first := s.Anchors() == nil
	b, err := s.Import(file, with)
	if err != nil {
		return err
	}
	hash, err := s.Anchors().Hash()
	if err != nil {
		return err
	}
	words, err := s.Anchors().Words()
	if err != nil {
		return err
	}
	r := importResult{"keyrite/station-import/v1", string(b.World), b.BundleID, b.Seq, b.Product, b.Quota, b.Ranges, b.NotAfter, hash}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "imported bundle %s, number %d: %d devices %s until %s (%s)\n", b.BundleID, b.Seq, b.Quota, b.Product, b.NotAfter, b.World)
		if first {
			fmt.Fprintf(w, "this station now belongs to the anchors with these words; compare them with your sheet:\n  %s\n", words)
		}
	})
}

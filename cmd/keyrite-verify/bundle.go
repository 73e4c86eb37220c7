package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/bundle"
	"keyrite/artifact/jcs"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

var errNoCharter = errors.New("no charter is given")

type bundleOptions struct {
	anchorOptions
	charter string
}

func newBundle() *cobra.Command {
	var o bundleOptions
	c := &cobra.Command{
		Use:   "bundle FILE --anchor FILE",
		Short: "Verify a provisioning bundle",
		Long: `Verify that headquarters signed a provisioning bundle with both provisioning
keys, that its factory CA is certified by the birth root for the serials it
gives out and, with a charter, that factory and station stand there.

Whether it is the next one of the factory and still valid only the station can
say, which knows what it has imported and what time it is.

Exit codes: 0 verified, 2 not usable, 10 one signature only, 13 of another world,
factory or product line, 14 altered or not parseable.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runBundle(c, o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	charterFlag(c, &o.charter)
	return c
}

type bundleResult struct {
	Schema    string         `json:"schema"`
	World     string         `json:"world"`
	BundleID  string         `json:"bundle_id"`
	Hash      string         `json:"hash"`
	Factory   string         `json:"factory"`
	Stations  []string       `json:"stations"`
	Product   string         `json:"product"`
	Hardware  string         `json:"hardware"`
	Quota     int64          `json:"quota"`
	Ranges    []bundle.Range `json:"ranges"`
	Seq       int            `json:"seq"`
	NotBefore string         `json:"not_before"`
	NotAfter  string         `json:"not_after"`
	Charter   bool           `json:"charter_checked"`
}

func runBundle(c *cobra.Command, o bundleOptions, path string) error {
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	state, err := loadCharter(o.charter, o.anchor, anchors)
	if err != nil {
		return err
	}
	data, err := intake.Read(path, jcs.MaxBytes)
	if err != nil {
		return err
	}
	b, err := bundle.Verify(data, anchors)
	if err != nil {
		return err
	}
	if state != nil {
		if err := b.CheckCharter(state); err != nil {
			return err
		}
	}
	hash, err := b.Hash()
	if err != nil {
		return err
	}
	r := bundleResult{
		"keyrite/verify-bundle/v1", string(b.World), b.BundleID, hash, b.Factory, b.Stations, b.Product, b.Hardware,
		b.Quota, b.Ranges, b.Seq, b.NotBefore, b.NotAfter, state != nil,
	}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "verified: bundle %s, number %d of %s (%s)\n", b.BundleID, b.Seq, b.Factory, b.World)
		fmt.Fprintf(w, "  permits    %d devices %s, %s\n", b.Quota, b.Product, b.Hardware)
		for _, x := range b.Ranges {
			fmt.Fprintf(w, "  serials    %d to %d\n", x.From, x.To)
		}
		fmt.Fprintf(w, "  station    %s\n  valid      %s to %s\n", strings.Join(b.Stations, ", "), b.NotBefore, b.NotAfter)
		fmt.Fprintf(w, "  charter    %s\n", checkedOrNot(state != nil))
	})
}

func checkedOrNot(b bool) string {
	if b {
		return "factory and station stand in it"
	}
	return "not given, so only the birth root vouches for the factory"
}

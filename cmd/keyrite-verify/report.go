package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/bundle"
	"keyrite/artifact/jcs"
	"keyrite/artifact/report"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

type reportOptions struct {
	anchorOptions
	charter, bundle string
}

func newReport() *cobra.Command {
	var o reportOptions
	c := &cobra.Command{
		Use:   "report FILE --anchor FILE [--bundle FILE]",
		Short: "Verify a production report",
		Long: `Verify that a station of the charter signed a production report, that its rows
give the root it states and its totals are those of the rows; with --bundle also
that every serial and certificate is one that the bundle permits.

A verified report admits no device: the acceptance that headquarters signs does.

Exit codes: 0 verified, 2 not usable (also no charter), 13 of another world,
station or bundle, or more than the quota, 14 altered or not parseable.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runReport(c, o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	charterFlag(c, &o.charter)
	c.Flags().StringVar(&o.bundle, "bundle", "", "bundle that the report answers, to be checked against")
	return c
}

type reportResult struct {
	Schema      string        `json:"schema"`
	World       string        `json:"world"`
	Hash        string        `json:"hash"`
	BundleID    string        `json:"bundle_id"`
	Factory     string        `json:"factory"`
	Station     string        `json:"station"`
	Counts      report.Counts `json:"counts"`
	Quota       int64         `json:"quota"`
	Lowest      string        `json:"lowest"`
	Highest     string        `json:"highest"`
	QuotaLayers []string      `json:"quota_layers"`
	Bundle      bool          `json:"bundle_checked"`
}

func runReport(c *cobra.Command, o reportOptions, path string) error {
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	state, err := needCharter(o.charter, o.anchor, anchors)
	if err != nil {
		return err
	}
	data, err := intake.Read(path, jcs.MaxBytes)
	if err != nil {
		return err
	}
	r, err := report.Verify(data, anchors, state)
	if err != nil {
		return err
	}
	if o.bundle != "" {
		data, err := intake.Read(o.bundle, jcs.MaxBytes)
		if err != nil {
			return err
		}
		b, err := bundle.Verify(data, anchors)
		if err != nil {
			return err
		}
		if err := r.CheckBundle(b); err != nil {
			return err
		}
	}
	hash, err := r.Hash()
	if err != nil {
		return err
	}
	out := reportResult{
		"keyrite/verify-report/v1", string(r.World), hash, r.Bundle.ID, r.Factory, r.Station, r.Counts, r.Quota,
		string(r.Lowest), string(r.Highest), r.QuotaLayers, o.bundle != "",
	}
	return cli.Print(c, out, func(w io.Writer) {
		fmt.Fprintf(w, "verified: report of %s/%s on bundle %s (%s)\n", r.Factory, r.Station, r.Bundle.ID, r.World)
		fmt.Fprintf(w, "  units      %d confirmed, %d scrapped, %d certificates signed, quota %d\n", r.Counts.Confirmed, r.Counts.Scrapped, r.Counts.Signed, r.Quota)
		fmt.Fprintf(w, "  serials    %s to %s\n", r.Lowest, r.Highest)
		for _, l := range r.QuotaLayers {
			fmt.Fprintf(w, "  quota by   %s\n", l)
		}
		if o.bundle == "" {
			fmt.Fprintln(w, "  bundle     not given, so ranges and certificates were not checked")
		}
	})
}

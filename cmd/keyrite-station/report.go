package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/report"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
)

func newReport() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "report --state-dir DIR",
		Short: "Show how far the open bundle is",
		Long: `Show the totals of the oldest open bundle as its report would have them now. Only
close signs one.

Exit codes: 0; 13 no bundle is open; 14 the ledger was altered; 15 the station is
in use.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runReport(c, dir) },
	}
	stateFlag(c, &dir)
	return c
}

type reportResult struct {
	Schema   string        `json:"schema"`
	World    string        `json:"world"`
	BundleID string        `json:"bundle_id"`
	Counts   report.Counts `json:"counts"`
	Quota    int64         `json:"quota"`
	Lowest   string        `json:"lowest"`
	Highest  string        `json:"highest"`
	Root     string        `json:"root"`
	Out      string        `json:"out,omitempty"`
}

func resultOf(schema string, r *report.Report, out string) reportResult {
	return reportResult{schema, string(r.World), r.Bundle.ID, r.Counts, r.Quota, string(r.Lowest), string(r.Highest), r.Root, out}
}

func showReport(w io.Writer, r *report.Report) {
	fmt.Fprintf(w, "  units      %d confirmed, %d scrapped, of %d (%s to %s)\n", r.Counts.Confirmed, r.Counts.Scrapped, r.Quota, r.Lowest, r.Highest)
	for _, l := range r.QuotaLayers {
		fmt.Fprintf(w, "  quota by   %s\n", l)
	}
}

func runReport(c *cobra.Command, dir string) (err error) {
	s, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r, err := s.Draft()
	if err != nil {
		return err
	}
	return cli.Print(c, resultOf("keyrite/station-report/v1", r, ""), func(w io.Writer) {
		fmt.Fprintf(w, "bundle %s is open (%s)\n", r.Bundle.ID, r.World)
		showReport(w, r)
	})
}

type closeOptions struct {
	stateDir, out, scrapOpen string
}

func newClose() *cobra.Command {
	var o closeOptions
	c := &cobra.Command{
		Use:   "close --state-dir DIR --out REPORT",
		Short: "End the oldest open bundle and sign its report",
		Long: `End the oldest open bundle: its report, with every serial taken, is signed by the
report key in the token, and no device is born under it any more. Units under way
are a refusal, or scrapped with the reason given by --scrap-open.

When everything is closed, the last report is written once more.

Exit codes: 0 closed; 12 token or PIN file; 13 no bundle, or units under way;
14 the ledger was altered; 15 the station is in use; 16 the output exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runClose(c, o) },
	}
	stateFlag(c, &o.stateDir)
	c.Flags().StringVar(&o.out, "out", "", "report file to write (required)")
	c.Flags().StringVar(&o.scrapOpen, "scrap-open", "", "reason with which units under way are scrapped")
	_ = c.MarkFlagRequired("out") // fails only for a flag that does not exist
	return c
}

func runClose(c *cobra.Command, o closeOptions) (err error) {
	f, err := durable.Create(o.out, 0o644) // before anything is final
	if err != nil {
		return err
	}
	defer f.Abort()
	s, end, err := openWithToken(o.stateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	r, file, err := s.CloseBundle(c.Context(), o.scrapOpen)
	if err != nil {
		return err
	}
	if err := f.Finish(file); err != nil {
		return err
	}
	return cli.Print(c, resultOf("keyrite/station-close/v1", r, o.out), func(w io.Writer) {
		fmt.Fprintf(w, "closed bundle %s; report %s (%s)\n", r.Bundle.ID, cli.Escape(o.out), r.World)
		showReport(w, r)
	})
}

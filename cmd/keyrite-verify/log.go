package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/firmware"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

type logOptions struct {
	anchorOptions
	bundle string
}

func newLog() *cobra.Command {
	var o logOptions
	c := &cobra.Command{
		Use:   "log PROOF --bundle FILE --anchor FILE",
		Short: "Verify that the release log holds a release",
		Long: `Verify a log proof (c2sp.org/tlog-proof): the checkpoint is signed by the log
key of the anchors, and the signed statement in the bundle is an entry of the
tree that it states.

Exit codes: 0 verified, 2 not usable, 13 of another world or vault, 14 altered
or not parseable.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runLog(c, o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	c.Flags().StringVar(&o.bundle, "bundle", "", "Sigstore bundle of the release (required)")
	return c
}

type logResult struct {
	Schema  string `json:"schema"`
	World   string `json:"world"`
	Index   int64  `json:"index"`
	Product string `json:"product"`
	Version string `json:"version"`
}

func runLog(c *cobra.Command, o logOptions, path string) error {
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	if o.bundle == "" {
		return cli.Usagef("--bundle is missing: the proof is about the statement in it")
	}
	trust, err := firmware.TrustOf(anchors)
	if err != nil {
		return err
	}
	proof, err := intake.Read(path, firmware.MaxProofBytes)
	if err != nil {
		return err
	}
	bundle, err := intake.Read(o.bundle, firmware.MaxBundleBytes)
	if err != nil {
		return err
	}
	s, err := firmware.Open(bundle, trust)
	if err != nil {
		return err
	}
	p, err := firmware.CheckProof(proof, bundle, trust)
	if err != nil {
		return err
	}
	r := logResult{"keyrite/verify-log/v1", string(trust.World), p.Index, s.Predicate.Product, s.Predicate.Version}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "verified: entry %d of the release log is %s %s\n", r.Index, r.Product, r.Version)
	})
}

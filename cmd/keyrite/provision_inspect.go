package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/bundle"
	"keyrite/artifact/jcs"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

func newProvisionInspect() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a provisioning bundle says, without verifying it",
		Long: `Show what a provisioning bundle says. Nothing is verified, and the first line
says so; verify with: keyrite-verify bundle FILE --anchor FILE.

Exit codes: 0 shown; 2 unusable file; 14 not a bundle.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runProvisionInspect(c, args[0]) },
	}
}

type provisionInspectResult struct {
	Schema   string         `json:"schema"`
	Verified bool           `json:"verified"`
	Bundle   *bundle.Bundle `json:"bundle"`
}

func runProvisionInspect(c *cobra.Command, path string) error {
	data, err := intake.Read(path, jcs.MaxBytes)
	if err != nil {
		return err
	}
	b, env, err := bundle.Parse(data)
	if err != nil {
		return err
	}
	return cli.Print(c, provisionInspectResult{"keyrite/provision-inspect/v1", false, b}, func(w io.Writer) {
		fmt.Fprintf(w, "NOT VERIFIED. What the file says, with %d signatures on it:\n", len(env.Signatures))
		fmt.Fprintf(w, "  bundle     %s, number %d of factory %s, for %v\n", b.BundleID, b.Seq, b.Factory, b.Stations)
		fmt.Fprintf(w, "  world      %s\n  permits    %d devices %s, %s\n", b.World, b.Quota, b.Product, b.Hardware)
		for _, r := range b.Ranges {
			fmt.Fprintf(w, "  serials    %d to %d\n", r.From, r.To)
		}
		fmt.Fprintf(w, "  valid      %s to %s\n  assurance  %s\n", b.NotBefore, b.NotAfter, b.Assurance)
	})
}

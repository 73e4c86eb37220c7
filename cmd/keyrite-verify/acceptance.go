package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/jcs"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

func newAcceptance() *cobra.Command {
	var o anchorOptions
	c := &cobra.Command{
		Use:   "acceptance FILE… --anchor FILE",
		Short: "Verify acceptances of production reports",
		Long: `Verify that headquarters signed each acceptance with the acceptance key and that
no device stands in two of them.

Exit codes: 0 verified, 2 not usable, 13 of another world, or a device twice,
14 altered or not parseable.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runAcceptance(c, o, args) },
	}
	anchorFlags(c, &o)
	return c
}

type acceptanceResult struct {
	Schema  string              `json:"schema"`
	World   string              `json:"world"`
	Devices []acceptance.Device `json:"devices"`
	Reports []string            `json:"reports"`
}

func runAcceptance(c *cobra.Command, o anchorOptions, paths []string) error {
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	r := acceptanceResult{Schema: "keyrite/verify-acceptance/v1", World: string(anchors.World), Devices: []acceptance.Device{}, Reports: []string{}}
	registry := acceptance.NewRegistry(anchors)
	for _, p := range paths {
		data, err := intake.Read(p, jcs.MaxBytes)
		if err != nil {
			return err
		}
		a, err := registry.Add(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		r.Devices, r.Reports = append(r.Devices, a.Devices...), append(r.Reports, a.ReportHash)
	}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "verified: %d devices accepted of %d reports (%s)\n", len(r.Devices), len(r.Reports), r.World)
		for _, d := range r.Devices {
			fmt.Fprintf(w, "  %s  certificate %.16s…  %s\n", d.DeviceSerial, d.CertHash, d.Assurance)
		}
	})
}

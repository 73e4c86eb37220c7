package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/jcs"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/provisioning/accept"
	"keyrite/provisioning/ledger"
)

type provisionAcceptOptions struct {
	trustOptions
	stateDir, out, bundle string
}

func newProvisionAccept(token opener) *cobra.Command {
	var o provisionAcceptOptions
	c := &cobra.Command{
		Use:   "accept REPORT --bundle FILE --opener KEY:SHARE… --bind FILE --charter FILE --anchor FILE --state-dir DIR --out ACCEPTANCE",
		Short: "Count a production report after and sign which devices are admitted",
		Long: `Recheck a production report against the bundle that headquarters exported: the
station's signature, the chain and totals of its rows, serials, quota, every
certificate, what was accepted before, and that it follows the station's last
report. Then sign the acceptance with the key in the work token.

A report that was accepted before gives the same file again and opens no token.

Exit codes: 0 accepted; 2 unusable files; 10 shares missing; 12 token absent or
another key in it; 13 refused: other bundle, station or world, more than the
quota, a device or report twice, a report missing before it; 14 altered;
15 another process holds the ledger; 16 the output exists; 18 disk.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runProvisionAccept(c.Context(), c, &o, args[0], token)
		},
	}
	o.addFlags(c)
	token.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.bundle, "bundle", "", "bundle that the report answers (required)")
	f.StringVar(&o.stateDir, "state-dir", "", "folder of headquarters' ledger (required)")
	f.StringVar(&o.out, "out", "", "acceptance file to write (required)")
	for _, name := range []string{"bundle", "state-dir", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type provisionAcceptResult struct {
	Schema   string              `json:"schema"`
	World    string              `json:"world"`
	BundleID string              `json:"bundle_id"`
	Report   string              `json:"report_hash"`
	Devices  []acceptance.Device `json:"devices"`
	Scrapped int64               `json:"scrapped"`
	Again    bool                `json:"again"`
	Out      string              `json:"out"`
}

func runProvisionAccept(ctx context.Context, c *cobra.Command, o *provisionAcceptOptions, path string, token opener) (err error) {
	anchors, state, err := o.load()
	if err != nil {
		return err
	}
	if err := absent(o.out); err != nil {
		return err
	}
	reportFile, err := intake.Read(path, jcs.MaxBytes)
	if err != nil {
		return err
	}
	bundleFile, err := intake.Read(o.bundle, jcs.MaxBytes)
	if err != nil {
		return err
	}
	book, err := ledger.Open(o.stateDir, anchors)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	checked, err := accept.Check(reportFile, bundleFile, anchors, state, book, time.Now())
	if err != nil {
		return err
	}
	file := checked.Done
	if file == nil {
		payload := func() ([]byte, error) { return jcs.Marshal(checked.Acceptance) }
		if file, err = signWith(ctx, token, state, "provision accept", payload, func(keys func(string) (crypto.Signer, error)) ([]byte, error) {
			return accept.Sign(checked, book, time.Now(), keys)
		}); err != nil {
			return err
		}
	}
	if err := durable.WriteNew(o.out, file, 0o644); err != nil {
		return err
	}
	a, err := acceptance.Verify(file, anchors)
	if err != nil {
		return err
	}
	r := provisionAcceptResult{"keyrite/provision-accept/v1", string(a.World), a.BundleID, a.ReportHash, a.Devices, a.Counts.Scrapped, checked.Done != nil, o.out}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "accepted: %d devices of bundle %s, %d scrapped (%s)\n", len(a.Devices), a.BundleID, a.Counts.Scrapped, a.World)
		for _, d := range a.Devices {
			fmt.Fprintf(w, "  %s  certificate %.16s…  %s\n", d.DeviceSerial, d.CertHash, d.Assurance)
		}
		if r.Again {
			fmt.Fprintln(w, "  it was accepted before; this is the same file again")
		}
	})
}

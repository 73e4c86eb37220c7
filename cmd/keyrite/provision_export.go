package main

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/provisioning/export"
	"keyrite/provisioning/ledger"
)

type provisionExportOptions struct {
	trustOptions
	stateDir, out, valid, assurance, again string
	order                                  export.Order
}

func newProvisionExport(token opener) *cobra.Command {
	var o provisionExportOptions
	c := &cobra.Command{
		Use:   "export --factory ID --quota N --valid 30d --hardware TEXT --opener KEY:SHARE… --bind FILE --charter FILE --anchor FILE --state-dir DIR --out BUNDLE",
		Short: "Sign a provisioning bundle for a factory",
		Long: `Sign a bundle with both provisioning keys in the work token, enter it in the
ledger of --state-dir, and write it to --out. Serials are never given out twice,
and a factory gets no third bundle while two are without an accepted report.

--state-dir is the memory of headquarters: keep and back it up. If the file was
lost after it was signed, --again ID writes it once more and opens no token.

Exit codes: 0 signed; 2 unusable order; 10 shares missing; 12 token absent or
another key in it; 13 refused: unknown factory or station, serials outside the
grant or given out before, reports owed, other world; 14 a file was altered;
15 another process holds the ledger; 16 the output exists; 18 disk.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runProvisionExport(c.Context(), c, &o, token) },
	}
	o.addFlags(c)
	token.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.order.Factory, "factory", "", "factory of the charter")
	f.StringVar(&o.order.Station, "station", "", "station of the factory (needed if it has several)")
	f.Int64Var(&o.order.Quota, "quota", 0, "number of devices, 1 to "+strconv.Itoa(bundle.MaxQuota))
	f.Int64Var(&o.order.SerialFrom, "serial-from", 0, "first number (default: the first that was never given out)")
	f.StringVar(&o.valid, "valid", "30d", "how long the bundle may be used: days as 30d, or hours as 12h")
	f.StringVar(&o.order.Hardware, "hardware", "", "hardware revision, as text (default: the product line)")
	f.StringVar(&o.order.Firmware, "firmware-sha256", "", "digest of the image that a device must have at birth (default: any)")
	f.StringVar(&o.assurance, "assurance", string(birthcert.Unattested), "the least assurance of a device's element")
	f.StringVar(&o.again, "again", "", "id of a bundle in the ledger, to write its file once more")
	f.StringVar(&o.stateDir, "state-dir", "", "folder of headquarters' ledger (required)")
	f.StringVar(&o.out, "out", "", "bundle file to write (required)")
	for _, name := range []string{"state-dir", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type provisionExportResult struct {
	Schema   string         `json:"schema"`
	World    string         `json:"world"`
	BundleID string         `json:"bundle_id"`
	Hash     string         `json:"hash"`
	Factory  string         `json:"factory"`
	Station  string         `json:"station"`
	Quota    int64          `json:"quota"`
	Ranges   []bundle.Range `json:"ranges"`
	Seq      int            `json:"seq"`
	NotAfter string         `json:"not_after"`
	Out      string         `json:"out"`
}

func runProvisionExport(ctx context.Context, c *cobra.Command, o *provisionExportOptions, token opener) (err error) {
	anchors, state, err := o.load()
	if err != nil {
		return err
	}
	if err := absent(o.out); err != nil {
		return err
	}
	book, err := ledger.Open(o.stateDir, anchors)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	var b *bundle.Bundle
	var file []byte
	if o.again != "" {
		have := book.Bundle(o.again)
		if have == nil {
			return fault.Errorf(fault.Usage, "the ledger has no bundle %.40q", o.again)
		}
		b, file = have.Bundle, have.File
	} else {
		if err := o.complete(state); err != nil {
			return err
		}
		if b, err = export.Plan(o.order, anchors, state, book, time.Now()); err != nil {
			return err
		}
		if file, err = signWith(ctx, token, state, "provision export", b.Marshal, func(keys func(string) (crypto.Signer, error)) ([]byte, error) {
			return export.Sign(b, book, time.Now(), keys)
		}); err != nil {
			return err
		}
	}
	if err := durable.WriteNew(o.out, file, 0o644); err != nil {
		return fault.Hint(err, "the bundle is in the ledger: write it with --again "+b.BundleID)
	}
	hash, err := b.Hash()
	if err != nil {
		return err
	}
	r := provisionExportResult{"keyrite/provision-export/v1", string(b.World), b.BundleID, hash, b.Factory, b.Stations[0], b.Quota, b.Ranges, b.Seq, b.NotAfter, o.out}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "bundle %s: %s/%s may make %d devices %s until %s (%s)\n", b.BundleID, b.Factory, b.Stations[0], b.Quota, b.Product, b.NotAfter, b.World)
		for _, x := range b.Ranges {
			fmt.Fprintf(w, "  serials    %s to %s\n", birthcert.MakeDeviceSerial(b.Product, x.From), birthcert.MakeDeviceSerial(b.Product, x.To))
		}
		fmt.Fprintf(w, "  number     %d of this factory\n  file       %s\n", b.Seq, cli.Escape(o.out))
	})
}

// complete fills the order from the flags.
func (o *provisionExportOptions) complete(state *charter.State) error {
	valid, err := parseValid(o.valid)
	if err != nil {
		return err
	}
	o.order.Valid, o.order.Assurance = valid, birthcert.Assurance(o.assurance)
	if o.order.Factory == "" {
		return cli.Usagef("--factory is missing")
	}
	if o.order.Hardware == "" {
		o.order.Hardware = state.Factories[o.order.Factory].Product
	}
	return nil
}

// parseValid reads 30d or 12h.
func parseValid(s string) (time.Duration, error) {
	unit := map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour}
	if s == "" || unit[s[len(s)-1]] == 0 {
		return 0, cli.Usagef("--valid %q is neither days (30d) nor hours (12h)", s)
	}
	n, err := strconv.ParseUint(strings.TrimRight(s, "dh"), 10, 16)
	if err != nil {
		return 0, cli.Usagef("--valid %q is neither days (30d) nor hours (12h)", s)
	}
	return time.Duration(n) * unit[s[len(s)-1]], nil
}

// absent refuses an output that exists, before anybody opens a token for it.
func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fault.Hint(fault.Errorf(fault.Exists, "%q exists", path), "outputs are never overwritten: choose another name")
	}
	return nil
}

// signWith opens the work token for an operation, named by what and the hash of
// what is signed, and closes it again.
func signWith(ctx context.Context, token opener, state *charter.State, what string, payload func() ([]byte, error), sign func(func(string) (crypto.Signer, error)) ([]byte, error)) ([]byte, error) {
	p, err := payload()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(p)
	safe, err := safeOf(state, acceptance.SignerID, "work") // which lies where the provisioning keys do
	if err != nil {
		return nil, err
	}
	ring, err := token.open(ctx, state, safe, []byte(what+" "+hex.EncodeToString(sum[:])))
	if err != nil {
		return nil, err
	}
	file, err := sign(func(id string) (crypto.Signer, error) { return ring.Signer(ctx, id) })
	return file, errors.Join(err, ring.Close())
}

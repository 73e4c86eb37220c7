package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/firmware"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

var errNoAnchor = errors.New("no anchors file is given")

type firmwareOptions struct {
	anchorOptions
	bundle, proof, exportDir string
}

func newFirmware() *cobra.Command {
	var o firmwareOptions
	c := &cobra.Command{
		Use:   "firmware IMAGE|FILE.krf --anchor FILE",
		Short: "Verify a firmware image or .krf",
		Long: `Verify that an image is one that was released, by the firmware key of the
anchors.

A .krf carries image, signature and log proof; all three are checked. For an
image, the signature is read from IMAGE.sigstore.json or --bundle, and a log
proof only if --log-proof is given. The image is streamed.

--export-dsse DIR makes DIR with pae.bin, sig.der and pub.pem, which openssl
checks by itself:
  openssl dgst -sha256 -verify pub.pem -signature sig.der pae.bin

Exit codes: 0 verified, 2 not usable (no --anchor, empty, FIFO, device, folder),
13 of another world or vault, 14 altered, changing or not parseable, 16 DIR
exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runFirmware(c, o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	c.Flags().StringVar(&o.bundle, "bundle", "", "Sigstore bundle of the image (default IMAGE"+firmware.BundleSuffix+")")
	c.Flags().StringVar(&o.proof, "log-proof", "", "log proof of the image, to be checked too")
	c.Flags().StringVar(&o.exportDir, "export-dsse", "", "new folder for pae.bin, sig.der and pub.pem")
	return c
}

// firmwareResult is the --json form.
type firmwareResult struct {
	Schema          string   `json:"schema"`
	World           string   `json:"world"`
	Vault           string   `json:"vault"`
	File            string   `json:"file"`
	Product         string   `json:"product"`
	Hardware        []string `json:"hardware"`
	Version         string   `json:"version"`
	SecurityVersion int64    `json:"security_version"`
	Channel         string   `json:"channel"`
	Size            int64    `json:"size"`
	SHA256          string   `json:"sha256"`
	Pipeline        string   `json:"pipeline"`
	Approvers       []string `json:"approvers"`
	Time            string   `json:"time"`
	Record          string   `json:"record"`
	LogIndex        *int64   `json:"log_index"` // null: no log proof was given
}

func runFirmware(c *cobra.Command, o firmwareOptions, path string) error {
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	trust, err := firmware.TrustOf(anchors)
	if err != nil {
		return err
	}
	in, err := intake.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	s, bundle, index, err := verify(c.Context(), o, path, in, trust)
	if err != nil {
		return err
	}
	if err := in.Unchanged(); err != nil {
		return err
	}
	if o.exportDir != "" {
		if err := export(o.exportDir, bundle, trust.Key(s.Role())); err != nil {
			return err
		}
	}
	return cli.Print(c, resultOf(s, index), func(w io.Writer) { show(w, s, index) })
}

// verify returns the statement, the bundle it was in, and the place in the log
// if a proof was checked.
func verify(ctx context.Context, o firmwareOptions, path string, in *intake.File, t *firmware.Trust) (*firmware.Statement, []byte, *int64, error) {
	r := in.Reader(ctx)
	if o.bundle == "" && strings.HasSuffix(path, firmware.KRFSuffix) {
		if o.proof != "" {
			return nil, nil, nil, cli.Usagef("a %s carries its own log proof; --log-proof does not go with it", firmware.KRFSuffix)
		}
		k, err := firmware.VerifyKRF(r, t)
		if err != nil {
			return nil, nil, nil, err
		}
		return k.Statement, k.Bundle, &k.Index, nil
	}
	if o.bundle == "" {
		o.bundle = path + firmware.BundleSuffix
	}
	bundle, err := intake.Read(o.bundle, firmware.MaxBundleBytes)
	if err != nil {
		return nil, nil, nil, err
	}
	var index *int64
	if o.proof != "" {
		proof, err := intake.Read(o.proof, firmware.MaxProofBytes)
		if err != nil {
			return nil, nil, nil, err
		}
		p, err := firmware.CheckProof(proof, bundle, t)
		if err != nil {
			return nil, nil, nil, err
		}
		index = &p.Index
	}
	s, err := firmware.Verify(r, bundle, t)
	return s, bundle, index, err
}

func resultOf(s *firmware.Statement, index *int64) firmwareResult {
	p := &s.Predicate
	r := firmwareResult{
		Schema: "keyrite/verify-firmware/v1", World: string(p.World), Vault: p.Vault, File: s.Image().Name,
		Product: p.Product, Hardware: p.Hardware, Version: p.Version, SecurityVersion: p.SecurityVersion, Channel: p.Channel,
		Size: p.Size, SHA256: s.Image().Digest.SHA256, Pipeline: p.Pipeline, Time: p.Time, Record: p.Key.Record, LogIndex: index,
	}
	for _, a := range p.Approvals {
		r.Approvers = append(r.Approvers, a.Approver)
	}
	return r
}

func show(w io.Writer, s *firmware.Statement, index *int64) {
	r := resultOf(s, index)
	fmt.Fprintf(w, "verified: %s is firmware %s %s, security version %d, channel %s\n", r.File, r.Product, r.Version, r.SecurityVersion, r.Channel)
	fmt.Fprintf(w, "  world      %s\n  hardware   %s\n  image      %d bytes, SHA-256 %s\n", r.World, strings.Join(r.Hardware, ", "), r.Size, r.SHA256)
	fmt.Fprintf(w, "  asked by   %s\n  approved   %s\n  signed     %s, key %s of %s\n", r.Pipeline, strings.Join(r.Approvers, ", "), r.Time, s.Predicate.Key.ID, cli.Escape(r.Record))
	if index == nil {
		fmt.Fprintln(w, "  log        no proof given (a .krf carries one)")
		return
	}
	fmt.Fprintf(w, "  log        entry %d, proven\n", *index)
}

// export writes what openssl needs. The folder is new, so nothing is ever
// overwritten; on failure it goes.
func export(dir string, bundle []byte, pub crypto.PublicKey) error {
	x, err := firmware.Export(bundle)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return fmt.Errorf("encode public key: %w", err)
	}
	if err := durable.Mkdir(dir, 0o755); err != nil {
		return err
	}
	files := []struct {
		name string
		data []byte
	}{
		{"pae.bin", x.PAE},
		{"sig.der", x.Signature},
		{"pub.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})},
	}
	for _, f := range files {
		if err := durable.WriteNew(filepath.Join(dir, f.name), f.data, 0o644); err != nil {
			_ = os.RemoveAll(dir)
			return err
		}
	}
	return nil
}

package main

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/charter"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/signer"
)

type releaseSignOptions struct {
	trustOptions
	image, stateDir, outDir string
	approvals               []string
}

func newReleaseSign(token opener) *cobra.Command {
	var o releaseSignOptions
	c := &cobra.Command{
		Use:   "sign REQUEST --image IMAGE --approval FILE… --opener KEY:SHARE… --bind FILE --charter FILE --anchor FILE --state-dir DIR --out-dir DIR",
		Short: "Sign an approved release with the key in the work token",
		Long: `Check request and approvals against the charter, hash the image once more, write
the intent, sign in the token, check the signature, write the result, put the
release into the release log, and write IMAGE.sigstore.json and NAME.krf into
--out-dir.

--state-dir keeps the ledger and the release log. It is the memory that refuses
a lower security version and a second use of an approval, so it is kept with the
token and backed up. A run that was cut off after the signature is finished by
running the same command again; it signs nothing twice.

Exit codes: 0 released; 2 unusable image; 10 approvals or shares missing, or one
person twice; 12 token absent or another key in it; 13 refused: unknown pipeline,
foreign product, approval for something else, expired, used before, security
version too low, other world; 14 a file was altered or the image is another or
changed; 15 another signer is at work; 16 an output exists; 18 disk.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runReleaseSign(c.Context(), c, &o, args[0], token) },
	}
	o.addFlags(c)
	token.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.image, "image", "", "the image")
	f.StringArrayVar(&o.approvals, "approval", nil, "approval file, once for each approver")
	f.StringVar(&o.stateDir, "state-dir", "", "folder of the signer's state")
	f.StringVar(&o.outDir, "out-dir", "", "folder for the release; it must exist")
	for _, name := range []string{"image", "state-dir", "out-dir"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type releaseSignResult struct {
	Schema          string `json:"schema"`
	World           string `json:"world"`
	Product         string `json:"product"`
	Version         string `json:"version"`
	SecurityVersion int64  `json:"security_version"`
	SHA256          string `json:"sha256"`
	Bundle          string `json:"bundle"`
	KRF             string `json:"krf"`
	LogIndex        int64  `json:"log_index"`
	Resumed         bool   `json:"resumed"`
}

func runReleaseSign(ctx context.Context, c *cobra.Command, o *releaseSignOptions, path string, token opener) error {
	anchors, state, err := o.load()
	if err != nil {
		return err
	}
	if _, err := releaseTrust(state, anchors, ""); err != nil {
		return err
	}
	checked, ledger, err := o.check(state, path)
	if err != nil {
		return err
	}
	defer ledger.Close()
	if _, err := releaseTrust(state, anchors, checked.Product()); err != nil {
		return err
	}
	image, err := intake.Open(o.image)
	if err != nil {
		return err
	}
	defer image.Close()
	// The token is opened last, when nothing but the token can still refuse.
	ready, err := signer.Prepare(ctx, checked, image, o.outDir)
	if err != nil {
		return err
	}
	safe, err := safeOf(state, signer.RoleOf(state, checked.Product()), "work")
	if err != nil {
		return err
	}
	ring, err := token.open(ctx, state, safe, []byte("release sign "+checked.Request()))
	if err != nil {
		return err
	}
	s := &signer.Signer{State: state, Ledger: ledger, Now: time.Now, Keys: func(id string) (crypto.Signer, error) { return ring.Signer(ctx, id) }}
	r, err := s.Release(ctx, ready)
	if cerr := ring.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	p := &r.Statement.Predicate
	res := releaseSignResult{
		"keyrite/release-sign/v1", string(p.World), p.Product, p.Version, p.SecurityVersion, r.Statement.Image().Digest.SHA256, r.Bundle, r.KRF, r.Index, r.Resumed,
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "released %s %s, security version %d, in world %s\n", res.Product, res.Version, res.SecurityVersion, res.World)
		fmt.Fprintf(w, "  signature %s\n  one file  %s\n  log       entry %d\n", cli.Escape(res.Bundle), cli.Escape(res.KRF), res.LogIndex)
		if res.Resumed {
			fmt.Fprintln(w, "  the signature is of an earlier run that was cut off; nothing was signed again")
		}
	})
}

// check reads request and approvals and holds them against charter and ledger.
func (o *releaseSignOptions) check(state *charter.State, path string) (*signer.Checked, *signer.Ledger, error) {
	data, err := intake.Read(path, signer.MaxFileBytes)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	q, err := signer.OpenRequest(data, state, now)
	if err != nil {
		return nil, nil, err
	}
	var approvals [][]byte
	for _, p := range o.approvals {
		a, err := intake.Read(p, signer.MaxFileBytes)
		if err != nil {
			return nil, nil, err
		}
		approvals = append(approvals, a)
	}
	ledger, err := signer.OpenLedger(o.stateDir, state, time.Now)
	if err != nil {
		return nil, nil, err
	}
	checked, err := signer.Check(q, approvals, ledger, now)
	if err != nil {
		_ = ledger.Close()
		return nil, nil, err
	}
	return checked, ledger, nil
}

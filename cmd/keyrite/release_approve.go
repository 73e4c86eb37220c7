package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/signer"
)

type releaseApproveOptions struct {
	trustOptions
	image, key, out string
	passphraseFD    int
}

func newReleaseApprove(std cli.IO) *cobra.Command {
	var o releaseApproveOptions
	c := &cobra.Command{
		Use:   "approve REQUEST --image IMAGE --key FILE.key --charter FILE --anchor FILE --out APPROVAL",
		Short: "Approve a release, as one of the charter's release approvers",
		Long: `Measure the image yourself, see on stderr what you are about to approve, and
sign it with your person key. The approval is bound to the request, the image's
digest, the key that will sign, the text that was shown, and 7 days; it is used
up by one release. Typing the passphrase is the consent.

Exit codes: 0 written; 12 wrong passphrase; 13 you may not approve releases, the
request is not by a pipeline of the charter or has expired, other world; 14 the
image is not the one requested, or a file was altered; 16 APPROVAL exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runReleaseApprove(c, &o, args[0], std) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.image, "image", "", "the image")
	f.StringVar(&o.key, "key", "", "your key file")
	f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with its passphrase (default: the terminal)")
	f.StringVar(&o.out, "out", "", "file for the approval; it is never overwritten")
	for _, name := range []string{"image", "key", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type releaseApproveResult struct {
	Schema   string `json:"schema"`
	Approval string `json:"approval"` // path
	Approver string `json:"approver"`
	Request  string `json:"request"`
	SHA256   string `json:"sha256"`
	Shown    string `json:"shown"` // the text that the approval is bound to
}

func runReleaseApprove(c *cobra.Command, o *releaseApproveOptions, path string, std cli.IO) error {
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	_, state, err := o.load()
	if err != nil {
		return err
	}
	data, err := intake.Read(path, signer.MaxFileBytes)
	if err != nil {
		return err
	}
	now := time.Now()
	q, err := signer.OpenRequest(data, state, now)
	if err != nil {
		return err
	}
	sum, size, err := measureFile(c.Context(), o.image)
	if err != nil {
		return err
	}
	if err := q.CheckImage(sum, size); err != nil {
		return err
	}
	// A program that asks for JSON and brings the passphrase reads the text in
	// the result; whoever types the passphrase sees it before.
	if !cli.JSON(c) || o.passphraseFD < 0 {
		fmt.Fprintf(c.ErrOrStderr(), "%sThe image here has this digest.\n", q.Shown())
	}
	key, err := openKey(c.Context(), o.key, o.passphraseFD, std)
	if err != nil {
		return err
	}
	defer key.Zero()
	approval, err := signer.Approve(q, sum, size, key, now)
	if err != nil {
		return err
	}
	if err := out.Finish(approval); err != nil {
		return err
	}
	res := releaseApproveResult{"keyrite/release-approve/v1", o.out, key.Public().Name, q.Hash, sum, q.Shown()}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s approves; written to %s\n", res.Approver, cli.Escape(o.out))
	})
}

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/charterstore"
)

type charterApproveOptions struct {
	trustOptions
	key, out     string
	passphraseFD int
}

func newCharterApprove(std cli.IO) *cobra.Command {
	var o charterApproveOptions
	c := &cobra.Command{
		Use:   "approve PROPOSAL --key FILE --charter FILE --anchor FILE --out APPROVAL",
		Short: "Approve a proposed statement, as one of the charter's approvers",
		Long: `Check a proposal against your own copy of charter and anchors, see on stderr all
that it says, and sign it with your person key. The approval counts for this
statement at this place in the charter and for nothing else; once the charter has
gone on, it is worth nothing. Typing the passphrase is the consent.

Exit codes: 0 written, 12 wrong passphrase or PIN, 13 you are no approver, or the
charter went on, or another vault or world, 14 the statement would not hold or a
file was altered, 16 APPROVAL exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCharterApprove(c, std, &o, args[0]) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.key, "key", "", "your NAME.key or NAME.card (required)")
	f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with its passphrase or PIN (default: the terminal)")
	f.StringVar(&o.out, "out", "", "file for the approval; it is never overwritten (required)")
	for _, name := range []string{"key", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type charterApproveResult struct {
	Schema   string   `json:"schema"`
	Approval string   `json:"approval"` // path
	Approver string   `json:"approver"`
	Digest   string   `json:"digest"`
	Shown    []string `json:"shown"`
}

func runCharterApprove(c *cobra.Command, std cli.IO, o *charterApproveOptions, path string) error {
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	data, err := intake.Read(path, charterstore.MaxBytes)
	if err != nil {
		return err
	}
	p, err := o.openProposal(data)
	if err != nil {
		return err
	}
	// A program that asks for JSON and brings the passphrase reads it in the
	// result; whoever types the passphrase sees it before.
	if !cli.JSON(c) || o.passphraseFD < 0 {
		for _, l := range p.Shown {
			fmt.Fprintf(c.ErrOrStderr(), "%s\n", cli.Escape(l))
		}
		fmt.Fprintf(c.ErrOrStderr(), "digest %s\n  in words: %s\n", p.Digest, p.Words)
	}
	key, err := openKey(c.Context(), o.key, o.passphraseFD, std)
	if err != nil {
		return err
	}
	defer key.Zero()
	approval, err := charterstore.Approve(p, key)
	if err != nil {
		return err
	}
	if err := out.Finish(approval); err != nil {
		return err
	}
	res := charterApproveResult{"keyrite/charter-approve/v1", o.out, key.Public().Name, p.Digest, p.Shown}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s approves statement %d; written to %s\n", res.Approver, p.Statement.Seq, cli.Escape(o.out))
	})
}

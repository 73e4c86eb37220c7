package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/envelope"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
)

type hsmAdmitOptions struct {
	tokenOptions
	signer, out  string
	passphraseFD int
}

func newHSMAdmit(std cli.IO) *cobra.Command {
	var o hsmAdmitOptions
	c := &cobra.Command{
		Use:   "admit --module PATH --token LABEL --pin-fd N --signer FILE.key --out REPORT",
		Short: "Attack a token with throw-away keys and sign a report",
		Long: `Attack a token with throw-away keys: read every attribute back, try to take
keys out, to thaw finished ones, to use them for something else, to claim a
false origin, to get in without a login. A token that withstands all of it gets
a report, signed by the person who ran this, bound to the module as loaded, its
libraries, the token and its firmware, and good for 90 days. Ceremonies and the
vault refuse a token without one.

The suite gives the wrong PIN twice, each time followed by the right one.

Exit codes: 0 admitted; 12 refused, and no report: each failed case stands in
the error; 2 unusable input; 16 the report exists.`,
		Example: `  keyrite hsm admit --module /usr/lib/softhsm/libsofthsm2.so --token work \
    --pin-fd 3 --signer conductor.key --out work.admission 3< work.pin`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runHSMAdmit(c.Context(), c, &o, std) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.signer, "signer", "", "key file of the person who signs the report")
	f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with the passphrase of the key file (default: the terminal)")
	f.StringVar(&o.out, "out", "", "file for the report; it is never overwritten")
	for _, name := range []string{"module", "token", "pin-fd", "signer", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type hsmAdmitResult struct {
	Schema  string       `json:"schema"`
	Report  string       `json:"report"`
	SHA256  string       `json:"sha256"`
	World   string       `json:"world"`
	Token   admit.Token  `json:"token"`
	Module  admit.Module `json:"module"`
	Cases   []hsm.Case   `json:"cases"`
	Signer  string       `json:"signer"`
	Expires string       `json:"expires"`
}

func runHSMAdmit(ctx context.Context, c *cobra.Command, o *hsmAdmitOptions, std cli.IO) error {
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	key, err := openKey(c.Context(), o.signer, o.passphraseFD, std)
	if err != nil {
		return err
	}
	defer key.Zero()
	var report *admit.Report
	err = o.withToken(ctx, func(s *hsm.Session) (err error) {
		report, err = admit.Run(ctx, s, string(key.Public().World), time.Now())
		return err
	})
	if err != nil {
		return err
	}
	file, err := signReport(report, key)
	if err != nil {
		return err
	}
	if _, err := out.Write(file); err != nil {
		return err
	}
	if err := out.Commit(); err != nil {
		return err
	}
	sum := sha256.Sum256(file)
	res := hsmAdmitResult{
		Schema: "keyrite/hsm-admit/v1", Report: o.out, SHA256: hex.EncodeToString(sum[:]), World: report.World,
		Token: report.Token, Module: report.Module, Cases: report.Cases, Signer: key.Public().Name, Expires: report.Expires,
	}
	return cli.Print(c, res, func(w io.Writer) { printAdmitted(w, &res) })
}

func signReport(r *admit.Report, key *person.Key) ([]byte, error) {
	payload, err := jcs.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	env, err := envelope.Sign(admit.PayloadType, payload, key.Signer())
	if err != nil {
		return nil, fmt.Errorf("sign report: %w", err)
	}
	return env.Marshal()
}

func printAdmitted(w io.Writer, r *hsmAdmitResult) {
	for _, k := range r.Cases {
		fmt.Fprintf(w, "withstood  %-24s %s\n", k.ID, k.Title)
	}
	fmt.Fprintf(w, "\ntoken %s, serial %s (%s) is admitted until %s in world %s\n",
		cli.Escape(r.Token.Label), cli.Escape(r.Token.Serial), cli.Escape(r.Token.Model), r.Expires, r.World)
	fmt.Fprintf(w, "%d cases; report %s, signed by %s\n", len(r.Cases), cli.Escape(r.Report), cli.Escape(r.Signer))
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/admission"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
)

type hsmAdmitOptions struct {
	inspectOptions
	signer, out string
	signerFD    int
	algorithms  []string
}

func newHSMAdmit(std cli.IO) *cobra.Command {
	var o hsmAdmitOptions
	c := &cobra.Command{
		Use:   "admit {--module PATH --token LABEL --pin-fd N | --safe NAME --opener …} --signer FILE.key --out REPORT",
		Short: "Attack a token with throw-away keys and sign a report",
		Long: `Attack a token with throw-away keys: read every attribute back, try to take
keys out, to thaw finished ones, to use them for something else, to claim a
false origin, to get in without a login. A token that withstands all of it gets
a report, signed by the person who ran this, bound to the module as loaded, its
libraries and configuration, the token and its firmware, and good for 90 days.
Ceremonies, releases and exports refuse a token without one: name the report under
admissions in the binding. A token that a ceremony made is admitted for its first
90 days by the record of that ceremony.

With --safe the token's key masters open it instead of a PIN. What it holds is not
touched. The suite gives a wrong PIN three times, each time followed by the right one.
The report admits the algorithms that it lists; --algorithm tries these alone.

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
	f.IntVar(&o.signerFD, "signer-fd", -1, "with --safe: descriptor with the passphrase of the signer (default: the terminal)")
	f.StringVar(&o.out, "out", "", "file for the report; it is never overwritten")
	f.StringArrayVar(&o.algorithms, "algorithm", nil, "algorithm to try: "+strings.Join(slices.Sorted(maps.Keys(admit.Algorithms())), ", ")+" (may repeat; default: all)")
	for _, name := range []string{"signer", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type hsmAdmitResult struct {
	Schema     string           `json:"schema"`
	Report     string           `json:"report"`
	SHA256     string           `json:"sha256"`
	World      string           `json:"world"`
	Token      admission.Token  `json:"token"`
	Module     admission.Module `json:"module"`
	Cases      []admission.Case `json:"cases"`
	Algorithms []string         `json:"algorithms"`
	Signer     string           `json:"signer"`
	Expires    string           `json:"expires"`
}

func runHSMAdmit(ctx context.Context, c *cobra.Command, o *hsmAdmitOptions, std cli.IO) error {
	algorithms, err := o.wanted()
	if err != nil {
		return err
	}
	if o.safe == "" && o.token == "" {
		return cli.Usagef("--token is missing, or --safe: what is to be attacked")
	}
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	fd := o.quorum.passphraseFD
	if o.safe != "" {
		fd = o.signerFD
	}
	key, err := openKey(ctx, o.signer, fd, std)
	if err != nil {
		return err
	}
	defer key.Zero()
	var report *admission.Report
	err = o.attack(ctx, std, func(s *hsm.Session) (err error) {
		report, err = admit.Run(ctx, s, key.Public().World, time.Now(), algorithms...)
		return err
	})
	if err != nil {
		return err
	}
	file, err := admission.Sign(report, key.Signer())
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
		Schema: "keyrite/hsm-admit/v1", Report: o.out, SHA256: hex.EncodeToString(sum[:]), World: string(report.World),
		Token: report.Token, Module: report.Module, Cases: report.Cases, Algorithms: report.Algorithms,
		Signer: key.Public().Name, Expires: report.Expires,
	}
	return cli.Print(c, res, func(w io.Writer) { printAdmitted(w, &res) })
}

// attack runs f in the token, however it is named and opened.
func (o *hsmAdmitOptions) attack(ctx context.Context, std cli.IO, f func(*hsm.Session) error) error {
	if o.safe == "" {
		return o.withToken(ctx, f)
	}
	o.quorum.attacking = true
	return o.withSafe(ctx, std, "admit", func(x *opened) error { return f(x.sess) })
}

// wanted turns the names of key records into what a token is asked for.
func (o *hsmAdmitOptions) wanted() ([]hsm.Algorithm, error) {
	var out []hsm.Algorithm
	for _, name := range o.algorithms {
		a, ok := admit.Algorithms()[name]
		if !ok || slices.Contains(out, a) {
			return nil, cli.Usagef("--algorithm %q is not known, or stands twice", name)
		}
		out = append(out, a)
	}
	return out, nil
}

func printAdmitted(w io.Writer, r *hsmAdmitResult) {
	for _, k := range r.Cases {
		fmt.Fprintf(w, "withstood  %-24s %s\n", k.ID, k.Title)
	}
	fmt.Fprintf(w, "\ntoken %s, serial %s (%s) is admitted until %s in world %s\n",
		cli.Escape(r.Token.Label), cli.Escape(r.Token.Serial), cli.Escape(r.Token.Model), r.Expires, r.World)
	fmt.Fprintf(w, "for %s, keys of no other algorithm\n", strings.Join(r.Algorithms, ", "))
	fmt.Fprintf(w, "%d cases; report %s, signed by %s\n", len(r.Cases), cli.Escape(r.Report), cli.Escape(r.Signer))
}

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

type openRequestOptions struct {
	anchorOptions
	charter, at string
	answers     []string
}

func newOpenRequest() *cobra.Command {
	var o openRequestOptions
	c := &cobra.Command{
		Use:   "open-request REQUEST [--answer FILE …] --anchor FILE --charter FILE",
		Short: "Verify a vault's request for shares, and answers to it",
		Long: `Verify a request for shares: it must be signed by a host of the charter, for the vault,
world, epoch and charter given, and be good now, or at the time --at. With --answer, verify
that key masters answered this very request, each by share key and person key. What is
encrypted in an answer only the vault can open.

Exit codes: 0 good, 13 expired, or of another vault, world, epoch or charter, 14 altered, or
not signed by who it must be.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runOpenRequest(c, &o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	c.Flags().StringVar(&o.charter, "charter", "", "charter file of the vault (required)")
	c.Flags().StringVar(&o.at, "at", "", "time at which it must have been good, RFC 3339 in UTC (default: now)")
	c.Flags().StringArrayVar(&o.answers, "answer", nil, "answer of a key master; may repeat")
	return c
}

func runOpenRequest(c *cobra.Command, o *openRequestOptions, path string) error {
	a, err := o.loadAnchors()
	if err != nil {
		return err
	}
	if o.charter == "" {
		return cli.Usagef("--charter is missing")
	}
	now := time.Now()
	if o.at != "" {
		if now, err = charter.ParseTime(o.at); err != nil {
			return cli.Usagef("--at %q is no time such as 2027-03-01T09:00:00Z", o.at)
		}
	}
	data, err := intake.Read(o.charter, 64<<20)
	if err != nil {
		return err
	}
	state, err := charter.Fold(data, a.World, a.Vault)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "charter %q: %w", o.charter, err)
	}
	if data, err = intake.Read(path, openrequest.MaxBytes); err != nil {
		return err
	}
	r, err := openrequest.Open(data, state, now)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "%q: %w", path, err)
	}
	holders, err := verifyAnswers(o.answers, r, state)
	if err != nil {
		return err
	}
	lines, err := r.Lines()
	if err != nil {
		return err
	}
	res := struct {
		Schema    string   `json:"schema"`
		World     string   `json:"world"`
		Host      string   `json:"host"`
		Operation string   `json:"operation"`
		Safe      string   `json:"safe"`
		Epoch     int      `json:"epoch"`
		Expires   string   `json:"expires"`
		Holders   []string `json:"holders"` // who answered
	}{"keyrite/open-request-verified/v1", string(a.World), r.Host, r.Operation, r.Safe, r.Epoch, r.Expires, holders}
	return cli.Print(c, res, func(w io.Writer) {
		for _, l := range lines {
			fmt.Fprintln(w, cli.Escape(l))
		}
		for _, h := range holders {
			fmt.Fprintf(w, "%s answered it\n", h)
		}
	})
}

func verifyAnswers(paths []string, r *openrequest.Request, state *charter.State) ([]string, error) {
	out := []string{}
	for _, p := range paths {
		data, err := intake.Read(p, openrequest.MaxBytes)
		if err != nil {
			return nil, err
		}
		x, err := openrequest.ParseAnswer(data)
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "%q: %w", p, err)
		}
		place, err := x.Verify(r, state)
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "%q: %w", p, err)
		}
		out = append(out, place.Holder)
	}
	return out, nil
}

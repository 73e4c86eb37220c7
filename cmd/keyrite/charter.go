package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/charter"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

func newCharterGroup(std cli.IO) *cobra.Command {
	c := &cobra.Command{Use: "charter", Short: "Look at what a quorum decided, and decide more"}
	c.AddCommand(newCharterShow(), newCharterPropose(), newCharterApprove(std), newCharterAppend())
	return c
}

func newCharterShow() *cobra.Command {
	var o trustOptions
	c := &cobra.Command{
		Use:   "show --charter FILE --anchor FILE",
		Short: "List the statements of a charter with who signed them",
		Long: `Verify a charter from its genesis and list its statements: number, time, type,
what each is about, who signed it, and what it does in a sentence.

Exit codes: 0 shown, 10 too few signatures, 13 of another vault or world, 14 altered.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCharterShow(c, &o) },
	}
	o.addFlags(c)
	return c
}

func runCharterShow(c *cobra.Command, o *trustOptions) error {
	_, state, err := o.load()
	if err != nil {
		return err
	}
	data, err := intake.Read(o.charter, maxCharterBytes)
	if err != nil {
		return err
	}
	names := state.Names()
	res := struct {
		Schema     string          `json:"schema"`
		Vault      string          `json:"vault"`
		World      string          `json:"world"`
		Head       string          `json:"head"`
		Statements []*charter.Line `json:"statements"`
	}{Schema: "keyrite/charter-show/v1", Vault: state.Vault, World: string(state.World), Head: state.Head()}
	for line := range bytes.Lines(data) {
		l, err := charter.Describe(bytes.TrimSuffix(line, []byte("\n")), names)
		if err != nil {
			return err
		}
		res.Statements = append(res.Statements, l)
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "vault %s, world %s, head %s\n", res.Vault, res.World, res.Head)
		for _, l := range res.Statements {
			fmt.Fprintf(w, "%4d  %s  %-9s %-20s signed by %v\n", l.Seq, l.Time, l.Type, cli.Escape(l.About), l.Signers)
			fmt.Fprintf(w, "      %s\n", cli.Escape(l.Words))
		}
	})
}

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/inspection"
	"keyrite/artifact/record"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

func newInspection() *cobra.Command {
	var anchorPath, dir string
	c := &cobra.Command{
		Use:   "inspection FILE --record DIR --anchor FILE",
		Short: "Compare what a witness read in a token with the record",
		Long: `Verify that a witness of the record signed what he read in a token
('keyrite hsm inspect --out'), and that the token held each key that the record
stored there, with the same public key and the same attributes, and no other.

The record may still lack cosignatures: a witness reads the token before he gives his.

Exit codes: 0 the same, 13 of another world, 14 altered, signed by nobody who is a
witness, or not what the record says.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runInspection(c, anchorPath, dir, args[0]) },
	}
	anchorFlag(c, &anchorPath)
	c.Flags().StringVar(&dir, "record", "", "record folder of the ceremony that made the keys (required)")
	return c
}

type inspectionResult struct {
	Schema  string   `json:"schema"`
	Witness string   `json:"witness"`
	At      string   `json:"at"`
	Token   string   `json:"token"`
	Serial  string   `json:"serial"`
	Keys    []string `json:"keys"`
}

func runInspection(c *cobra.Command, anchorPath, dir, path string) error {
	if dir == "" {
		return cli.Usagef("--record is missing: the folder of the ceremony that made the keys")
	}
	a, err := loadAnchors(anchorPath)
	if err != nil {
		return err
	}
	data, err := intake.Read(path, inspection.MaxBytes)
	if err != nil {
		return err
	}
	v, err := record.Verify(os.DirFS(dir), a)
	if err != nil && (v == nil || fault.ClassOf(err) != fault.Quorum) {
		return fault.Errorf(fault.ClassOf(err), "record %q: %w", dir, err)
	}
	i, witness, err := inspection.Open(data, &v.Charter.People)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "inspection %q: %w", path, err)
	}
	if err := i.Check(v); err != nil {
		return fault.Errorf(fault.ClassOf(err), "inspection %q: %w", path, err)
	}
	res := inspectionResult{Schema: "keyrite/verify-inspection/v1", Witness: witness, At: i.At, Token: i.Token.Label, Serial: i.Token.Serial, Keys: []string{}}
	for _, k := range i.Keys {
		res.Keys = append(res.Keys, k.Label)
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s read token %s, serial %s, at %s: %d keys, each as the record says\n",
			cli.Escape(res.Witness), cli.Escape(res.Token), cli.Escape(res.Serial), res.At, len(res.Keys))
	})
}

package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/words"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/vault/charterstore"
)

type charterAppendOptions struct {
	trustOptions
	approvals []string
}

func newCharterAppend() *cobra.Command {
	var o charterAppendOptions
	c := &cobra.Command{
		Use:   "append PROPOSAL --approval FILE… --charter FILE --anchor FILE",
		Short: "Append an approved statement to the charter",
		Long: `Put the approvals of a proposal together, check the whole charter with the new
statement at its end, and append it, durably. Everybody who keeps a copy of the
charter needs the new one; compare its head, which is printed as words, too.

A statement cannot be taken back. What it says ends by a later one.

Exit codes: 0 appended, 2 no such charter, 10 approvals missing or one twice, 13
the charter went on, or another vault or world, 14 an approval does not hold or is
by nobody who may, 15 another process has the charter open, 18 not written.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 1:
				return nil
			case 0:
				return cli.Usagef("which proposal? Name the file that 'keyrite charter propose' wrote")
			}
			return cli.Usagef("one proposal is appended at a time; write --approval before each approval")
		},
		RunE: func(c *cobra.Command, args []string) error { return runCharterAppend(c, &o, args[0]) },
	}
	o.addFlags(c)
	c.Flags().StringArrayVar(&o.approvals, "approval", nil, "approval; give each (required)")
	_ = c.MarkFlagRequired("approval") // fails only for a flag that does not exist
	return c
}

func runCharterAppend(c *cobra.Command, o *charterAppendOptions, path string) error {
	anchors, _, err := o.load() // the file must be there and good before it is locked
	if err != nil {
		return err
	}
	if st, err := os.Lstat(o.charter); err != nil || !st.Mode().IsRegular() {
		return fault.Errorf(fault.Usage, "charter %q is not a regular file", o.charter)
	}
	proposal, err := intake.Read(path, charterstore.MaxBytes)
	if err != nil {
		return err
	}
	approvals := map[string][]byte{}
	for _, name := range o.approvals {
		if _, twice := approvals[name]; twice {
			return fault.Errorf(fault.Quorum, "approval %q is given twice: each counts once", name)
		}
		if approvals[name], err = intake.Read(name, charterstore.MaxBytes); err != nil {
			return err
		}
	}
	state, err := charterstore.AppendWhenFree(c.Context(), o.charter, anchors.World, anchors.Vault, proposal, approvals)
	if err != nil {
		return err
	}
	head := state.Head()
	res := struct {
		Schema  string `json:"schema"`
		Charter string `json:"charter"`
		Size    int    `json:"size"`
		Head    string `json:"head"`
	}{"keyrite/charter-append/v1", o.charter, state.Size(), head}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "appended; the charter has %d statements\nhead %s\n  in words: %s\n", res.Size, head, headWords(head))
	})
}

// headWords are the first 16 bytes of a hex hash, to be read aloud.
func headWords(hexHash string) string {
	b, err := hex.DecodeString(hexHash)
	if err != nil {
		return ""
	}
	return words.Of(b[:16])
}

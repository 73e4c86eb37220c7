package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/words"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/vault/charterstore"
)

type charterAppendOptions struct {
	trustOptions
	approvals []string
	from      string
}

func newCharterAppend() *cobra.Command {
	var o charterAppendOptions
	c := &cobra.Command{
		Use:   "append PROPOSAL --approval FILE… --charter FILE --anchor FILE",
		Short: "Append an approved statement to the charter, or those of a ceremony",
		Long: `Put the approvals of a proposal together, check the whole charter with the new
statement at its end, and append it, durably. Everybody who keeps a copy of the
charter needs the new one; compare its head, which is printed as words, too.

With --from, and no proposal, append what a longer charter has beyond this one, such
as outputs/charter.jsonl of the record of a ceremony. It must begin with this one. Use
it, and not a copy over the file, where a vault serves.

A statement cannot be taken back. What it says ends by a later one.

Exit codes: 0 appended, or it is there already with --from, 2 no such charter, 10
approvals missing or one twice, 13 the charter went on, or another vault or world, 14 an
approval does not hold or is by nobody who may, 15 another process has the charter open,
or writes it, 18 not written.`,
		Example: `  keyrite charter append ci2.proposal --approval anna.approval --approval ben.approval --charter charter.jsonl --anchor anchors.json
  keyrite charter append --from record/outputs/charter.jsonl --charter charter.jsonl --anchor anchors.json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case o.from != "" && len(args)+len(o.approvals) > 0:
				return cli.Usagef("--from takes statements that were signed already: give no proposal or approval")
			case o.from == "" && len(args) > 0 && len(o.approvals) == 0:
				return cli.Usagef("which approvals? Name each file with --approval")
			case o.from != "":
				return nil
			}
			switch len(args) {
			case 1:
				return nil
			case 0:
				return cli.Usagef("which proposal? Name the file that 'keyrite charter propose' wrote")
			}
			return cli.Usagef("one proposal is appended at a time; write --approval before each approval")
		},
		RunE: func(c *cobra.Command, args []string) error { return runCharterAppend(c, &o, args) },
	}
	o.addFlags(c)
	c.Flags().StringArrayVar(&o.approvals, "approval", nil, "approval; give each")
	c.Flags().StringVar(&o.from, "from", "", "longer charter whose further statements are appended")
	return c
}

func runCharterAppend(c *cobra.Command, o *charterAppendOptions, args []string) error {
	if o.anchor == "" || o.charter == "" {
		return cli.Usagef("--anchor and --charter are required")
	}
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	if st, err := os.Lstat(o.charter); err != nil || !st.Mode().IsRegular() {
		return fault.Errorf(fault.Usage, "charter %q is not a regular file", o.charter)
	}
	add := o.addLonger
	if o.from == "" {
		add = func(ctx context.Context, a *anchor.Anchors) (*charter.State, error) {
			return o.addProposal(ctx, a, args[0])
		}
	}
	state, err := add(c.Context(), anchors)
	if err != nil {
		return err
	}
	head, done := state.Head(), "appended"
	if o.from != "" {
		done = "it is all there" // also if it was before
	}
	res := struct {
		Schema  string `json:"schema"`
		Charter string `json:"charter"`
		Size    int    `json:"size"`
		Head    string `json:"head"`
	}{"keyrite/charter-append/v1", o.charter, state.Size(), head}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s; the charter has %d statements\nhead %s\n  in words: %s\n", done, res.Size, head, headWords(head))
	})
}

// addProposal appends the proposal of the file at path.
func (o *charterAppendOptions) addProposal(ctx context.Context, a *anchor.Anchors, path string) (*charter.State, error) {
	proposal, err := intake.Read(path, charterstore.MaxBytes)
	if err != nil {
		return nil, err
	}
	approvals := map[string][]byte{}
	for _, name := range o.approvals {
		if _, twice := approvals[name]; twice {
			return nil, fault.Errorf(fault.Quorum, "approval %q is given twice: each counts once", name)
		}
		if approvals[name], err = intake.Read(name, charterstore.MaxBytes); err != nil {
			return nil, err
		}
	}
	return charterstore.AppendWhenFree(ctx, o.charter, a.World, a.Vault, proposal, approvals)
}

// addLonger appends what the charter --from has more.
func (o *charterAppendOptions) addLonger(ctx context.Context, a *anchor.Anchors) (*charter.State, error) {
	longer, err := intake.Read(o.from, maxCharterBytes)
	if err != nil {
		return nil, err
	}
	return charterstore.ContinueWhenFree(ctx, o.charter, a.World, a.Vault, longer)
}

// headWords are the first 16 bytes of a hex hash, to be read aloud.
func headWords(hexHash string) string {
	b, err := hex.DecodeString(hexHash)
	if err != nil {
		return ""
	}
	return words.Of(b[:16])
}

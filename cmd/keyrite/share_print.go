package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/ceremony/paper"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// maxPaperBytes bounds a share file and the lines that it is typed as.
const maxPaperBytes = 16 << 10

type sharePrintOptions struct{ out, holder, safe string }

func newSharePrint() *cobra.Command {
	var o sharePrintOptions
	c := &cobra.Command{
		Use:   "print NAME.share --out FILE.html",
		Short: "Print a share on paper",
		Long: `Write a page to print on A4 with the same encrypted share as a QR code and as
lines that each carry a check. It is as safe as the file: worthless without the
holder's key. Read it back before the medium leaves the room:
'keyrite share read' names every line that was misread.

  keyrite share print master1.share --holder master1 --safe root --out share.html

Exit codes: 0 written, 2 not a share file, 16 FILE exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runSharePrint(c, &o, args[0]) },
	}
	c.Flags().StringVar(&o.out, "out", "", "page to write (required)")
	c.Flags().StringVar(&o.holder, "holder", "", "name to print on it (default: a place to write it)")
	c.Flags().StringVar(&o.safe, "safe", "", "name of the safe to print on it (default: a place to write it)")
	return c
}

func runSharePrint(c *cobra.Command, o *sharePrintOptions, path string) error {
	if o.out == "" {
		return cli.Usagef("--out is required")
	}
	data, err := intake.Read(path, maxPaperBytes)
	if err != nil {
		return err
	}
	if !isShare(data) {
		return fault.Errorf(fault.Usage, "%q is no share: a share is an age file", path)
	}
	html, err := paper.Share(paper.ShareSheet{Holder: o.holder, Safe: o.safe, File: data})
	if err != nil {
		return err
	}
	if err := durable.WriteNew(o.out, html, 0o644); err != nil {
		return err
	}
	res := struct {
		Schema string `json:"schema"`
		File   string `json:"file"`
	}{"keyrite/share-print/v1", o.out}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: print it, then read it back and compare: keyrite share read - --out COPY.share --original %s\n", cli.Escape(o.out), cli.Escape(path))
	})
}

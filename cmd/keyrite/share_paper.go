package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/ceremony/paper"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// maxPaperBytes bounds a share file and the lines that it is typed as.
const maxPaperBytes = 16 << 10

type sharePaperOptions struct{ out, holder, safe string }

func newSharePaper() *cobra.Command {
	var o sharePaperOptions
	c := &cobra.Command{
		Use:   "paper NAME.share --out FILE.html",
		Short: "Make the paper form of a share",
		Long: `Write a page to print on A4 with the same encrypted share as a QR code and as
lines that each carry a check. It is as safe as the file: worthless without the
holder's key. Read it back before the medium leaves the room.

  keyrite share paper master1.share --holder master1 --safe root --out share.html

Exit codes: 0 written, 2 not a share file, 16 FILE exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runSharePaper(c, &o, args[0]) },
	}
	c.Flags().StringVar(&o.out, "out", "", "page to write (required)")
	c.Flags().StringVar(&o.holder, "holder", "", "name to print on it (default: a place to write it)")
	c.Flags().StringVar(&o.safe, "safe", "", "name of the safe to print on it (default: a place to write it)")
	return c
}

func runSharePaper(c *cobra.Command, o *sharePaperOptions, path string) error {
	if o.out == "" {
		return cli.Usagef("--out is required")
	}
	data, err := intake.Read(path, maxPaperBytes)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(data, []byte("age-encryption.org/v1\n")) {
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
	}{"keyrite/share-paper/v1", o.out}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: print it, read it back, and compare: keyrite share from-paper LINES.txt --out COPY.share\n", cli.Escape(o.out))
	})
}

func newShareFromPaper(std cli.IO) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "from-paper FILE|- --out NAME.share",
		Short: "Read a share back from its paper form",
		Long: `Write the share file again from lines that were typed, or from the text of a
scanned QR code, in FILE or on standard input. A line that was misread or is
missing is named. The share stays encrypted; 'keyrite share check' says whether it
is the one in force.

Exit codes: 0 written, 14 a line was misread or is missing, 16 NAME.share exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runShareFromPaper(c, std, out, args[0]) },
	}
	c.Flags().StringVar(&out, "out", "", "share file to write (required)")
	return c
}

func runShareFromPaper(c *cobra.Command, std cli.IO, out, path string) error {
	if out == "" {
		return cli.Usagef("--out is required")
	}
	text, err := readLines(std.In, path)
	if err != nil {
		return err
	}
	file, err := share.FromPaper(strings.Split(string(text), "\n"))
	if err != nil {
		return err
	}
	if err := durable.WriteNew(out, file, 0o600); err != nil {
		return err
	}
	res := struct {
		Schema string `json:"schema"`
		File   string `json:"file"`
		Bytes  int    `json:"bytes"`
	}{"keyrite/share-from-paper/v1", out, len(file)}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d bytes, every line is good\n", cli.Escape(out), len(file))
	})
}

func readLines(in *os.File, path string) ([]byte, error) {
	if path != "-" {
		return intake.Read(path, maxPaperBytes)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPaperBytes+1))
	if err != nil || len(text) > maxPaperBytes {
		return nil, cli.Usagef("standard input is not the lines of a share")
	}
	return text, nil
}

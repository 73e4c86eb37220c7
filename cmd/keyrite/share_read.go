package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/artifact/lines"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

type shareReadOptions struct{ out, original string }

func newShareRead(std cli.IO) *cobra.Command {
	var o shareReadOptions
	c := &cobra.Command{
		Use:   "read FILE|- --out NAME.share [--original NAME.share]",
		Short: "Read a share back from paper",
		Long: `Write the share file again from lines that were typed, or from the text of a
scanned QR code, in FILE or on standard input. Each line that was misread or is
missing is named. At a terminal, with -, each line is judged as soon as it is typed,
and it ends with the last one that was missing.

With --original the lines are compared with the share itself, while its medium is
still in the room: groups that differ are named, and lines that are good but of
another share are refused. The share stays encrypted; 'keyrite share check' says
whether it is the one in force.

  keyrite share read - --out copy.share --original master1.share

Exit codes: 0 written, 14 a line was misread or is missing, or it is another share,
16 NAME.share exists, 130 interrupted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runShareRead(c, std, &o, args[0]) },
	}
	c.Flags().StringVar(&o.out, "out", "", "share file to write (required)")
	c.Flags().StringVar(&o.original, "original", "", "share file to compare with")
	return c
}

func runShareRead(c *cobra.Command, std cli.IO, o *shareReadOptions, path string) error {
	if o.out == "" {
		return cli.Usagef("--out is required")
	}
	if err := absent(o.out); err != nil {
		return err // before somebody types for nothing
	}
	var original []byte
	if o.original != "" {
		var err error
		if original, err = intake.Read(o.original, maxPaperBytes); err != nil {
			return err
		}
		if !isShare(original) {
			return fault.Errorf(fault.Usage, "--original %q is no share: a share is an age file", o.original)
		}
	}
	file, err := readPaper(c.Context(), std, path, original)
	if err != nil {
		return err
	}
	switch {
	case !isShare(file):
		return fault.Errorf(fault.Verify, "the lines are good, and what they are of is no share")
	case original != nil && !bytes.Equal(file, original):
		return fault.Hint(fault.Errorf(fault.Verify, "the lines are good, and of another share than %q", o.original), "is it the sheet of this safe, and of this ceremony?")
	}
	if err := durable.WriteNew(o.out, file, 0o600); err != nil {
		return err
	}
	res := struct {
		Schema   string `json:"schema"`
		File     string `json:"file"`
		Bytes    int    `json:"bytes"`
		Original bool   `json:"original"` // compared with it
	}{"keyrite/share-read/v1", o.out, len(file), original != nil}
	return cli.Print(c, res, func(w io.Writer) {
		text := "every line is good"
		if res.Original {
			text += ", and it is the original letter by letter"
		}
		fmt.Fprintf(w, "%s: %d bytes, %s\n", cli.Escape(o.out), len(file), text)
	})
}

// isShare says whether data may be a share, which is an age file.
func isShare(data []byte) bool { return bytes.HasPrefix(data, []byte("age-encryption.org/v1\n")) }

// readPaper reads lines from a file, or from somebody who types them.
func readPaper(ctx context.Context, std cli.IO, path string, original []byte) ([]byte, error) {
	if path == "-" && std.In != nil && term.IsTerminal(int(std.In.Fd())) {
		return typePaper(ctx, std, original)
	}
	text, err := readLines(std.In, path)
	if err != nil {
		return nil, err
	}
	file, err := lines.Parse(string(text))
	if err != nil && original != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "%w%s", err, differences(string(text), original))
	}
	return file, err
}

// differences says how lines differ from the original, at most as many as a person
// would look at; "" where they do not.
func differences(text string, original []byte) string {
	const most = 12
	list, err := lines.Compare(text, original)
	if err != nil || len(list) == 0 {
		return ""
	}
	if len(list) > most {
		list = append(list[:most], fmt.Sprintf("and %d more: is it the sheet of this share?", len(list)-most))
	}
	return ". Beside the original: " + strings.Join(list, "; ")
}

// typePaper judges each line as it is typed.
func typePaper(ctx context.Context, std cli.IO, original []byte) ([]byte, error) {
	var s lines.Sheet
	fmt.Fprintln(std.Err, "Type the lines, or scan the code. Small letters and other spacing do; a line may be typed again.")
	in := typedLines(std.In)
	for left := s.Missing(); left != ""; left = s.Missing() {
		fmt.Fprintf(std.Err, "%s: ", left)
		text, err := nextLine(ctx, in)
		if err != nil {
			return nil, err
		}
		if err := s.Add(text); err != nil {
			said := err.Error()
			if original != nil {
				said += differences(text, original)
			}
			fmt.Fprintln(std.Err, "  "+cli.Escape(said))
		}
	}
	return s.Bytes()
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

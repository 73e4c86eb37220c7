package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/artifact/signrequest"
	"keyrite/ceremony/console"
	"keyrite/ceremony/qr"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

type personSignOptions struct {
	key, out     string
	show         bool
	passphraseFD int
}

func newPersonSign(std cli.IO) *cobra.Command {
	var o personSignOptions
	c := &cobra.Command{
		Use:   "sign REQUEST|- --key FILE [--out ANSWER] [--show]",
		Short: "Sign on your own machine what somebody elsewhere asks you to",
		Long: `Show in words what a request asks you to sign, and sign it with your key file or
card. Your key need never touch the ceremony computer. The request comes as a file on
a medium, or as what a QR reader made of its code, or in lines that were typed; with
- they are typed here. The answer goes back as a file (--out), or as a few lines and
a QR code on this screen (--show), to be typed or scanned where it is waited for.

Everything shown is read from the very bytes that are signed. Compare the digest's
words with those that the room shows. Giving your passphrase or PIN is your yes; if
anything is not as it should be, stop the program and say so.

Only statements of the charter, records, identity documents, incidents and update
roots are signed this way; anything else is refused.

  keyrite person sign 7.request --key witness1.key --out 7.answer
  keyrite person sign scanned.txt --key witness1.key --show

Exit codes: 0 signed, 12 wrong passphrase or PIN, 13 it asks somebody else, another
world, expired, or something that is not signed this way, 14 not a request, or a line
of it was misread, 16 the answer exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runPersonSign(c, std, &o, args[0]) },
	}
	c.Flags().StringVar(&o.key, "key", "", "your NAME.key or NAME.card (required)")
	c.Flags().StringVar(&o.out, "out", "", "answer file to write")
	c.Flags().BoolVar(&o.show, "show", false, "show the answer as lines to type and as a QR code")
	c.Flags().IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with your passphrase or PIN (default: the terminal)")
	return c
}

func runPersonSign(c *cobra.Command, std cli.IO, o *personSignOptions, path string) error {
	if o.key == "" || o.out == "" && !o.show {
		return cli.Usagef("--key is required, and one of --out and --show")
	}
	if o.out != "" {
		if err := absent(o.out); err != nil {
			return err
		}
	}
	r, err := readRequest(c.Context(), std, path)
	if err != nil {
		return err
	}
	shown, err := r.Show()
	if err != nil {
		return err
	}
	digest, words := r.Digest()
	showRequest(c.ErrOrStderr(), r, shown, digest, words)
	k, err := openKey(c.Context(), o.key, o.passphraseFD, std)
	if err != nil {
		return err
	}
	defer k.Zero()
	a, err := signrequest.Sign(r, k, time.Now())
	if err != nil {
		return err
	}
	answer, err := a.Marshal()
	if err != nil {
		return err
	}
	if _, err := signrequest.Verify(answer, r, k.Public()); err != nil {
		return err // a card that gives a wrong signature
	}
	if o.out != "" {
		if err := durable.WriteNew(o.out, answer, 0o644); err != nil {
			return err
		}
	}
	res := struct {
		Schema  string   `json:"schema"`
		Answer  string   `json:"answer"`
		Lines   []string `json:"lines,omitempty"`
		Purpose string   `json:"purpose"`
		Digest  string   `json:"digest"`
	}{"keyrite/person-sign/v1", o.out, nil, shown.Purpose, digest}
	var code []string
	if o.show {
		if res.Lines, code, err = shownAnswer(a); err != nil {
			return err
		}
	}
	return cli.Print(c, res, func(w io.Writer) {
		if o.out != "" {
			fmt.Fprintf(w, "%s: take it back to who asked\n", cli.Escape(res.Answer))
		}
		for _, l := range append(res.Lines, code...) {
			fmt.Fprintln(w, l)
		}
	})
}

// shownAnswer is an answer as lines and as a QR code.
func shownAnswer(a *signrequest.Answer) (typed, code []string, err error) {
	if typed, err = a.Lines(); err != nil {
		return nil, nil, err
	}
	text, err := a.Code()
	if err != nil {
		return nil, nil, err
	}
	code, err = qr.Rows(text, console.ASCII())
	return typed, code, err
}

// readRequest reads a request from a file in either form, or from somebody who types
// its lines.
func readRequest(ctx context.Context, std cli.IO, path string) (*signrequest.Request, error) {
	var data []byte
	var err error
	if path == "-" && std.In != nil && term.IsTerminal(int(std.In.Fd())) {
		data, err = typePaper(ctx, std, nil)
	} else if path == "-" {
		data, err = readLines(std.In, path)
	} else {
		data, err = intake.Read(path, signrequest.MaxBytes)
	}
	if err != nil {
		return nil, err
	}
	r, err := signrequest.Read(data)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "request %q: %w", path, err)
	}
	return r, nil
}

// showRequest tells the holder what he is about to sign.
func showRequest(w io.Writer, r *signrequest.Request, s *signrequest.Shown, digest, words string) {
	fmt.Fprintf(w, "%s asks %s to sign, until %s, in world %s (%s):\n", cli.Escape(r.Asks), r.Name, r.Expires, r.World, s.Purpose)
	for _, l := range s.Lines {
		fmt.Fprintf(w, "  %s\n", cli.Escape(l))
	}
	fmt.Fprintf(w, "digest %s\n  in words: %s\n", digest, words)
}

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/signrequest"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

type personSignOptions struct {
	key, out     string
	passphraseFD int
}

func newPersonSign(std cli.IO) *cobra.Command {
	var o personSignOptions
	c := &cobra.Command{
		Use:   "sign REQUEST --key FILE --out ANSWER",
		Short: "Sign on your own machine what somebody elsewhere asks you to",
		Long: `Show in words what a request asks you to sign, and sign it with your key file or
card. Your key need never touch the ceremony computer: the request comes and the
answer goes as a file on a medium, or as a QR code.

Everything shown is read from the very bytes that are signed. Compare the digest's
words with those that the room shows. Giving your passphrase or PIN is your yes; if
anything is not as it should be, stop the program and say so.

Only statements of the charter, records, identity documents, incidents and update
roots are signed this way; anything else is refused.

  keyrite person sign 7.request --key witness1.key --out 7.answer

Exit codes: 0 signed, 12 wrong passphrase or PIN, 13 it asks somebody else, another
world, expired, or something that is not signed this way, 14 not a request, 16 the
answer exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runPersonSign(c, std, &o, args[0]) },
	}
	c.Flags().StringVar(&o.key, "key", "", "your NAME.key or NAME.card (required)")
	c.Flags().StringVar(&o.out, "out", "", "answer file to write (required)")
	c.Flags().IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with your passphrase or PIN (default: the terminal)")
	return c
}

func runPersonSign(c *cobra.Command, std cli.IO, o *personSignOptions, path string) error {
	if o.key == "" || o.out == "" {
		return cli.Usagef("--key and --out are required")
	}
	data, err := intake.Read(path, signrequest.MaxBytes)
	if err != nil {
		return err
	}
	r, err := signrequest.Parse(data)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "request %q: %w", path, err)
	}
	if err := absent(o.out); err != nil {
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
	if err := durable.WriteNew(o.out, answer, 0o644); err != nil {
		return err
	}
	res := struct {
		Schema  string `json:"schema"`
		Answer  string `json:"answer"`
		Purpose string `json:"purpose"`
		Digest  string `json:"digest"`
	}{"keyrite/person-sign/v1", o.out, shown.Purpose, digest}
	return cli.Print(c, res, func(w io.Writer) { fmt.Fprintf(w, "%s: take it back to who asked\n", cli.Escape(res.Answer)) })
}

// showRequest tells the holder what he is about to sign.
func showRequest(w io.Writer, r *signrequest.Request, s *signrequest.Shown, digest, words string) {
	fmt.Fprintf(w, "%s asks %s to sign, until %s, in world %s (%s):\n", cli.Escape(r.Asks), r.Name, r.Expires, r.World, s.Purpose)
	for _, l := range s.Lines {
		fmt.Fprintf(w, "  %s\n", cli.Escape(l))
	}
	fmt.Fprintf(w, "digest %s\n  in words: %s\n", digest, words)
}

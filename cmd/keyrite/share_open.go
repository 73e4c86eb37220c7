package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/quorum"
)

type shareOpenOptions struct {
	trust                     trustOptions
	key, share, out, yesWords string
	passphraseFD              int
}

func newShareOpen(std cli.IO) *cobra.Command {
	var o shareOpenOptions
	c := &cobra.Command{
		Use:   "open REQUEST --key NAME.key --share NAME.share --anchor FILE --charter FILE --out ANSWER",
		Short: "Give your share to a vault that asks for it, from your own machine",
		Long: `Answer a vault's request for shares. What is asked is shown first: which host, which vault
and world, for which operation, until when. A request that no host of the charter in force
signed, of another vault, world, epoch or charter, or expired, is not answered.

Compare the words with those that the person read to you who asks; then type yes. Without a
terminal, give the words themselves with --yes-words.

Your share is opened here for a moment, compared with the charter, and encrypted to a key
that exists only in that vault's memory and only for this attempt; your two keys sign that it
is for this request. The answer is of no use for anything else, and to nobody else. Your
share stays what it is.

  keyrite share open monday.request --key anna.key --share anna.share \
      --anchor anchors.json --charter charter.jsonl --out anna.answer

Exit codes: 0 answered, 2 not confirmed, 12 wrong passphrase or PIN, 13 the request may not be
answered, 14 not signed by a host, altered, or the share is not the one in force, 16 ANSWER
exists, 130 interrupted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runShareOpen(c, std, &o, args[0]) },
	}
	o.trust.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.key, "key", "", "your NAME.key or NAME.card (required)")
	f.StringVar(&o.share, "share", "", "your share, or the lines of its paper form (required)")
	f.StringVar(&o.out, "out", "", "answer file to write (required)")
	f.StringVar(&o.yesWords, "yes-words", "", "the request's words, as your yes, where there is no terminal")
	f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with your passphrase or PIN (default: the terminal)")
	return c
}

func runShareOpen(c *cobra.Command, std cli.IO, o *shareOpenOptions, path string) error {
	if o.key == "" || o.share == "" || o.out == "" {
		return cli.Usagef("--key, --share and --out are required")
	}
	if err := absent(o.out); err != nil {
		return err
	}
	_, state, err := o.trust.load()
	if err != nil {
		return err
	}
	data, err := intake.Read(path, openrequest.MaxBytes)
	if err != nil {
		return err
	}
	r, err := openrequest.Open(data, state, time.Now())
	if err != nil {
		return fault.Hint(fault.Errorf(fault.ClassOf(err), "request %q: %w", path, err), fault.HintOf(err))
	}
	if err := o.confirm(c.Context(), std, r); err != nil {
		return err
	}
	open := openOptions{openers: []string{o.key + ":" + o.share}, passphraseFD: o.passphraseFD}
	openers, err := open.load()
	if err != nil {
		return err
	}
	pass, release, err := open.unlock(c.Context(), std, openers)
	if err != nil {
		return err
	}
	defer release()
	defer pass.Close()
	conf, err := quorum.Self()
	if err != nil {
		return err
	}
	answer, err := conf.Contribute(c.Context(), state, r, openers[0], pass)
	if err != nil {
		return err
	}
	// Somebody may have thought it over for long.
	if err := r.Check(state, time.Now()); err != nil {
		return err
	}
	if err := durable.WriteNew(o.out, answer, 0o600); err != nil {
		return err
	}
	res := struct {
		Schema    string `json:"schema"`
		Answer    string `json:"answer"` // path
		Host      string `json:"host"`
		Operation string `json:"operation"`
		Safe      string `json:"safe"`
		Epoch     int    `json:"epoch"`
		Expires   string `json:"expires"`
	}{"keyrite/share-open/v1", o.out, r.Host, r.Operation, r.Safe, r.Epoch, r.Expires}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: send it back before %s\n", cli.Escape(res.Answer), res.Expires)
	})
}

// confirm shows what is asked and takes the holder's yes.
func (o *shareOpenOptions) confirm(ctx context.Context, std cli.IO, r *openrequest.Request) error {
	lines, err := r.Lines()
	if err != nil {
		return err
	}
	for _, l := range lines {
		fmt.Fprintf(std.Err, "  %s\n", cli.Escape(l))
	}
	_, said, err := r.Hash()
	if err != nil {
		return err
	}
	if o.yesWords != "" {
		if strings.Join(strings.Fields(o.yesWords), " ") != said {
			return fault.Errorf(fault.Usage, "--yes-words are not the words of this request: nothing was given")
		}
		return nil
	}
	if std.In == nil || !term.IsTerminal(int(std.In.Fd())) {
		return &cli.Error{Class: "usage", Hint: "type yes at a terminal, or give the request's words, which you compared, with --yes-words", Err: fault.New(fault.Usage, "nobody confirmed the request")}
	}
	fmt.Fprint(std.Err, "Are these the words that you were told, and do you give your share to this? Type yes: ")
	text, err := oneLine(ctx, std.In)
	if err != nil {
		return err
	}
	if text != "yes" {
		return fault.Errorf(fault.Usage, "it was not confirmed: nothing was given")
	}
	return nil
}

// oneLine reads a line and not a byte more: what follows may be a passphrase, which is
// read elsewhere and not echoed.
func oneLine(ctx context.Context, in io.Reader) (string, error) {
	line := make(chan string)
	go func() { // it ends with the line, or with the program
		defer close(line)
		var text []byte
		var one [1]byte
		for len(text) < 256 {
			n, err := in.Read(one[:])
			if n == 1 && one[0] == '\n' {
				select {
				case line <- string(text):
				case <-ctx.Done():
				}
				return
			}
			if err != nil {
				return
			}
			text = append(text, one[:n]...)
		}
	}()
	return nextLine(ctx, line)
}

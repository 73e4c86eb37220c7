package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/control"
	"keyrite/vault/unseal"
)

type unsealOptions struct {
	placeOptions
	newAttempt     bool
	out, operation string
	retry, drop    string
	answers        []string
	valid          time.Duration
}

func newUnseal() *cobra.Command {
	var o unsealOptions
	c := &cobra.Command{
		Use:   "unseal --bind FILE --state-dir DIR (--new-attempt --out REQUEST | --answer FILE … | --retry ATTEMPT | --drop ATTEMPT)",
		Short: "Open the vault with the shares of its key masters",
		Long: `Ask the key masters for their shares, and hand in what they answer. The vault must be
running ('keyrite-vault serve').

  keyrite-vault unseal --new-attempt --out monday.request --bind vault.yaml --state-dir /var/lib/keyrite
  # every key master, on his own machine:
  keyrite share open monday.request --key anna.key --share anna.share --anchor … --charter … --out anna.answer
  keyrite-vault unseal --answer anna.answer --answer ben.answer --bind vault.yaml --state-dir /var/lib/keyrite

A request is for one attempt of one operation: unseal; create, for a vault that has no
store yet; reseal, for an open one whose shares were dealt anew; carry, with the old
shares, before reseal, for one that was sealed then; rehead, for one whose head is kept
elsewhere from now on. Each answer is judged at
once. A bad one is named with its holder and does not count; the others stay. With the
last one needed the vault opens before the command ends. Without any of the flags the
progress is shown.

Exit codes: 0 begun, taken or open; 10 a share was given twice; 12 the token is absent or
not admitted; 13 the attempt has ended, or another vault, world or charter; 14 a wrong, old
or foreign share; 16 REQUEST exists, or the vault is open; 19 no vault runs.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runUnseal(c, &o) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.BoolVar(&o.newAttempt, "new-attempt", false, "begin an attempt")
	f.StringVar(&o.out, "out", "", "file for the request of a new attempt; it goes to every key master of the safe")
	f.StringVar(&o.operation, "operation", openrequest.Unseal, "what a new attempt is for: unseal, create, reseal, carry or rehead")
	f.DurationVar(&o.valid, "valid", 0, "how long a new attempt may take (default and most: as the binding says)")
	f.StringArrayVar(&o.answers, "answer", nil, "answer of a key master; may repeat")
	f.StringVar(&o.retry, "retry", "", "try again to open with the shares that an attempt has")
	f.StringVar(&o.drop, "drop", "", "end an attempt")
	c.MarkFlagsMutuallyExclusive("new-attempt", "answer", "retry", "drop")
	return c
}

func runUnseal(c *cobra.Command, o *unsealOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if _, err := loadBind(o.bind); err != nil {
		return err
	}
	cl := control.NewClient(o.stateDir)
	switch {
	case o.newAttempt:
		return runNewAttempt(c, o, cl)
	case o.out != "":
		return cli.Usagef("--out is for --new-attempt")
	case len(o.answers) > 0:
		return runAnswers(c, o, cl)
	case o.retry != "":
		p, err := cl.Retry(c.Context(), o.retry)
		if err != nil {
			return err
		}
		return printProgress(c, []unseal.Progress{*p})
	case o.drop != "":
		if err := cl.Drop(c.Context(), o.drop); err != nil {
			return err
		}
		return printProgress(c, []unseal.Progress{})
	}
	st, err := cl.Status(c.Context())
	if err != nil {
		return err
	}
	return printProgress(c, st.Attempts)
}

func runNewAttempt(c *cobra.Command, o *unsealOptions, cl *control.Client) error {
	if o.out == "" {
		return cli.Usagef("--new-attempt needs --out: the file that goes to the key masters")
	}
	f, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	x, err := cl.New(c.Context(), o.operation, o.valid)
	if err != nil {
		return err
	}
	if err := f.Finish(x.Request); err != nil {
		return err
	}
	res := struct {
		Schema  string `json:"schema"`
		Request string `json:"request"` // path
		unseal.Progress
	}{"keyrite/vault-attempt/v1", o.out, x.Progress}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: send it to the key masters; %d of them must answer until %s\n", cli.Escape(o.out), x.Need, x.Expires)
		fmt.Fprintf(w, "they see these words: %s\n", x.Words)
	})
}

// runAnswers hands in every answer, also after a bad one: the good ones count.
func runAnswers(c *cobra.Command, o *unsealOptions, cl *control.Client) error {
	var last *unseal.Progress
	var bad error
	for _, path := range o.answers {
		data, err := intake.Read(path, openrequest.MaxBytes)
		var p *unseal.Progress
		if err == nil {
			p, err = cl.Answer(c.Context(), data)
		}
		if err != nil {
			err = fault.Hint(fault.Errorf(fault.ClassOf(err), "answer %q: %w", path, err), fault.HintOf(err))
			if bad != nil {
				fmt.Fprintf(c.ErrOrStderr(), "keyrite-vault: %s\n", cli.Escape(err.Error()))
				continue
			}
			bad = err
			continue
		}
		last = p
		if p.Open {
			break // those that follow are not needed any more
		}
	}
	if bad != nil && (last == nil || !last.Open) {
		if last != nil && !cli.JSON(c) {
			showProgress(c.ErrOrStderr(), []unseal.Progress{*last})
		}
		return bad
	}
	if bad != nil {
		fmt.Fprintf(c.ErrOrStderr(), "keyrite-vault: %s\n", cli.Escape(bad.Error()))
	}
	return printProgress(c, []unseal.Progress{*last})
}

func printProgress(c *cobra.Command, list []unseal.Progress) error {
	res := struct {
		Schema   string            `json:"schema"`
		Attempts []unseal.Progress `json:"attempts"`
	}{"keyrite/vault-unseal/v1", list}
	return cli.Print(c, res, func(w io.Writer) { showProgress(w, list) })
}

func showProgress(w io.Writer, list []unseal.Progress) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no attempt is under way")
	}
	for _, p := range list {
		if p.Carried {
			fmt.Fprintln(w, "the key of the store is open, by shares of before; now: unseal --new-attempt --operation reseal, answered with the new shares, before the key is wiped: 'keyrite-vault status' says when")
			continue
		}
		if p.Open {
			fmt.Fprintf(w, "the vault is OPEN: %s by %s\n", p.Operation, strings.Join(p.Given, ", "))
			continue
		}
		fmt.Fprintf(w, "attempt %s: %s, %d of %d shares (%s), until %s\n", p.Attempt, p.Operation, len(p.Given), p.Need, strings.Join(p.Given, ", "), p.Expires)
	}
}

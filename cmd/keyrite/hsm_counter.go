package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/hsm"
	"keyrite/internal/cli"
)

type hsmCounterOptions struct {
	tokenOptions
	reset  bool
	reason string
}

func newHSMCounter() *cobra.Command {
	var o hsmCounterOptions
	c := &cobra.Command{
		Use:   "pin-counter --module PATH --token LABEL [--reset --reason TEXT]",
		Short: "Show, or reset, how many wrong PINs a token was given",
		Long: `Show how many wrong PINs in a row the programs of keyrite gave a token, and who
reset that count before. After three they wait, from 30 s on and twice as long
each time; after ten they try none any more, the right one included. A right PIN
ends the count by itself.

With --reset the count begins anew: after somebody found out where the wrong PINs
came from. The reason stays in the counter with time and user. What the token
itself counted is not changed; that is for its SO.

Exit codes: 0 good; 12 token absent; 13 others may write the counter's folder or the
module, or several tokens have the label; 18 the counter cannot be read or written;
2 unusable input.`,
		Example: `  keyrite hsm pin-counter --module /usr/lib/softhsm/libsofthsm2.so --token work
  keyrite hsm pin-counter --module /usr/lib/softhsm/libsofthsm2.so --token work \
    --reset --reason 'an old PIN was in the configuration'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runHSMCounter(c.Context(), c, &o) },
	}
	o.addNameFlags(c)
	f := c.Flags()
	f.BoolVar(&o.reset, "reset", false, "begin the count anew")
	f.StringVar(&o.reason, "reason", "", "why, in at most 200 characters")
	_ = c.MarkFlagRequired("module") // fails only for a flag that does not exist
	_ = c.MarkFlagRequired("token")
	c.MarkFlagsRequiredTogether("reset", "reason")
	return c
}

type hsmCounterResult struct {
	Schema  string         `json:"schema"`
	Token   hsm.TokenID    `json:"token"`
	Counter hsm.PINCounter `json:"counter"`
}

func runHSMCounter(ctx context.Context, c *cobra.Command, o *hsmCounterOptions) (err error) {
	for _, r := range o.reason {
		if r < ' ' || r == 0x7f {
			return cli.Usagef("--reason holds a control character")
		}
	}
	sup, err := hsm.Start(ctx, o.config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	id, err := o.find(ctx, sup)
	if err != nil {
		return err
	}
	var got *hsm.PINCounter
	if o.reset {
		got, err = sup.ResetPINCounter(ctx, id, o.reason)
	} else {
		got, err = sup.PINCounter(ctx, id)
	}
	if err != nil {
		return err
	}
	res := hsmCounterResult{Schema: "keyrite/hsm-pin-counter/v1", Token: id, Counter: *got}
	return cli.Print(c, res, func(w io.Writer) { printCounter(w, &res) })
}

func printCounter(w io.Writer, r *hsmCounterResult) {
	k := &r.Counter
	fmt.Fprintf(w, "token %s, serial %s\n", cli.Escape(r.Token.Label), cli.Escape(r.Token.Serial))
	if k.Damaged != "" {
		fmt.Fprintf(w, "%s\nno PIN is tried until the counter is reset\n", cli.Escape(k.Damaged))
		return
	}
	fmt.Fprintf(w, "wrong PINs in a row, of %d: user %d, SO %d\ncounted in %s\n", k.Limit, k.User, k.SO, cli.Escape(k.Path))
	for _, x := range k.Resets {
		fmt.Fprintf(w, "reset %s by user %d (%d and %d forgotten): %s\n", x.Time, x.UID, x.User, x.SO, cli.Escape(x.Reason))
	}
}

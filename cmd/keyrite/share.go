package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/vault/quorum"
)

func newShare(std cli.IO) *cobra.Command {
	c := &cobra.Command{Use: "share", Short: "Check and use the shares that key masters hold"}
	c.AddCommand(newShareCheck(std), newShareChallenge(), newShareProve(std), newShareOpen(std), newSharePrint(), newShareRead(std))
	return c
}

// newShareChild is the hidden command that runs in a process of its own.
func newShareChild() *cobra.Command {
	return &cobra.Command{
		Use: quorum.ChildCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return quorum.Child() },
	}
}

type shareCheckOptions struct {
	trust trustOptions
	open  openOptions
	safe  string
}

func newShareCheck(std cli.IO) *cobra.Command {
	var o shareCheckOptions
	c := &cobra.Command{
		Use:   "check --safe NAME --opener KEYFILE:SHAREFILE … --anchor FILE --charter FILE",
		Short: "Check shares without combining them",
		Long: `Check that shares are the ones in force: each is opened with its holder's key
and compared with the public half in the charter. Nothing is combined and no
token is touched. SHAREFILE may also hold the lines of the paper form. A wrong, old or foreign share is named with its holder.

Exit codes: 0 all good, 12 wrong passphrase, 14 a share is not the one in force.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runShareCheck(c, std, &o) },
	}
	o.trust.addFlags(c)
	c.Flags().StringArrayVar(&o.open.openers, "opener", nil, "KEYFILE:SHAREFILE of one key master; may repeat")
	c.Flags().IntVar(&o.open.passphraseFD, "passphrase-fd", -1, "descriptor with the passphrases, one line each (default: the terminal)")
	c.Flags().StringVar(&o.safe, "safe", "", "name of the safe, root or work (required)")
	return c
}

func runShareCheck(c *cobra.Command, std cli.IO, o *shareCheckOptions) error {
	_, state, err := o.trust.load()
	if err != nil {
		return err
	}
	openers, err := o.open.load()
	if err != nil {
		return err
	}
	if len(openers) == 0 {
		return cli.Usagef("no --opener is given")
	}
	pass, release, err := o.open.unlock(c.Context(), std, openers)
	if err != nil {
		return err
	}
	defer release()
	defer pass.Close()
	conf, err := quorum.Self()
	if err != nil {
		return err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	res, err := conf.Check(c.Context(), quorum.OpenParams{
		State: state, Safe: o.safe, Operation: strings.Repeat("0", 64), Nonce: nonce, Openers: openers, Passphrases: pass,
	})
	if err != nil {
		return err
	}
	out := struct {
		Schema  string   `json:"schema"`
		Safe    string   `json:"safe"`
		Epoch   int      `json:"epoch"`
		Holders []string `json:"holders"`
		Need    int      `json:"need"`
	}{"keyrite/share-check/v1", o.safe, state.Epochs[o.safe].Epoch, res.Holders, state.Epochs[o.safe].Need}
	return cli.Print(c, out, func(w io.Writer) {
		for _, h := range res.Holders {
			fmt.Fprintf(w, "%s holds a good share of safe %s, epoch %d\n", h, o.safe, out.Epoch)
		}
	})
}

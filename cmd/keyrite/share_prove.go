package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/quorum"
)

type shareChallengeOptions struct {
	trust                      trustOptions
	safe, purpose, out, ledger string
	valid                      time.Duration
}

func newShareChallenge() *cobra.Command {
	var o shareChallengeOptions
	c := &cobra.Command{
		Use:   "challenge --safe NAME --purpose TEXT --anchor FILE --charter FILE --out FILE",
		Short: "Ask the holders of a safe to prove that their shares are alive",
		Long: `Make a challenge for the shares in force of a safe. Send it to every holder; each
answers with 'keyrite share prove' on a machine of his own, and nobody travels.
The answers are accepted, each once, by 'keyrite-verify share-proof', which needs
the ledger that this command writes: a file beside the charter, CHARTER.proofs, or,
if the charter lies in a record, beside that: RECORD.proofs.

  keyrite share challenge --safe work --purpose "half-yearly check" \
      --anchor anchors.json --charter charter.jsonl --out spring.challenge

A challenge holds no secret and is good for 7 days at most.

Exit codes: 0 made, 2 not usable, 13 no such safe, 16 the file exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runShareChallenge(c, &o) },
	}
	o.trust.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.safe, "safe", "", "name of the safe (required)")
	f.StringVar(&o.purpose, "purpose", "", "why it is asked, shown to the holder (required)")
	f.StringVar(&o.out, "out", "", "challenge file to write (required)")
	f.StringVar(&o.ledger, "ledger", "", "ledger of challenges and proofs (default: the charter file's name with .proofs; of a charter in a record, RECORD.proofs)")
	f.DurationVar(&o.valid, "valid", share.MaxChallenge, "how long it may be answered, at most 168h")
	return c
}

func runShareChallenge(c *cobra.Command, o *shareChallengeOptions) error {
	if o.safe == "" || o.purpose == "" || o.out == "" {
		return cli.Usagef("--safe, --purpose and --out are required")
	}
	_, state, err := o.trust.load()
	if err != nil {
		return err
	}
	ch, err := share.NewChallenge(state, o.safe, o.purpose, time.Now(), o.valid)
	if err != nil {
		return err
	}
	data, err := ch.Marshal()
	if err != nil {
		return err
	}
	if err := absent(o.out); err != nil {
		return err
	}
	// First the ledger: a challenge that nobody knows to be ours is worth nothing.
	if err := issue(ledgerPath(o.ledger, o.trust.charter), ch); err != nil {
		return err
	}
	if err := durable.WriteNew(o.out, data, 0o644); err != nil {
		return err
	}
	id, err := ch.ID()
	if err != nil {
		return err
	}
	res := struct {
		Schema    string `json:"schema"`
		Challenge string `json:"challenge"`
		ID        string `json:"id"`
		Safe      string `json:"safe"`
		Epoch     int    `json:"epoch"`
		Expires   string `json:"expires"`
	}{"keyrite/share-challenge-made/v1", o.out, id, ch.Safe, ch.Epoch, ch.Expires}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s asks the holders of safe %s, epoch %d, until %s\n", cli.Escape(res.Challenge), cli.Escape(res.Safe), res.Epoch, res.Expires)
	})
}

func ledgerPath(flag, charterFile string) string {
	if flag != "" {
		return flag
	}
	return cli.LedgerOf(charterFile)
}

func issue(path string, ch *share.Challenge) (err error) {
	if data, err := os.ReadFile(path); err == nil && !share.LooksLikeLedger(data) {
		return cli.Usagef("--ledger %q is another file, which is left alone", path)
	}
	log, lines, err := durable.OpenAppend(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	l, err := share.ReadLedger(lines)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "%q: %w", path, err)
	}
	line, err := l.Issue(ch)
	if err != nil {
		return err
	}
	return log.Line(line)
}

type shareProveOptions struct {
	trust trustOptions
	open  openOptions
	out   string
}

func newShareProve(std cli.IO) *cobra.Command {
	var o shareProveOptions
	c := &cobra.Command{
		Use:   "prove CHALLENGE --opener KEYFILE:SHAREFILE --anchor FILE --charter FILE --out FILE",
		Short: "Prove that your share is alive",
		Long: `Answer a challenge: your share is opened with your key, here and for a moment,
and its own key and yours sign the challenge. The share stays what it is, opens
nothing, and does not leave this machine; the proof is public.

What is asked, why and until when is shown first. A challenge of another vault, of
an old epoch, or expired is not answered.

Exit codes: 0 proven, 12 wrong passphrase or PIN, 13 the challenge may not be
answered, 14 the share is not the one in force, 16 the file exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runShareProve(c, std, &o, args[0]) },
	}
	o.trust.addFlags(c)
	c.Flags().StringArrayVar(&o.open.openers, "opener", nil, "KEYFILE:SHAREFILE, your key and your share (required)")
	c.Flags().IntVar(&o.open.passphraseFD, "passphrase-fd", -1, "descriptor with your passphrase or PIN (default: the terminal)")
	c.Flags().StringVar(&o.out, "out", "", "proof file to write (required)")
	return c
}

func runShareProve(c *cobra.Command, std cli.IO, o *shareProveOptions, path string) error {
	if o.out == "" || len(o.open.openers) != 1 {
		return cli.Usagef("--out and one --opener are required")
	}
	_, state, err := o.trust.load()
	if err != nil {
		return err
	}
	if err := absent(o.out); err != nil {
		return err
	}
	data, err := intake.Read(path, share.MaxProofBytes)
	if err != nil {
		return err
	}
	ch, err := share.ParseChallenge(data)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "challenge %q: %w", path, err)
	}
	now := time.Now()
	if err := ch.Check(state, now); err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "You prove that your share of safe %s, epoch %d, is alive.\n  asked at %s, until %s\n  why: %s\n",
		cli.Escape(ch.Safe), ch.Epoch, ch.Issued, ch.Expires, cli.Escape(ch.Purpose))
	openers, err := o.open.load()
	if err != nil {
		return err
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
	proof, err := conf.Prove(c.Context(), state, ch, openers[0], pass, now)
	if err != nil {
		return err
	}
	if err := durable.WriteNew(o.out, proof, 0o644); err != nil {
		return err
	}
	res := struct {
		Schema string `json:"schema"`
		Proof  string `json:"proof"`
		Safe   string `json:"safe"`
		Epoch  int    `json:"epoch"`
	}{"keyrite/share-prove/v1", o.out, ch.Safe, ch.Epoch}
	return cli.Print(c, res, func(w io.Writer) { fmt.Fprintf(w, "%s: send it back to who asked\n", cli.Escape(res.Proof)) })
}

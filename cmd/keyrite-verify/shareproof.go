package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

type shareProofOptions struct {
	anchorOptions
	charter, ledger string
	challenges      []string
}

func newShareProof() *cobra.Command {
	var o shareProofOptions
	c := &cobra.Command{
		Use:   "share-proof [FILE…] --anchor FILE --charter FILE",
		Short: "Accept the proofs of key masters that their shares are alive",
		Long: `Verify proofs made by 'keyrite share prove': each must be signed by the share key
and the person key of a holder of the epoch in force, and answer a challenge that
was issued here and has not expired. Each is accepted once. Both is kept in the
ledger that 'keyrite share challenge' began, a file beside the charter.

To accept proofs where the ledger is not, name the challenge with --challenge: your
own copy, not one that came with the proof.

All files are good, or none is accepted.

Without a FILE the proofs in the ledger named with --ledger are verified, and nothing is
written: what a keeper was shown is verified by whoever gets a copy of his ledger.

Exit codes: 0 accepted, or the ledger holds, 13 accepted before, expired, of an old epoch, another vault
or world, or no challenge of ours, 14 altered or not signed by share and person, or a
ledger line has no proof.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return runShareProof(c, &o, args) },
	}
	anchorFlags(c, &o.anchorOptions)
	c.Flags().StringVar(&o.charter, "charter", "", "charter file of the vault (required)")
	c.Flags().StringVar(&o.ledger, "ledger", "", "ledger of challenges and proofs (default: the charter file's name with .proofs; of a charter in a record, RECORD.proofs)")
	c.Flags().StringArrayVar(&o.challenges, "challenge", nil, "challenge that was issued by you elsewhere; may repeat")
	return c
}

type shareProofResult struct {
	Schema string        `json:"schema"`
	World  string        `json:"world"`
	Proofs []provenShare `json:"proofs"`
}

type provenShare struct {
	Holder  string `json:"holder"`
	Safe    string `json:"safe"`
	Epoch   int    `json:"epoch"`
	Purpose string `json:"purpose"`
	// Accepted is when, as the ledger says; only where one is verified.
	Accepted string `json:"accepted,omitempty"`
}

func runShareProof(c *cobra.Command, o *shareProofOptions, paths []string) (err error) {
	a, err := o.loadAnchors()
	if err != nil {
		return err
	}
	if o.charter == "" {
		return cli.Usagef("--charter is missing")
	}
	data, err := intake.Read(o.charter, 64<<20)
	if err != nil {
		return err
	}
	state, err := charter.Fold(data, a.World, a.Vault)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "charter %q: %w", o.charter, err)
	}
	if len(paths) == 0 {
		return o.runLedger(c, a, data)
	}
	now := time.Now()
	proofs, err := readProofs(paths, state, now)
	if err != nil {
		return err
	}
	if o.ledger == "" {
		o.ledger = cli.LedgerOf(o.charter)
	}
	if err := o.accept(proofs, state, now); err != nil {
		return err
	}
	res := shareProofResult{"keyrite/share-proof-verified/v1", string(a.World), []provenShare{}}
	for _, p := range proofs {
		res.Proofs = append(res.Proofs, provenShare{Holder: p.Holder, Safe: p.Place.Safe, Epoch: p.Place.Epoch, Purpose: p.Challenge.Purpose})
	}
	return cli.Print(c, res, func(w io.Writer) {
		for _, p := range res.Proofs {
			fmt.Fprintf(w, "%s proved the share of safe %s, epoch %d: %s\n", p.Holder, p.Safe, p.Epoch, cli.Escape(p.Purpose))
		}
	})
}

// runLedger verifies the proofs that a ledger keeps. charterLines were folded.
func (o *shareProofOptions) runLedger(c *cobra.Command, a *anchor.Anchors, charterLines []byte) error {
	if o.ledger == "" || len(o.challenges) > 0 {
		return cli.Usagef("name files with proofs to accept, or a ledger to verify with --ledger and no --challenge")
	}
	data, err := intake.Read(o.ledger, share.MaxLedgerBytes)
	if err != nil {
		return err
	}
	l, err := share.ParseLedger(data)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "%q: %w", o.ledger, err)
	}
	kept, err := l.Check(charterLines)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "%q: %w", o.ledger, err)
	}
	res := shareProofResult{"keyrite/share-proof-verified/v1", string(a.World), []provenShare{}}
	for _, k := range kept {
		res.Proofs = append(res.Proofs, provenShare{k.Place.Holder, k.Place.Safe, k.Place.Epoch, k.Purpose, charter.FormatTime(k.At)})
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "the ledger has %d proofs, and each holds\n", len(res.Proofs))
		for _, p := range res.Proofs {
			fmt.Fprintf(w, "%s proved the share of safe %s, epoch %d, accepted %s: %s\n", p.Holder, p.Safe, p.Epoch, p.Accepted, cli.Escape(p.Purpose))
		}
	})
}

func readProofs(paths []string, state *charter.State, now time.Time) ([]*share.Proven, error) {
	var out []*share.Proven
	for _, p := range paths {
		data, err := intake.Read(p, share.MaxProofBytes)
		if err != nil {
			return nil, err
		}
		x, err := share.VerifyProof(data, state, now)
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "%q: %w", p, err)
		}
		out = append(out, x)
	}
	return out, nil
}

// accept writes everything into the ledger, or nothing.
func (o *shareProofOptions) accept(proofs []*share.Proven, state *charter.State, now time.Time) (err error) {
	if _, err := os.Stat(o.ledger); err != nil && len(o.challenges) == 0 {
		return fault.Hint(fault.Errorf(fault.Policy, "%w: there is none at %q", share.ErrNotOurs, o.ledger), "name the ledger of 'keyrite share challenge' with --ledger, or your challenge with --challenge")
	}
	if data, err := os.ReadFile(o.ledger); err == nil && !share.LooksLikeLedger(data) {
		return cli.Usagef("--ledger %q is another file, which is left alone", o.ledger)
	}
	log, old, err := durable.OpenAppend(o.ledger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	l, err := share.ReadLedger(old)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "%q: %w", o.ledger, err)
	}
	var lines [][]byte
	for _, path := range o.challenges {
		data, err := intake.Read(path, share.MaxProofBytes)
		if err != nil {
			return err
		}
		ch, err := share.ParseChallenge(data)
		if err == nil {
			err = ch.Check(state, now)
		}
		if err != nil {
			return fault.Errorf(fault.ClassOf(err), "challenge %q: %w", path, err)
		}
		line, err := l.Issue(ch)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	for _, p := range proofs {
		line, err := l.Accept(p, now)
		if err != nil {
			return err
		}
		lines = append(lines, line)
	}
	for _, line := range lines {
		if err := log.Line(line); err != nil {
			return err
		}
	}
	return nil
}

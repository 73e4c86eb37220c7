package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/signer/tuf"
)

type releaseRootOptions struct {
	trustOptions
	approvers  []string
	approverFD int
	version    int64
	days       int
	out        string
}

func newReleaseRoot(token opener, std cli.IO) *cobra.Command {
	var o releaseRootOptions
	c := &cobra.Command{
		Use:   "root --approver FILE.key… --opener KEY:SHARE… --bind FILE --charter FILE --anchor FILE --out N.root.json",
		Short: "Sign the root of the update repository",
		Long: `Sign the root metadata of the update repository with the key in the root token
and with the approvers' person keys. It says which keys may offer releases and
keep the offer fresh; all of them stand in the charter.

It is done once after the genesis and again before it expires, with the next
--version. Opening the root token takes its own quorum of shares.

Exit codes: 0 signed; 10 shares or approvers missing; 12 token absent, wrong
passphrase; 13 an approver is none; 14 altered file; 16 the output exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runReleaseRoot(c.Context(), c, &o, token, std) },
	}
	o.addFlags(c)
	token.addFlags(c)
	f := c.Flags()
	f.StringArrayVar(&o.approvers, "approver", nil, "key file of an approver, once for each who signs")
	f.IntVar(&o.approverFD, "approver-passphrase-fd", -1, "descriptor with their passphrases, one line each (default: the terminal)")
	f.Int64Var(&o.version, "version", 1, "version number of the root, one more than the last")
	f.IntVar(&o.days, "days", 365, "days until it expires")
	f.StringVar(&o.out, "out", "", "file for the root metadata; it is never overwritten")
	_ = c.MarkFlagRequired("out") // fails only for a flag that does not exist
	return c
}

type releaseRootResult struct {
	Schema  string   `json:"schema"`
	World   string   `json:"world"`
	Root    string   `json:"root"`
	Version int64    `json:"version"`
	Need    int      `json:"need"`
	Signers []string `json:"signers"`
	Expires string   `json:"expires"`
}

func runReleaseRoot(ctx context.Context, c *cobra.Command, o *releaseRootOptions, token opener, std cli.IO) error {
	if o.days < 1 || o.days > 3660 {
		return cli.Usagef("--days is 1 to 3660")
	}
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	_, state, err := o.load()
	if err != nil {
		return err
	}
	spec, err := tuf.RootOf(state, o.version, time.Now().AddDate(0, 0, o.days))
	if err != nil {
		return err
	}
	tbs, err := tuf.RootTBS(spec)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "Root %d of the update repository of world %s, until %s.\n", spec.Version, spec.World, spec.Expires.UTC().Format(time.DateOnly))
	sigs, names, err := o.signPeople(ctx, spec, tbs, std)
	if err != nil {
		return err
	}
	sig, err := signInToken(ctx, tbs, func() (keyring, error) {
		safe, err := safeOf(state, tuf.RootKeyID, "root")
		if err != nil {
			return nil, err
		}
		return token.open(ctx, state, safe, append([]byte("release root "), tbs...))
	})
	if err != nil {
		return err
	}
	root, err := tuf.Assemble(spec, append([]tuf.RootSignature{sig}, sigs...))
	if err != nil {
		return err
	}
	if err := tuf.CheckRoot(root, state); err != nil {
		return err
	}
	if err := out.Finish(root); err != nil {
		return err
	}
	res := releaseRootResult{
		"keyrite/release-root/v1", string(spec.World), o.out, spec.Version, spec.Need,
		append([]string{tuf.RootKeyID}, names...), spec.Expires.UTC().Format(time.RFC3339),
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "root %d signed by %s; %d needed; written to %s\n", res.Version, strings.Join(res.Signers, ", "), res.Need, cli.Escape(o.out))
	})
}

// signPeople has each approver sign. One who is no approver is refused before
// the token is opened, and so is a number that cannot be enough.
func (o *releaseRootOptions) signPeople(ctx context.Context, spec *tuf.RootSpec, tbs []byte, std cli.IO) ([]tuf.RootSignature, []string, error) {
	if len(o.approvers)+1 < spec.Need {
		return nil, nil, &cli.Error{Class: "quorum", Err: fmt.Errorf("%w: %d approvers and the token, %d needed", tuf.ErrSigners, len(o.approvers), spec.Need), Hint: "give --approver FILE.key once for each who signs"}
	}
	secrets := cli.NewSecrets(std, o.approverFD)
	var sigs []tuf.RootSignature
	var names []string
	for _, path := range o.approvers {
		key, err := openKeyWith(ctx, path, secrets)
		if err != nil {
			return nil, nil, err
		}
		name := key.Public().Name
		if !spec.Has(key.Signer().Public()) {
			key.Zero()
			return nil, nil, &cli.Error{Class: "policy", Err: fmt.Errorf("%s is no approver of the charter", name)}
		}
		sig, err := tuf.SignRoot(tbs, key.Signer())
		key.Zero()
		if err != nil {
			return nil, nil, err
		}
		sigs, names = append(sigs, sig), append(names, name)
	}
	return sigs, names, nil
}

func signInToken(ctx context.Context, tbs []byte, open func() (keyring, error)) (sig tuf.RootSignature, err error) {
	ring, err := open()
	if err != nil {
		return sig, err
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	var key crypto.Signer
	if key, err = ring.Signer(ctx, tuf.RootKeyID); err != nil {
		return sig, err
	}
	return tuf.SignRoot(tbs, key)
}

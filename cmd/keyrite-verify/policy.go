package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/policy"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

// maxKeyBytes bounds a public key file.
const maxKeyBytes = 8 << 10

type policyOptions struct{ anchor, key, account string }

func newPolicy() *cobra.Command {
	var o policyOptions
	c := &cobra.Command{
		Use:   "policy FILE --anchor FILE --key FILE.pub --account NAME",
		Short: "Verify an account's policy and show what it permits",
		Long: `Verify that the account's own policy key signed the policy, in the world of the
anchors, and show what it permits. The key is the account's and stands in no
anchors file: give the one that its administrator gave you.

Exit codes: 0 verified and in force, 2 not usable, 13 of another world or account,
or not in force now, 14 altered or not signed by this key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runPolicy(c, o, args[0]) },
	}
	anchorFlag(c, &o.anchor)
	c.Flags().StringVar(&o.key, "key", "", "the account's public policy key, PEM (required)")
	c.Flags().StringVar(&o.account, "account", "", "the account (required)")
	return c
}

type policyResult struct {
	Schema   string        `json:"schema"`
	World    string        `json:"world"`
	Account  string        `json:"account"`
	Version  int64         `json:"version"`
	NotAfter string        `json:"not_after"`
	Rules    []policy.Rule `json:"rules"`
}

func runPolicy(c *cobra.Command, o policyOptions, path string) error {
	anchors, err := loadAnchors(o.anchor)
	if err != nil {
		return err
	}
	if o.key == "" || o.account == "" {
		return cli.Usagef("--key and --account are needed")
	}
	key, err := policyKey(o.key)
	if err != nil {
		return err
	}
	data, err := intake.Read(path, policy.MaxBytes)
	if err != nil {
		return err
	}
	p, err := policy.Verify(data, key, anchors.World, o.account)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := p.CheckTime(time.Now()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r := policyResult{"keyrite/verify-policy/v1", string(p.World), p.Account, p.Version, p.NotAfter, p.Rules}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "verified: version %d of account %s, until %s (%s)\n", r.Version, r.Account, r.NotAfter, r.World)
		for _, rule := range p.Rules {
			d, _ := p.Device(rule.Device) // the policy was checked, so it exists
			fmt.Fprintf(w, "  %s may reach %s: %s behind gateway %s\n", rule.User, d.Name, d.Addr, d.Gateway)
		}
	})
}

func policyKey(path string) (crypto.PublicKey, error) {
	data, err := intake.Read(path, maxKeyBytes)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		return nil, cli.Usagef("%q is not one PEM block PUBLIC KEY", path)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, cli.Usagef("%q: %v", path, err)
	}
	return pub, nil
}

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/activation"
	"keyrite/client"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/wire/control"
)

type activationOptions struct {
	access, anchor, policyKey, out string
	fd                             int
}

func newActivation() *cobra.Command {
	var o activationOptions
	c := &cobra.Command{
		Use:   "activation --access HOST:PORT --anchor FILE --policy-key FILE.pub --out FILE [--activation-key-fd N]",
		Short: "Write the activation file that you carry to a gateway (for administrators)",
		Long: `Write the activation file that you carry to a gateway. It joins the one-time
activation key, which the relay made, with the fingerprint of your policy key,
which must not come from the relay: with it the gateway tells your policy from
everybody else's.

Exit codes: 0 written; 2 a value cannot be used; 16 the output exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runActivation(c, o) },
	}
	f := c.Flags()
	f.StringVar(&o.access, "access", "", "HOST:PORT of the access server (required)")
	f.StringVar(&o.anchor, "anchor", "", "anchors file, which names the world (required)")
	f.StringVar(&o.policyKey, "policy-key", "", "the account's public policy key, PEM (required)")
	f.StringVar(&o.out, "out", "", "file to write (required)")
	f.IntVar(&o.fd, "activation-key-fd", -1, "read the activation key from this descriptor instead of the terminal")
	return c
}

func runActivation(c *cobra.Command, o activationOptions) error {
	if o.access == "" || o.policyKey == "" || o.out == "" {
		return cli.Usagef("--access, --policy-key and --out are needed")
	}
	a, err := loadAnchors(o.anchor)
	if err != nil {
		return err
	}
	data, err := intake.Read(o.policyKey, maxAnchorBytes)
	if err != nil {
		return err
	}
	key, err := client.ParsePolicyKey(data)
	if err != nil {
		return err
	}
	secret, err := cli.NewSecrets(cli.Std(), o.fd).Next("activation key")
	if err != nil {
		return err
	}
	defer secret.Zero()
	file := activation.Activation{
		Access: o.access, ActivationKey: control.NormalKey(string(secret.Bytes())), Format: activation.Format,
		PolicyKey: activation.Fingerprint(key), World: a.World,
	}
	b, err := file.Marshal()
	if err != nil {
		return cli.Usagef("%v", err)
	}
	if err := durable.WriteNew(o.out, b, 0o600); err != nil {
		return err
	}
	return cli.Print(c, map[string]any{"schema": "keyrite/connect-activation/v1", "out": o.out, "policy_key": file.PolicyKey, "world": a.World}, func(w io.Writer) {
		fmt.Fprintf(w, "wrote %s for policy key %s, world %s\n", o.out, file.PolicyKey, a.World)
	})
}

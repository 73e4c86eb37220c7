package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/activation"
	"keyrite/gateway/enroll"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

const maxFileBytes = 1 << 20

type enrollOptions struct {
	options
	activation, anchor, root string
}

func newEnroll() *cobra.Command {
	var o enrollOptions
	c := &cobra.Command{
		Use:   "enroll --state-dir DIR --activation FILE --anchor FILE --tuf-root FILE",
		Short: "Join an account",
		Long: `Join the account whose administrator made the activation file.

The anchors must be those that the secure element was born with. The gateway
proves its birth key to the access server, which must be a relay of the anchors.
The account's policy key is taken only if it has the fingerprint that stands in
the activation file, and is then kept in the secure element, where only the
account's own key can change it.

Exit codes: 0 enrolled, 12 no or unborn secure element, 13 refused by the relay,
other world or other account, 14 anchors, root or policy key do not verify, 16
enrolled already, 19 relay does not answer, 20 not a relay of ours, or the relay
does not know this device's maker.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runEnroll(c, o) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.activation, "activation", "", "activation file of the account (required)")
	f.StringVar(&o.anchor, "anchor", "", "anchors file (required)")
	f.StringVar(&o.root, "tuf-root", "", "first TUF root, 1.root.json (required)")
	for _, name := range []string{"activation", "anchor", "tuf-root"} {
		cobra.CheckErr(c.MarkFlagRequired(name))
	}
	return c
}

type enrollResult struct {
	Schema    string `json:"schema"`
	World     string `json:"world"`
	Serial    string `json:"serial"`
	Account   string `json:"account"`
	Gateway   string `json:"gateway"`
	Access    string `json:"access"`
	PolicyKey string `json:"policy_key"`
}

func runEnroll(c *cobra.Command, o enrollOptions) error {
	var r enroll.Request
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{o.activation, &r.Activation}, {o.anchor, &r.Anchors}, {o.root, &r.Root}} {
		data, err := intake.Read(f.path, maxFileBytes)
		if err != nil {
			return err
		}
		*f.to = data
	}
	e, err := o.open()
	if err != nil {
		return err
	}
	defer e.Close()
	h, err := enroll.Enrol(c.Context(), o.stateDir, e, r)
	if err != nil {
		return err
	}
	n := h.Enrolment
	out := enrollResult{"keyrite/gateway-enroll/v1", string(n.World), string(h.Serial), n.Account, n.Gateway, n.Access, activation.Fingerprint(n.PolicyKey)}
	return cli.Print(c, out, func(w io.Writer) {
		fmt.Fprintf(w, "enrolled %s as gateway %s of account %s (world %s)\n", cli.Escape(out.Serial), out.Gateway, out.Account, out.World)
		fmt.Fprintf(w, "policy key %s, now in the secure element\n", out.PolicyKey)
	})
}

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/hsm"
	"keyrite/internal/cli"
)

// inspectOptions name a token by module and label, or a safe of the charter.
type inspectOptions struct {
	tokenOptions
	trust  trustOptions
	quorum openOptions
	safe   string

	signer, out string // of an inspection to be signed
	signerFD    int
}

func newHSMInspect(std cli.IO) *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use:   "inspect --module PATH [--token LABEL --pin-fd N]",
		Short: "List tokens, or every object and key of one",
		Long: `List the tokens of a module, without any login. With --token, log in and list
every object in the token, and for each key pair its public key and every
attribute. Nothing is changed, so a second program on a witness's machine can
read what a ceremony says it made.

With --out the witness signs what was read: serial, public keys and attributes,
nothing secret. 'keyrite-verify inspection' compares it with the record.

Exit codes: 0 good; 12 token absent or login refused; 2 unusable input; 14 a key
that cannot be read, with --out; 16 the file exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runHSMInspect(c.Context(), c, std, &o) },
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.out, "out", "", "file for what was read, signed; it is never overwritten")
	c.Flags().StringVar(&o.signer, "signer", "", "key file or card of the witness who signs it")
	c.Flags().IntVar(&o.signerFD, "signer-fd", -1, "descriptor with his passphrase (default: the terminal)")
	c.MarkFlagsRequiredTogether("out", "signer")
	return c
}

// addFlags adds both ways to name a token.
func (o *inspectOptions) addFlags(c *cobra.Command) {
	o.tokenOptions.addFlags(c)
	o.trust.addFlags(c)
	addOpenFlags(c, &o.quorum)
	c.Flags().StringVar(&o.safe, "safe", "", "safe of the charter, opened by its key masters, instead of --module, --token and --pin-fd")
	c.MarkFlagsRequiredTogether("token", "pin-fd")
	c.MarkFlagsOneRequired("module", "safe")
	c.MarkFlagsMutuallyExclusive("module", "safe")
}

// look runs f in the token, however it is named and opened.
func (o *inspectOptions) look(ctx context.Context, std cli.IO, f func(*hsm.Access) error) error {
	if o.safe == "" {
		return o.withToken(ctx, func(s *hsm.Session) error { return f(s.Access) })
	}
	return o.withSafe(ctx, std, "inspect", func(x *opened) error { return f(x.pool.Access) })
}

type hsmInspectResult struct {
	Schema  string          `json:"schema"`
	Module  hsm.ModuleInfo  `json:"module"`
	Tokens  []hsm.TokenInfo `json:"tokens"`
	Objects []hsm.Object    `json:"objects,omitempty"`
	Keys    []inspectedKey  `json:"keys,omitempty"`
}

type inspectedKey struct {
	ID         string            `json:"id"`
	Label      string            `json:"label"`
	Algorithm  string            `json:"algorithm,omitempty"`
	PublicKey  string            `json:"public_key,omitempty"` // SubjectPublicKeyInfo, hex
	Attributes hsm.AttributePair `json:"attributes"`
	Error      string            `json:"error,omitempty"` // why the pair could not be read
}

func runHSMInspect(ctx context.Context, c *cobra.Command, std cli.IO, o *inspectOptions) error {
	res := hsmInspectResult{Schema: "keyrite/hsm-inspect/v1"}
	inspect := func(s *hsm.Access) (err error) {
		res.Module, res.Tokens = s.Module(), []hsm.TokenInfo{s.TokenInfo()}
		res.Objects, res.Keys, err = inspectToken(ctx, s)
		return err
	}
	var err error
	switch {
	case o.safe == "" && o.token == "":
		err = listTokens(ctx, &o.tokenOptions, &res)
	default:
		err = o.look(ctx, std, inspect)
	}
	if err == nil && o.out != "" {
		err = o.sign(ctx, std, &res)
	}
	if err != nil {
		return err
	}
	return cli.Print(c, res, func(w io.Writer) { printInspected(w, &res) })
}

// withSafe runs f in a token that its key masters opened.
func (o *inspectOptions) withSafe(ctx context.Context, std cli.IO, what string, f func(*opened) error) error {
	_, state, err := o.trust.load()
	if err != nil {
		return err
	}
	x, err := o.quorum.open(ctx, std, state, o.safe, []byte(what))
	if err != nil {
		return err
	}
	return errors.Join(f(x), x.Close())
}

func listTokens(ctx context.Context, o *tokenOptions, res *hsmInspectResult) (err error) {
	sup, err := hsm.Start(ctx, o.config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	res.Tokens, res.Module, err = sup.Tokens(ctx)
	return err
}

// inspectToken reads every object, and every pair that has an id of ours.
func inspectToken(ctx context.Context, s *hsm.Access) ([]hsm.Object, []inspectedKey, error) {
	objs, err := s.Objects(ctx)
	if err != nil {
		return nil, nil, err
	}
	keys := []inspectedKey{}
	for _, o := range objs {
		raw, err := hex.DecodeString(o.ID)
		if o.Class != "CKO_PRIVATE_KEY" && o.Class != "CKO_SECRET_KEY" || err != nil || len(raw) != len(hsm.KeyID{}) {
			continue
		}
		k := inspectedKey{ID: o.ID, Label: o.Label}
		st, err := s.Attributes(ctx, hsm.KeyID(raw))
		switch {
		case errors.Is(err, hsm.ErrLost):
			return nil, nil, err
		case err != nil:
			k.Error = err.Error()
		default:
			k.Algorithm, k.PublicKey, k.Attributes = string(st.Algorithm), hex.EncodeToString(st.SPKI), st.Attributes
		}
		keys = append(keys, k)
	}
	return objs, keys, nil
}

func printInspected(w io.Writer, r *hsmInspectResult) {
	fmt.Fprintf(w, "module %s\n  %s %s, sha256 %s\n", cli.Escape(r.Module.Path), cli.Escape(r.Module.Description), cli.Escape(r.Module.LibraryVersion), r.Module.SHA256)
	h := &r.Module.Hardening
	fmt.Fprintf(w, "module process: user %d, capabilities %s, no new privileges %v, seccomp %s, landlock %s, sockets %s, network %s, core files %v, readable by others %v\n",
		h.User, cli.Escape(h.Capabilities), h.NoNewPrivileges, h.Seccomp, h.Landlock, h.Sockets, cli.Escape(h.Network), h.CoreFiles, h.Dumpable)
	for _, t := range r.Tokens {
		state := "free"
		if t.Initialised {
			state = "serial " + cli.Escape(t.Serial)
		}
		fmt.Fprintf(w, "token %q  %s  %s  firmware %s\n", cli.Escape(t.Label), state, cli.Escape(t.Model), t.Firmware)
	}
	for _, o := range r.Objects {
		fmt.Fprintf(w, "object %-16s %-32s %s token=%v private=%v\n", o.Class, cli.Escape(o.Label), o.ID, o.Token, o.Private)
	}
	for _, k := range r.Keys {
		if k.Error != "" {
			fmt.Fprintf(w, "key %s: not readable: %s\n", cli.Escape(k.Label), cli.Escape(k.Error))
			continue
		}
		fmt.Fprintf(w, "key %s %s\n  public key %s\n", cli.Escape(k.Label), k.Algorithm, k.PublicKey)
		for _, half := range []struct {
			name string
			as   []hsm.Attribute
		}{{"private", k.Attributes.Private}, {"public", k.Attributes.Public}, {"secret", k.Attributes.Secret}} {
			for _, a := range half.as {
				fmt.Fprintf(w, "  %-8s %-24s %s\n", half.name, a.Name, cli.Escape(a.Value))
			}
		}
	}
}
